/** What the signatures of a module are worth: the verdict that a box's gpg gives, over digests that were made on the way. */
import { createHash, type Hash } from 'node:crypto'
import { enums, SignaturePacket, type Config } from 'openpgp'
import type { MessageSignatures } from './signed-message.ts'
import { MODULE_CONFIG, type ModuleKey } from './vendor-keys.ts'

/** What became of the signatures of one message. */
export type SignatureVerdict = { verdict: 'good'; signer: string } | { verdict: 'unsigned' | 'bad'; why: string }

const SHA1 = 2
const HASHES: Record<number, string> = { [SHA1]: 'sha1', 8: 'sha256', 9: 'sha384', 10: 'sha512', 11: 'sha224' }
/** SHA-1 is not good enough, but a person who may let such a module pass wants to know whether the signature holds. */
const WITH_SHA1: Config = { ...MODULE_CONFIG, rejectMessageHashAlgorithms: MODULE_CONFIG.rejectHashAlgorithms }

/** The digests that the signatures of one message are over. */
export class SignedDigests {
  readonly #digests = new Map<number, Hash>()

  /** @param hashes  numbers of hash algorithms; those that are not known here are passed over */
  constructor(hashes: readonly number[]) {
    for (const id of hashes) {
      if (HASHES[id] !== undefined && !this.#digests.has(id)) this.#digests.set(id, createHash(HASHES[id]))
    }
  }

  update(piece: Uint8Array): void {
    for (const digest of this.#digests.values()) digest.update(piece)
  }

  /** Over the data and what a version 4 signature adds to them (RFC 4880 §5.2.4); undefined for an algorithm that the
   *  message did not announce. */
  over(hash: number, signatureData: Uint8Array): Uint8Array | undefined {
    const trailer = Buffer.from([4, 0xff, 0, 0, 0, 0])
    trailer.writeUInt32BE(signatureData.length, 2)
    return this.#digests.get(hash)?.copy().update(signatureData).update(trailer).digest()
  }
}

/** Good where every signature holds and is by one of the keys: a box refuses a message of which it cannot check one.
 *  @param found  of the message, read to its end */
export async function judgeSignatures(
  found: MessageSignatures,
  digests: SignedDigests,
  keys: readonly ModuleKey[],
  nowMs: number,
): Promise<SignatureVerdict> {
  const { hashes, signatures } = found
  if (hashes.length + signatures.length === 0)
    return { verdict: 'unsigned', why: 'is an OpenPGP message without a signature' }
  if (hashes.length !== signatures.length)
    return { verdict: 'bad', why: `announces ${hashes.length} signatures and has ${signatures.length}` }
  const signers: string[] = []
  for (const body of signatures) {
    try {
      signers.push(await signerOf(body, digests, keys, nowMs))
    } catch (error) {
      return { verdict: 'bad', why: messageOf(error) }
    }
  }
  return { verdict: 'good', signer: signers[0]! }
}

/** @throws Error with the reason, where the signature is not good */
async function signerOf(
  body: Buffer,
  digests: SignedDigests,
  keys: readonly ModuleKey[],
  nowMs: number,
): Promise<string> {
  const packet = parse(body)
  const hash = packet.hashAlgorithm as number
  const issuer = issuerOf(packet)
  const signer = keys.find(({ key }) => key.getKeys(packet.issuerKeyID).length > 0)
  if (packet.signatureType !== enums.signature.binary)
    throw new Error(`its signature by ${issuer} is not over bytes as they are`)
  if (signer === undefined) throw new Error(`its signature is by ${issuer}, which is none of the keys for modules`)
  const digest = digests.over(hash, packet.signatureData!)
  if (digest === undefined)
    throw new Error(`its signature by ${issuer} is over a digest that is not known or not announced (${hash})`)
  try {
    await check(packet, digest, signer, nowMs)
  } catch (error) {
    throw new Error(`its signature by ${issuer} does not hold: ${messageOf(error)}`, { cause: error })
  }
  if (hash === SHA1) throw new Error(`its signature by ${issuer} holds, but is over SHA-1, which can be forged`)
  return signer.fingerprint
}

function parse(body: Buffer): SignaturePacket {
  const packet = new SignaturePacket()
  try {
    packet.read(body)
  } catch (error) {
    throw new Error(`its signature cannot be read: ${messageOf(error)}`, { cause: error })
  }
  if (packet.version !== 4) throw new Error(`its signature is of version ${packet.version}, expected 4`)
  return packet
}

function issuerOf(packet: SignaturePacket): string {
  const { issuerFingerprint } = packet
  return issuerFingerprint === null
    ? packet.issuerKeyID.toHex().toUpperCase()
    : Buffer.from(issuerFingerprint).toString('hex').toUpperCase()
}

/** The signature itself, then its key: now, and when it signed. @throws what openpgp.js says */
async function check(packet: SignaturePacket, digest: Uint8Array, { key }: ModuleKey, nowMs: number): Promise<void> {
  const own = key.getKeys(packet.issuerKeyID)[0]!
  if (
    packet.issuerFingerprint !== null &&
    own.getFingerprint() !== Buffer.from(packet.issuerFingerprint).toString('hex')
  )
    throw new Error('another key has that number')
  // As with gpg, a clock that is slow does not make a signature bad.
  const now = new Date(Math.max(nowMs, packet.created!.getTime()))
  const data = new Uint8Array() // in its place openpgp.js takes the digest that it finds here
  Object.assign(packet, { hashed: Promise.resolve(digest) })
  await packet.verify(own.keyPacket, enums.signature.binary, data, now, false, WITH_SHA1)
  if (own.getCreationTime() > packet.created!) throw new Error('the key is newer than the signature')
  await key.getSigningKey(packet.issuerKeyID, now, undefined, MODULE_CONFIG)
  try {
    await key.getSigningKey(packet.issuerKeyID, packet.created, undefined, MODULE_CONFIG)
  } catch (error) {
    // A key that was renewed later: what it says of itself now was not said then.
    if (!/in the future/.test(String(error))) throw error
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
