/** A small reader of OpenPGP packets (RFC 4880), independent of the library that writes them. */

export interface Packet {
  tag: number
  isNewFormat: boolean
  body: Buffer
}

export interface Subpacket {
  type: number
  isCritical: boolean
  data: Buffer
}

/** The bytes inside armor, its checksum checked. @param kind  for instance 'SIGNATURE'; default: any */
export function unarmor(text: string, kind = '[A-Z ]+'): Buffer {
  const match = new RegExp(
    `^-----BEGIN PGP ${kind}-----\n(?:[A-Za-z]+: .*\n)*\n([A-Za-z0-9+/=\n]+)\n=([A-Za-z0-9+/]{4})\n-----END PGP ${kind}-----\n$`,
  ).exec(text)
  if (match === null) throw new Error('not armored as expected')
  const bytes = Buffer.from(match[1]!, 'base64')
  if (crc24(bytes) !== Buffer.from(match[2]!, 'base64').readUIntBE(0, 3)) throw new Error('wrong checksum')
  return bytes
}

export function parsePackets(bytes: Buffer): Packet[] {
  const packets: Packet[] = []
  for (let at = 0; at < bytes.length;) {
    const first = bytes[at]!
    if ((first & 0x80) === 0) throw new Error(`no packet at ${at}`)
    const isNewFormat = (first & 0x40) !== 0
    const [length, head] = isNewFormat ? newLength(bytes, at + 1) : oldLength(bytes, at + 1, first & 3)
    const start = at + 1 + head
    packets.push({
      tag: isNewFormat ? first & 0x3f : (first >> 2) & 15,
      isNewFormat,
      body: bytes.subarray(start, start + length),
    })
    at = start + length
  }
  return packets
}

export function parseSignature(body: Buffer) {
  const hashedLength = body.readUInt16BE(4)
  const unhashedAt = 6 + hashedLength
  const unhashedLength = body.readUInt16BE(unhashedAt)
  return {
    version: body[0]!,
    type: body[1]!,
    keyAlgorithm: body[2]!,
    hash: body[3]!,
    hashed: parseSubpackets(body.subarray(6, unhashedAt)),
    unhashed: parseSubpackets(body.subarray(unhashedAt + 2, unhashedAt + 2 + unhashedLength)),
  }
}

function parseSubpackets(area: Buffer): Subpacket[] {
  const found: Subpacket[] = []
  for (let at = 0; at < area.length;) {
    const [length, head] = newLength(area, at)
    const type = area[at + head]!
    found.push({
      type: type & 0x7f,
      isCritical: type > 0x7f,
      data: area.subarray(at + head + 1, at + head + length),
    })
    at += head + length
  }
  return found
}

function newLength(bytes: Buffer, at: number): [length: number, head: number] {
  const first = bytes[at]!
  if (first < 192) return [first, 1]
  if (first < 255) return [((first - 192) << 8) + bytes[at + 1]! + 192, 2]
  return [bytes.readUInt32BE(at + 1), 5]
}

function oldLength(bytes: Buffer, at: number, kind: number): [length: number, head: number] {
  if (kind === 0) return [bytes[at]!, 1]
  if (kind === 1) return [bytes.readUInt16BE(at), 2]
  if (kind === 2) return [bytes.readUInt32BE(at), 4]
  throw new Error('a packet without a length')
}

function crc24(bytes: Buffer): number {
  let crc = 0xb704ce
  for (const byte of bytes) {
    crc ^= byte << 16
    for (let bit = 0; bit < 8; bit++) crc = (crc << 1) ^ ((crc & 0x800000) === 0 ? 0 : 0x1864cfb)
    crc &= 0xffffff
  }
  return crc
}
