/**
 * The outside of an inline-signed OpenPGP message (RFC 4880 §11.3), read piece by piece: what `gpg --sign` writes, compressed
 * or not, with one signature or several. Only that shape is understood. openpgp.js reads such a stream as well (95 MB: 84 to
 * 133 MB of memory), but it passes over packets that it does not know and what stands behind a message, and a message
 * that is compressed again and again it unpacks for ever.
 */
import { pipeline } from 'node:stream/promises'
import { Readable, type Transform } from 'node:stream'
import { createInflate, createInflateRaw } from 'node:zlib'
import { isGapferryError } from '../../manifests/errors.ts'
import { systemCode } from '../../manifests/system-error.ts'
import { ByteReader } from './byte-reader.ts'
import { badArchive } from './tar-header.ts'

/** What the message says of its signatures. */
export interface MessageSignatures {
  /** numbers of the hash algorithms that are announced, in the order of the signatures; filled before the first data */
  hashes: number[]
  /** bodies of the signature packets in their order, filled when the data have ended */
  signatures: Buffer[]
}

const TAG = { signature: 2, onePass: 4, compressed: 8, literal: 11 } as const
/** What else may start a message, for the reason in the error. */
const OTHER_TAGS: Record<number, string> = {
  1: 'an encrypted message',
  2: 'a signature without the archive',
  3: 'an encrypted message',
  5: 'a secret key',
  6: 'a public key',
  9: 'an encrypted message',
  18: 'an encrypted message',
  20: 'an encrypted message',
}
const MAX_SIGNATURES = 8
const MAX_SIGNATURE_BYTES = 16 * 1024
const ONE_PASS_BYTES = 13
const BINARY = 0x62
/** RFC 4880 §4.2.2.4; gpg writes 8 KiB. Smaller ones would cost a step each. */
const MIN_PARTIAL_BYTES = 512
/** What is packed again hardly shrinks: an archive is packed already. */
const MAX_RATIO = 16
const RATIO_FLOOR_BYTES = 16 * 2 ** 20
const CHUNK_BYTES = 64 * 1024

/** The data inside the message.
 *  @param found  is filled on the way
 *  @param what  names the module in messages
 *  @throws MODULE_ARCHIVE for any other shape, what is cut off or followed by something, and what grows too much */
export function messageData(
  file: AsyncIterable<Uint8Array>,
  found: MessageSignatures,
  what: string,
): AsyncGenerator<Uint8Array, void> {
  return readMessage(readerOf(file, what), found, what, false)
}

interface Packet {
  tag: number
  body: AsyncGenerator<Uint8Array, void>
}

async function* readMessage(
  reader: ByteReader,
  found: MessageSignatures,
  what: string,
  isUnpacked: boolean,
): AsyncGenerator<Uint8Array, void> {
  let packet = await nextPacket(reader, what)
  if (packet?.tag === TAG.compressed && !isUnpacked) {
    const inside = unpacked(packet.body, what)
    try {
      yield* readMessage(readerOf(inside, what), found, what, true)
    } finally {
      await inside.return() // whoever stops early leaves no decompressor behind
    }
    if (!(await reader.isAtEnd())) throw badArchive(what, 'something follows the signed message')
    return
  }
  for (; packet?.tag === TAG.onePass; packet = await nextPacket(reader, what)) {
    if (found.hashes.length === MAX_SIGNATURES) throw badArchive(what, `more than ${MAX_SIGNATURES} signatures`)
    found.hashes.push(onePassHash(await collect(packet.body, ONE_PASS_BYTES, what), what))
  }
  if (packet?.tag !== TAG.literal) throw badArchive(what, `expected a signed archive, found ${nameOf(packet?.tag)}`)
  yield* literalData(packet.body, what)
  for (;;) {
    packet = await nextPacket(reader, what)
    if (packet === undefined) return
    if (packet.tag !== TAG.signature) throw badArchive(what, 'something follows the signed archive')
    if (found.signatures.length === MAX_SIGNATURES) throw badArchive(what, `more than ${MAX_SIGNATURES} signatures`)
    found.signatures.push(await collect(packet.body, MAX_SIGNATURE_BYTES, what))
  }
}

function nameOf(tag: number | undefined): string {
  if (tag === undefined) return 'nothing'
  return OTHER_TAGS[tag] ?? `an OpenPGP packet of type ${tag}`
}

