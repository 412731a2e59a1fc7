/**
 * A TUF client around the mirror's own verification (storage/trust.ts), with the three verbs of the public TUF conformance
 * suite. It fetches over HTTP, which the mirror itself never does; that part exists for tests only. Trusted state is kept as
 * root.json, timestamp.json, snapshot.json and targets.json, replaced together when all of them were believed.
 *
 * The suite's own repositories, made by a general TUF library, are refused here by design, because the verification reads
 * one profile of TUF (manifests/FORMAT.md#metadata):
 *   - every role must name the site (`x-site`), and the timestamp when and by what it was made: a generic one does not;
 *   - one spelling of the JSON, key ids that are the digest of their keys, ECDSA P-256 and RSA-PSS only (no Ed25519);
 *   - timestamp, snapshot and targets carry one number, snapshot and timestamp must give length and SHA-256;
 *   - no delegations, consistent_snapshot always, fields outside the tables only as `x-…` texts.
 * It also keeps less: where a refresh fails, newer roots that were good are not kept either, because an import that is refused
 * leaves nothing behind. So the suite cannot be run against it; tuf-client.test.ts plays its cases with repositories of ours.
 */
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { sha256Of } from '../../manifests/digest.ts'
import { GapferryError } from '../../manifests/errors.ts'
import { MAX_METADATA_BYTES, parseRoot, parseTimestamp, pinRoot } from '../../manifests/metadata.ts'
import { replaceFile } from '../../storage/durable.ts'
import { verifyMetadata, type VerifiedMetadata } from '../../storage/trust.ts'

export interface ClientArgs {
  metadataDir: string
  metadataUrl: string
  nowMs: number
  /** for each answer, from the request to its last byte */
  timeoutMs?: number
}

const TIMEOUT_MS = 10_000
const MAX_ROOTS = 256

/** Trusts the root in `rootFile`. @throws ROOT_INVALID */
export function init(metadataDir: string, rootFile: string): void {
  const bytes = readFileSync(rootFile)
  pinRoot(bytes)
  mkdirSync(metadataDir, { recursive: true })
  replaceFile(join(metadataDir, 'root.json'), bytes)
}

/** Follows the repository; the trusted state is replaced when all of it was believed.
 *  @throws what verifyMetadata throws; FETCH_STATUS, FETCH_TOO_LONG, FETCH_TIMEOUT, FETCH_FAILED */
export async function refresh(args: ClientArgs): Promise<VerifiedMetadata> {
  const { metadataDir, nowMs } = args
  const kept = (name: string): Buffer | undefined => {
    const file = join(metadataDir, name)
    return existsSync(file) ? readFileSync(file) : undefined
  }
  const root = kept('root.json')
  if (root === undefined)
    throw new GapferryError('USAGE_INVALID', `${metadataDir}: no root is trusted; init comes first`)
  const trusted: Parameters<typeof verifyMetadata>[0]['trusted'] = { roots: [root] }
  for (const role of ['timestamp', 'snapshot', 'targets'] as const) {
    const bytes = kept(`${role}.json`)
    if (bytes !== undefined) trusted[role] = bytes
  }
  const offered = await fetchMetadata(args, parseRoot(root, 'root.json').version)
  const scratchDir = mkdtempSync(join(tmpdir(), 'tuf-client-'))
  try {
    const found = await verifyMetadata({ trusted, offered, nowMs, scratchDir })
    const { roots, timestamp, snapshot, targets } = found.state
    replaceFile(join(metadataDir, 'root.json'), roots.at(-1)!)
    replaceFile(join(metadataDir, 'targets.json'), targets!)
    replaceFile(join(metadataDir, 'snapshot.json'), snapshot!)
    replaceFile(join(metadataDir, 'timestamp.json'), timestamp!)
    return found
  } finally {
    rmSync(scratchDir, { recursive: true, force: true })
  }
}

/** Refreshes, then fetches one target into `targetDir`, under its name with `/` as `%2F`; one that is there is left alone.
 *  @returns its file
 *  @throws also PATH_UNKNOWN, FETCH_SIZE_MISMATCH, FETCH_DIGEST_MISMATCH */
