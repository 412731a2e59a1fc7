/**
 * OpenPGP, for yum and apt only: boxes check repository metadata with it, the mirror never trusts it. Keys and signatures
 * are made so that gpg 2.0, rpm 4.11 and yum 3.4.3's own parser can read them: version 4, RSA, one primary key that signs,
 * no subkeys, no expiry (boxes have wrong clocks), SHA-256, armor with CRC24, and no critical subpackets.
 */
import {
  config,
  createMessage,
  enums,
  generateKey,
  readKeys,
  readPrivateKey,
  readSignature,
  sign,
  SignaturePacket,
  verify,
  type PartialConfig,
} from 'openpgp'
import { GapferryError } from '../../manifests/errors.ts'

const RSA_BITS = 3072
/** Boxes whose clocks are behind must not meet a key from the future. */
export const BACKDATE_MS = 24 * 3600 * 1000
const MAX_KEYS_LENGTH = 1024 * 1024
const KEY_BLOCK = /^-----BEGIN PGP PUBLIC KEY BLOCK-----[^]*?^-----END PGP PUBLIC KEY BLOCK-----/gm
const MAX_SIGNATURE_BYTES = 100 * 1024 // yum reads no more of a repomd.xml.asc

const SIGNING: PartialConfig = {
  v6Keys: false,
  aeadProtect: false,
  nonDeterministicSignaturesViaNotation: false,
  preferredHashAlgorithm: enums.hash.sha256,
  showVersion: false,
  showComment: false,
}

/** What gpg on a box accepts from an upstream: keys whose own signatures are from the days of SHA-1, or were renewed after
 *  they signed. The signature over the data itself gets no such leniency. */
export const VERIFYING: PartialConfig = {
  rejectHashAlgorithms: new Set([enums.hash.md5, enums.hash.ripemd]),
  rejectMessageHashAlgorithms: new Set([enums.hash.md5, enums.hash.ripemd, enums.hash.sha1]),
  allowInsecureVerificationWithReformattedKeys: true,
}

/** A site's OpenPGP key. */
export interface OpenpgpKey {
  /** 40 lower-case hex digits */
  fingerprint: string
  /** the public key, armored: `keys/site.asc` */
  armored: string
  /** the secret key packets, not encrypted: for the keystore only */
  secret: Uint8Array
}

/** Makes the key that signs a site's repository metadata; takes a second or two. */
export async function createOpenpgpKey(site: string, nowMs: number): Promise<OpenpgpKey> {
  const { privateKey, publicKey } = await generateKey({
    type: 'rsa',
    rsaBits: RSA_BITS,
    userIDs: [{ name: `Gapferry site ${site}` }],
    subkeys: [],
    date: new Date(nowMs - BACKDATE_MS),
    format: 'object',
    config: SIGNING,
  })
  return {
    fingerprint: privateKey.getFingerprint(),
    armored: publicKey.armor({ ...config, ...SIGNING }),
    secret: privateKey.write(),
  }
}

/** A detached signature over `bytes`, armored. Equal key, bytes and date give equal text.
 *  @param secret  as in OpenpgpKey
 *  @throws KEY_INVALID when `secret` is not a key that can sign on that date */
export async function signDetached(secret: Uint8Array, bytes: Uint8Array, dateMs: number): Promise<string> {
  try {
    const signingKeys = await readPrivateKey({ binaryKey: secret, config: SIGNING })
    const message = await createMessage({ binary: bytes })
    return await sign({ message, signingKeys, detached: true, date: new Date(dateMs), config: SIGNING })
  } catch (cause) {
    throw new GapferryError('KEY_INVALID', `openpgp key: cannot sign: ${String(cause)}`, { cause })
  }
}

/** What an upstream's detached signature says about `bytes`.
 *  @param keys       armored text, one or more public keys
 *  @param signature  as sent: armored or binary
 *  @returns 'good' when one of the keys made the signature and was valid when it did; else 'bad'
 *  @throws KEY_INVALID when `keys` holds no usable key */
export async function verifySignature(args: {
  keys: string
  bytes: Uint8Array
  signature: Uint8Array
  nowMs: number
}): Promise<'good' | 'bad'> {
  const verificationKeys = await parseKeys(args.keys)
  if (args.signature.length > MAX_SIGNATURE_BYTES) return 'bad'
  try {
    const message = await createMessage({ binary: args.bytes })
    const signature = await parseSignature(args.signature)
    const date = new Date(args.nowMs)
    const { signatures } = await verify({ message, signature, verificationKeys, date, config: VERIFYING })
    await Promise.any(signatures.map(({ verified }) => verified))
    return 'good'
  } catch {
    return 'bad' // whatever is wrong with a signature, it is not good; the caller names URL and key
  }
}

/** All keys of a text. Key files are often several armored keys one after the other; openpgp.js reads only the first.
 *  @throws KEY_INVALID where there is none, a secret one, or one that cannot be read */
export async function parseKeys(text: string): ReturnType<typeof readKeys> {
  const blocks = text.length > MAX_KEYS_LENGTH ? [] : (text.match(KEY_BLOCK) ?? [])
  if (blocks.length === 0)
    throw new GapferryError('KEY_INVALID', 'openpgp key: expected an armored public key, found none')
  const keys = await Promise.all(blocks.map((armoredKeys) => readKeys({ armoredKeys, config: VERIFYING }))).catch(
    (cause: unknown) => {
      throw new GapferryError('KEY_INVALID', `openpgp key: is not an armored public key: ${String(cause)}`, { cause })
    },
  )
  // The armor's title is not what decides what openpgp.js reads, and these keys are carried.
  if (keys.flat().some((key) => key.isPrivate()))
    throw new GapferryError('KEY_INVALID', 'openpgp key: expected public keys, found a secret one')
  return keys.flat()
}

async function parseSignature(bytes: Uint8Array): ReturnType<typeof readSignature> {
  const isBinary = (bytes[0] ?? 0) >= 0x80 // every OpenPGP packet starts so, no text does
  if (isBinary) return readSignature({ binarySignature: bytes, config: VERIFYING })
  return readSignature({ armoredSignature: Buffer.from(bytes).toString('latin1'), config: VERIFYING })
}

/**
 * openpgp.js marks creation time, expiry and flags as critical; rpm refuses to import such a key and yum's parser does
 * not know the bit at all. It is cleared before the signature is made, so the signature covers what is written.
 * A property test reads every subpacket back.
 */
const packets = SignaturePacket.prototype as unknown as { writeHashedSubPackets(): Uint8Array }
// eslint-disable-next-line typescript/unbound-method -- called with its own `this` below
const writeHashedSubPackets = packets.writeHashedSubPackets
packets.writeHashedSubPackets = function () {
  return withoutCriticalBits(writeHashedSubPackets.call(this))
}

/** @param area  two bytes of length, then subpackets: length in one, two or five bytes (RFC 4880 §5.2.3.1), type, data */
function withoutCriticalBits(area: Uint8Array): Uint8Array {
  for (let at = 2; at < area.length;) {
    const first = area[at]!
    const head = first < 192 ? 1 : first < 255 ? 2 : 5
    const length =
      head === 1 ? first : head === 2 ? ((first - 192) << 8) + area[at + 1]! + 192 : readUint32(area, at + 1)
    area[at + head]! &= 0x7f
    at += head + length
  }
  return area
}

function readUint32(bytes: Uint8Array, at: number): number {
  return new DataView(bytes.buffer, bytes.byteOffset).getUint32(at)
}