async function nextPacket(reader: ByteReader, what: string): Promise<Packet | undefined> {
  if (await reader.isAtEnd()) return undefined
  const first = (await reader.take(1))[0]!
  if ((first & 0x80) === 0) throw badArchive(what, 'is no OpenPGP message in binary')
  if ((first & 0x40) !== 0) return { tag: first & 0x3f, body: newBody(reader, first & 0x3f, what) }
  const tag = (first >> 2) & 15
  const width = [1, 2, 4, 0][first & 3]!
  if (width === 0 && tag !== TAG.literal && tag !== TAG.compressed)
    throw badArchive(what, 'an OpenPGP packet without a length, which gpg refuses')
  const length = width === 0 ? Infinity : (await reader.take(width)).readUIntBE(0, width)
  return { tag, body: reader.pieces(length) }
}

/** RFC 4880 §4.2.2: lengths of one, two or five bytes, or parts. */
async function* newBody(reader: ByteReader, tag: number, what: string): AsyncGenerator<Uint8Array, void> {
  for (;;) {
    const first = (await reader.take(1))[0]!
    const isPartial = first >= 224 && first < 255
    const length = isPartial ? 2 ** (first & 31) : await newLength(reader, first)
    const isLegal = !isPartial || (length >= MIN_PARTIAL_BYTES && (tag === TAG.literal || tag === TAG.compressed))
    if (!isLegal) throw badArchive(what, 'an OpenPGP packet in parts that are too small')
    yield* reader.pieces(length)
    if (!isPartial) return
  }
}

async function newLength(reader: ByteReader, first: number): Promise<number> {
  if (first < 192) return first
  if (first < 224) return ((first - 192) << 8) + (await reader.take(1))[0]! + 192
  return (await reader.take(4)).readUInt32BE()
}

/** Version, type, hash, key algorithm, key ID, whether it is the last. */
function onePassHash(body: Buffer, what: string): number {
  if (body.length !== ONE_PASS_BYTES || body[0] !== 3) throw badArchive(what, 'signed in a way that is not known')
  return body[2]!
}

async function* literalData(body: AsyncIterable<Uint8Array>, what: string): AsyncGenerator<Uint8Array, void> {
  const reader = readerOf(body, what)
  const [format, nameLength] = await reader.take(2)
  if (format !== BINARY) throw badArchive(what, 'is text, not an archive')
  await reader.take(nameLength! + 4) // and the date; neither is signed
  yield* reader.pieces(Infinity)
}

async function collect(body: AsyncIterable<Uint8Array>, limit: number, what: string): Promise<Buffer> {
  const pieces: Uint8Array[] = []
  let length = 0
  for await (const piece of body) {
    length += piece.length
    if (length > limit) throw badArchive(what, `a signature of more than ${limit} bytes`)
    pieces.push(piece)
  }
  return Buffer.concat(pieces)
}

async function* unpacked(body: AsyncIterable<Uint8Array>, what: string): AsyncGenerator<Uint8Array, void> {
  const reader = readerOf(body, what)
  const algorithm = (await reader.take(1))[0]!
  const packed = reader.pieces(Infinity)
  const settings = { chunkSize: CHUNK_BYTES, rejectGarbageAfterEnd: true }
  if (algorithm === 0) yield* packed
  else if (algorithm === 1) yield* inflated(packed, createInflateRaw(settings), { maxRatio: MAX_RATIO }, what)
  else if (algorithm === 2) yield* inflated(packed, createInflate(settings), { maxRatio: MAX_RATIO }, what)
  else throw badArchive(what, `is compressed in a way that is not known (${algorithm})`)
}

/** What a decompressor of zlib makes of `packed`.
 *  @throws MODULE_ARCHIVE where it is damaged, cut off or followed by something, and where more comes out of it than `maxRatio`
 *  bytes for each that went in */
export async function* inflated(
  packed: AsyncIterable<Uint8Array>,
  inflate: Transform & { bytesWritten: number },
  { maxRatio }: { maxRatio: number },
  what: string,
): AsyncGenerator<Uint8Array, void> {
  const done = pipeline(Readable.from(packed, { highWaterMark: 1 }), inflate)
  done.catch(() => {}) // the loop below meets the same error
  let length = 0
  try {
    for await (const piece of inflate as AsyncIterable<Buffer>) {
      length += piece.length
      if (length > Math.max(RATIO_FLOOR_BYTES, inflate.bytesWritten * maxRatio)) {
        throw badArchive(what, 'it unpacks to much more than an archive of a module does')
      }
      yield piece
    }
    await done
  } catch (cause) {
    if (isGapferryError(cause) || systemCode(cause) !== '') throw cause
    const why = cause instanceof Error ? cause.message : String(cause)
    throw badArchive(what, `is damaged or cut off (${why})`, cause)
  }
}

function readerOf(pieces: AsyncIterable<Uint8Array>, what: string): ByteReader {
  return new ByteReader(pieces, () => badArchive(what, 'was cut off'))
}