export async function download(
  args: ClientArgs & { targetName: string; targetBaseUrl: string; targetDir: string },
): Promise<string> {
  const { targets } = await refresh(args)
  const { targetName, targetBaseUrl, targetDir } = args
  const target = targets.get(targetName)
  if (target === undefined) throw new GapferryError('PATH_UNKNOWN', `${targetName} is no target`)
  const file = join(targetDir, encodeURIComponent(targetName))
  if (existsSync(file) && sha256Of(readFileSync(file)) === target.sha256) return file
  // consistent_snapshot (TUF 1.0.31 §6.2.3): the digest stands before the last name of the path.
  const path = join(dirname(targetName), `${target.sha256}.${targetName.split('/').at(-1)!}`)
  const bytes = await fetchBytes(`${targetBaseUrl}/${path}`, target.bytes, args.timeoutMs)
  if (bytes === undefined) throw new GapferryError('FETCH_STATUS', `${path}: 404`)
  if (bytes.length !== target.bytes) {
    throw new GapferryError('FETCH_SIZE_MISMATCH', `${path}: expected ${target.bytes} bytes, found ${bytes.length}`)
  }
  const found = createHash('sha256').update(bytes).digest('hex')
  if (found !== target.sha256) {
    throw new GapferryError('FETCH_DIGEST_MISMATCH', `${path}: expected ${target.sha256}, found ${found}`)
  }
  mkdirSync(targetDir, { recursive: true })
  writeFileSync(file, bytes)
  return file
}

/** Every newer root, then what the timestamp names; nothing is believed here. */
async function fetchMetadata(
  { metadataUrl, timeoutMs }: ClientArgs,
  rootVersion: number,
): Promise<Map<string, Buffer>> {
  const offered = new Map<string, Buffer>()
  const get = (name: string, role: keyof typeof MAX_METADATA_BYTES): Promise<Buffer | undefined> =>
    fetchBytes(`${metadataUrl}/${name}`, MAX_METADATA_BYTES[role], timeoutMs)
  for (let version = rootVersion + 1; version <= rootVersion + MAX_ROOTS; version++) {
    const bytes = await get(`${version}.root.json`, 'root')
    if (bytes === undefined) break
    offered.set(`${version}.root.json`, bytes)
  }
  const timestamp = await get('timestamp.json', 'timestamp')
  if (timestamp === undefined) return offered
  offered.set('timestamp.json', timestamp)
  const { snapshot } = parseTimestamp(timestamp, 'timestamp.json')
  for (const role of ['snapshot', 'targets'] as const) {
    const name = `${snapshot.version}.${role}.json`
    const bytes = await get(name, role)
    if (bytes !== undefined) offered.set(name, bytes)
  }
  return offered
}

/** @returns undefined for 404
 *  @throws FETCH_TOO_LONG at the first byte past `maxBytes`, FETCH_TIMEOUT, FETCH_STATUS, FETCH_FAILED */
async function fetchBytes(url: string, maxBytes: number, timeoutMs = TIMEOUT_MS): Promise<Buffer | undefined> {
  const signal = AbortSignal.timeout(timeoutMs)
  try {
    const answer = await fetch(url, { signal, redirect: 'error' })
    if (answer.status !== 200) {
      await answer.body?.cancel()
      if (answer.status === 404) return undefined
      throw new GapferryError('FETCH_STATUS', `${url}: ${answer.status}`)
    }
    const pieces: Uint8Array[] = []
    let bytes = 0
    for await (const piece of answer.body ?? []) {
      bytes += (piece as Uint8Array).length
      if (bytes > maxBytes) throw new GapferryError('FETCH_TOO_LONG', `${url}: more than ${maxBytes} bytes`)
      pieces.push(piece as Uint8Array)
    }
    return Buffer.concat(pieces)
  } catch (cause) {
    if (cause instanceof GapferryError) throw cause
    const code = signal.aborted ? 'FETCH_TIMEOUT' : 'FETCH_FAILED'
    throw new GapferryError(code, `${url}: ${String(cause)}`, { cause })
  }
}
