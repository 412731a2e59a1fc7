/**
 * A fingerprint is a digest as words a person can read over the phone: the first 128 bits of the SHA-256 of a file, as
 * the twelve words of BIP-39's English list. Twelve words hold 132 bits; the last four are a checksum, so that a word
 * heard wrongly is noticed as such and not taken for another key.
 */
import { entropyToMnemonic, validateMnemonic } from '@scure/bip39'
import { wordlist } from '@scure/bip39/wordlists/english.js'
import { sha256Of, type Sha256 } from './digest.ts'
import { GapferryError } from './errors.ts'

const FINGERPRINT_BYTES = 16
const FINGERPRINT_WORDS = 12
const STATE_WORDS = 6
/** As gapferry-box reads it, too. */
const KEY_BLOCK =
  /-----BEGIN PGP PUBLIC KEY BLOCK-----\n(?:[A-Za-z]+: [ -~]*\n)*\n(?:[A-Za-z0-9+/]{1,76}={0,2}\n)+(?:=[A-Za-z0-9+/]{4}\n)?-----END PGP PUBLIC KEY BLOCK-----\n+/g
const BITS_PER_WORD = 11n
const MAX_TYPED_LENGTH = 1000
const known = new Set(wordlist)

/** The fingerprint of a file (in practice: of a site's root file), twelve lower-case words with one space between. */
export function fingerprintWords(bytes: Uint8Array): string {
  return entropyToMnemonic(Buffer.from(sha256Of(bytes), 'hex').subarray(0, FINGERPRINT_BYTES), wordlist)
}

/** The words of the OpenPGP keys in a `site.asc`: of all their bytes without the armor, one key after the other, so that no
 *  key can be put beside the others unseen. A box that is set up asks for them.
 *  Rule: FORMAT.md#keys
 *  @throws KEY_INVALID for text that is anything but armored public keys */
export function siteKeyWords(text: string): string {
  const blocks = text.match(KEY_BLOCK) ?? []
  if (blocks.length === 0 || blocks.join('') !== text)
    throw new GapferryError('KEY_INVALID', 'site.asc: expected armored OpenPGP public keys and nothing else')
  return fingerprintWords(Buffer.concat(blocks.map(withoutArmor)))
}

function withoutArmor(block: string): Buffer {
  const lines = block.split('\n')
  return Buffer.from(
    lines
      .slice(lines.indexOf('') + 1)
      .filter((line) => /^[A-Za-z0-9+/]/.test(line))
      .join(''),
    'base64',
  )
}

/** What a person typed, spelled as `fingerprintWords` spells it: case does not matter, nor what stands between the
 *  words (spaces, dashes, commas, line ends, numbering).
 *  @throws ROOT_FINGERPRINT naming the word that is not on the list, the wrong count, or that one word is wrong */
export function parseFingerprint(text: string): string {
  const spelled = spell(text, FINGERPRINT_WORDS, invalid)
  if (!validateMnemonic(spelled, wordlist)) throw invalid('one of the words is wrong, or two are swapped')
  return spelled
}

/** The state of a mirror over the phone: the first 66 bits of the digest as six words of the same list. They need no
 *  checksum: whoever hears them looks for them among the states that were signed.
 *  @param state  SHA-256 of a bundle's targets.json */
export function stateWords(state: Sha256): string {
  const bits = BigInt(`0x${state.slice(0, 18)}`) >> 6n
  const indexes = Array.from({ length: STATE_WORDS }, (_, i) => (bits >> (BITS_PER_WORD * BigInt(5 - i))) & 0x7ffn)
  return indexes.map((index) => wordlist[Number(index)]!).join(' ')
}

/** What a person typed, spelled as `stateWords` spells it. @throws REPORT_WORDS */
export function parseStateWords(text: string): string {
  return spell(text, STATE_WORDS, (why) => new GapferryError('REPORT_WORDS', `words of a state: ${why}`))
}

function spell(text: string, count: number, refuse: (why: string) => GapferryError): string {
  if (text.length > MAX_TYPED_LENGTH) throw refuse(`longer than ${MAX_TYPED_LENGTH} characters`)
  const words =
    text
      .normalize('NFKC')
      .toLowerCase()
      .match(/\p{L}+/gu) ?? []
  const unknown = words.findIndex((word) => !known.has(word))
  if (unknown >= 0) throw refuse(`word ${unknown + 1}, "${words[unknown]}", is not on the word list (BIP-39, English)`)
  if (words.length !== count) throw refuse(`expected ${count} words, found ${words.length}`)
  return words.join(' ')
}

function invalid(why: string): GapferryError {
  return new GapferryError('ROOT_FINGERPRINT', `fingerprint: ${why}`)
}
