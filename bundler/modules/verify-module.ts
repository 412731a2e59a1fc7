/**
 * A module as it was downloaded: its digests, the signature around it, and what is inside. Nothing is unpacked to disk.
 * 95 MB of it, signed and compressed, take 1.2 s of processor and 40 to 70 MB of memory beside the program's 90: V8 collects
 * buffers after 64 MB of them. test/slow/large-module.test.ts
 */
import { createHash, type Hash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { open } from 'node:fs/promises'
import { createGunzip } from 'node:zlib'
import type { Sha256 } from '../../manifests/digest.ts'
import { GapferryError } from '../../manifests/errors.ts'
import { ModuleArchiveScanner, type ModuleArchive } from './module-archive.ts'
import { readIdentity } from './module-identity.ts'
import { judgeSignatures, SignedDigests, type SignatureVerdict } from './module-signature.ts'
import { inflated, messageData, type MessageSignatures } from './signed-message.ts'
import { badArchive, shown } from './tar-header.ts'
import type { ModuleKey } from './vendor-keys.ts'

/** What a module list says of a module. */
export interface ModuleCheck {
  rawname: string
  version: string
  /** of the file, lower case; there: the file is a signed OpenPGP message */
  signedSha1?: string | undefined
  /** of the archive inside, or of the file where it is not signed */
  md5?: string | undefined
  sha1?: string | undefined
}

/** What a module turned out to be. */
export interface ModuleVerdict {
  /** `good`: every signature is by a pinned key and holds. `unsigned`: there is none. `bad`: all else */
  verdict: 'good' | 'unsigned' | 'bad'
  /** fingerprint of the primary key, 40 hex digits, upper case; there where the verdict is good */
  signer?: string
  /** there where it is not */
  why?: string
  /** the archive inside, or the file where it is not signed */
  inner: { bytes: number; md5: string; sha1: string; sha256: Sha256 }
}

/** An archive of a module; the largest known has 95 MB. */
const MAX_FILE_BYTES = 2 ** 30
/** Scripts and pictures shrink to a third, logs to a thirtieth. */
const MAX_RATIO = 100
const CHUNK_BYTES = 64 * 1024
const GZIP_MAGIC = 0x1f

/** Looks through a module's file.
 *  @param expected       what the list says; what it does not say is not compared
 *  @param keys           whose signatures count
 *  @param context.nowMs  for keys and signatures that end
 *  @throws MODULE_DIGEST where sha1 or md5 differ; MODULE_ARCHIVE for what is no archive of one module, is hostile, or is over
 *  a limit; MODULE_MISMATCH where the folder or module.xml inside are another module's or version's. A signature that is
 *  absent, foreign or broken is a verdict */
export async function verifyModule(
  file: string,
  expected: ModuleCheck,
  keys: readonly ModuleKey[],
  context: { signal: AbortSignal; nowMs: number },
): Promise<ModuleVerdict> {
  const what = `${expected.rawname} ${expected.version}`
  try {
    const isMessage = await checkFile(file, expected, what, context.signal)
    return isMessage
      ? await verifyMessage(file, expected, keys, { ...context, what })
      : await verifyPlain(file, expected, { ...context, what })
  } catch (error) {
    context.signal.throwIfAborted() // what was stopped looks cut off
    throw error
  }
}

interface Context {
  signal: AbortSignal
  nowMs: number
  what: string
}

/** The digest of the file is compared before anything in it is looked at.
 *  @returns true where it is to be read as an OpenPGP message */
async function checkFile(file: string, expected: ModuleCheck, what: string, signal: AbortSignal): Promise<boolean> {
  const { signedSha1, sha1, md5 } = expected
  const digest = createHash(signedSha1 === undefined && sha1 === undefined ? 'md5' : 'sha1')
  const handle = await open(file, 'r')
  try {
    const { size } = await handle.stat()
    if (size > MAX_FILE_BYTES) throw badArchive(what, `a file of ${size} bytes, more than ${MAX_FILE_BYTES}`)
    const buffer = Buffer.allocUnsafe(CHUNK_BYTES)
    let first: number | undefined
    for (;;) {
      signal.throwIfAborted()
      const { bytesRead } = await handle.read(buffer)
      if (bytesRead === 0) break
      first ??= buffer[0]
      digest.update(buffer.subarray(0, bytesRead))
    }
    checkDigest(what, 'file', signedSha1 ?? sha1 ?? md5, digest.digest('hex'))
    return signedSha1 !== undefined && first !== GZIP_MAGIC
  } finally {
    await handle.close()
  }
}

async function verifyPlain(file: string, expected: ModuleCheck, context: Context): Promise<ModuleVerdict> {
  const inner = new InnerFile()
  await readArchive(file, expected, context, (source) => inner.follow(source))
  const facts = inner.facts(expected, context.what)
  if (expected.signedSha1 === undefined) return { verdict: 'unsigned', why: 'its entry has no signature', inner: facts }
  return { verdict: 'bad', why: 'its entry has a signature, the file has none', inner: facts }
}

async function verifyMessage(
  file: string,
  expected: ModuleCheck,
  keys: readonly ModuleKey[],
  context: Context,
): Promise<ModuleVerdict> {
  const found: MessageSignatures = { hashes: [], signatures: [] }
  const inner = new InnerFile()
  let digests: SignedDigests | undefined
  await readArchive(file, expected, context, (source) =>
    inner.follow(messageData(source, found, context.what), (piece) => {
      digests ??= new SignedDigests(found.hashes)
      digests.update(piece)
    }),
  )
  const facts = inner.facts(expected, context.what)
  const { verdict, ...rest }: SignatureVerdict = await judgeSignatures(found, digests!, keys, context.nowMs)
  return { verdict, ...rest, inner: facts }
}

/** Reads the file through `inside` to the end of the archive. */
async function readArchive(
  file: string,
  expected: ModuleCheck,
  { signal, what }: Context,
  inside: (source: AsyncIterable<Uint8Array>) => AsyncIterable<Uint8Array>,
): Promise<void> {
  const source = createReadStream(file, { highWaterMark: CHUNK_BYTES, signal })
  try {
    const gunzip = createGunzip({ chunkSize: CHUNK_BYTES, rejectGarbageAfterEnd: true })
    const scanner = new ModuleArchiveScanner(what)
    for await (const piece of inflated(inside(source), gunzip, { maxRatio: MAX_RATIO }, what)) scanner.push(piece)
    checkIdentity(scanner.end()!, expected, what)
  } finally {
    source.destroy()
  }
}

/** The archive inside, as its bytes pass. */
class InnerFile {
  readonly #digests: Record<'md5' | 'sha1' | 'sha256', Hash> = {
    md5: createHash('md5'),
    sha1: createHash('sha1'),
    sha256: createHash('sha256'),
  }
  #bytes = 0

  /** @param also  sees every piece */
  async *follow(
    pieces: AsyncIterable<Uint8Array>,
    also: (piece: Uint8Array) => void = () => {},
  ): AsyncGenerator<Uint8Array, void> {
    for await (const piece of pieces) {
      this.#bytes += piece.length
      for (const digest of Object.values(this.#digests)) digest.update(piece)
      also(piece)
      yield piece
    }
  }

  /** @throws MODULE_DIGEST */
  facts(expected: ModuleCheck, what: string): ModuleVerdict['inner'] {
    const { md5, sha1, sha256 } = this.#digests
    const facts = {
      bytes: this.#bytes,
      md5: md5.digest('hex'),
      sha1: sha1.digest('hex'),
      sha256: sha256.digest('hex') as Sha256,
    }
    checkDigest(what, 'archive', expected.md5, facts.md5)
    checkDigest(what, 'archive', expected.sha1, facts.sha1)
    return facts
  }
}

function checkIdentity({ folder, moduleXml }: ModuleArchive, expected: ModuleCheck, what: string): void {
  if (folder !== expected.rawname) throw mismatch(what, 'the folder', folder)
  const found = readIdentity(moduleXml, what)
  for (const name of ['rawname', 'version'] as const) {
    if (found[name] !== expected[name]) throw mismatch(what, `${name} in module.xml`, found[name])
  }
}

function mismatch(what: string, which: string, found: string): GapferryError {
  return new GapferryError('MODULE_MISMATCH', `${what}: it is another module inside: ${which} is ${shown(found)}`)
}

function checkDigest(what: string, which: string, expected: string | undefined, found: string): void {
  if (expected === undefined || expected === found) return
  throw new GapferryError('MODULE_DIGEST', `${what}: the list says ${expected} of the ${which}, found ${found}`)
}
