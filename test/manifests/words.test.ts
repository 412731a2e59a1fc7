import { wordlist } from '@scure/bip39/wordlists/english.js'
import * as fc from 'fast-check'
import t from 'tap'
import { sha256Of } from '../../manifests/digest.ts'
import { fingerprintWords, parseFingerprint, siteKeyWords } from '../../manifests/words.ts'

const WORDS = fingerprintWords(Buffer.from('abc'))

t.test('a fingerprint is 128 bits of the SHA-256 and 4 bits of checksum, eleven bits a word', async (t) => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => {
      const entropy = sha256Of(bytes).slice(0, 32)
      const checksum = sha256Of(Buffer.from(entropy, 'hex')).slice(0, 1)
      const bits = BigInt(`0x${entropy}${checksum}`).toString(2).padStart(132, '0')
      const words = bits.match(/.{11}/g)!.map((index) => wordlist[Number.parseInt(index, 2)])
      return fingerprintWords(bytes) === words.join(' ')
    }),
  )
  t.equal(wordlist.length, 2048)
  t.equal(
    sha256Of(wordlist.join('\n') + '\n'),
    '2f5eed53a4727b4bf8880d8f3f199efc90e58503646d9ff8eff3a2ed3b24dbda',
    'the list as BIP-39 publishes it',
  )
})

t.test('reads what a person types: case, spaces, dashes, numbers, line ends', async (t) => {
  const words = WORDS.split(' ')
  const typed = [
    WORDS,
    WORDS.toUpperCase(),
    `  ${words.join('   ')}\n`,
    words.join('-'),
    words.join(', '),
    words.map((word, i) => `${i + 1}. ${word[0]!.toUpperCase()}${word.slice(1)}`).join('\r\n'),
    words.join(' – '),
  ]
  for (const text of typed) t.equal(parseFingerprint(text), WORDS, text)
})

t.test('says which word is not on the list, and how many there are', async (t) => {
  const words = WORDS.split(' ')
  const wrong: [string, RegExp][] = [
    [words.with(2, 'gapferry').join(' '), /word 3, "gapferry"/],
    [words.slice(1).join(' '), /expected 12 words, found 11/],
    [`${WORDS} ${words[0]}`, /expected 12 words, found 13/],
    ['', /expected 12 words, found 0/],
    ['x'.repeat(1001), /longer than 1000/],
  ]
  for (const [text, message] of wrong) t.throws(() => parseFingerprint(text), { code: 'ROOT_FINGERPRINT', message })
})

t.test('notices most single words heard wrongly', async (t) => {
  const words = WORDS.split(' ')
  const accepted = wordlist.filter((word) => {
    try {
      return parseFingerprint(words.with(5, word).join(' ')) !== WORDS
    } catch {
      return false
    }
  })
  t.ok(accepted.length < wordlist.length / 10, `${accepted.length} of 2047 pass the checksum`)
})

t.test('the words of a site key are of all its keys, whatever the armor, and of nothing else', (t) => {
  const armored = (bytes: Buffer, head = ''): string =>
    `-----BEGIN PGP PUBLIC KEY BLOCK-----\n${head}\n${bytes.toString('base64').replace(/.{64}/g, '$&\n')}\n=AbCd\n-----END PGP PUBLIC KEY BLOCK-----\n`
  const [one, two] = [Buffer.alloc(100, 1), Buffer.alloc(31, 2)]
  const words = fingerprintWords(Buffer.concat([one, two]))
  t.equal(siteKeyWords(armored(one) + armored(two)), words)
  t.equal(siteKeyWords(`${armored(one, 'Comment: x\n')}\n${armored(two)}`), words)
  t.not(siteKeyWords(armored(one)), words)
  for (const text of [
    '',
    'x',
    `${armored(one)}x`,
    ` ${armored(one)}`,
    armored(one).replace(/\n/g, '\r\n'),
    armored(one).replace('=AbCd\n', '=AbCd\n\n'),
    armored(one).replaceAll('PUBLIC', 'PRIVATE'),
  ]) {
    t.throws(() => siteKeyWords(text), { code: 'KEY_INVALID' }, JSON.stringify(text))
  }
  t.end()
})
