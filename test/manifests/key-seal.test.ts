import { generateKeyPairSync } from 'node:crypto'
import t from 'tap'
import { openWithKey, sealForKey } from '../../manifests/key-seal.ts'

const INVALID = { code: 'LICENSE_INVALID' }
const newPair = () => generateKeyPairSync('ec', { namedCurve: 'P-256' })
const { privateKey, publicKey } = newPair()
const TEXT = Buffer.from('a license of box 1')

t.test('what is sealed for a key only that key opens, for that purpose', (t) => {
  const sealed = sealForKey(TEXT, publicKey, 'a')
  t.ok(openWithKey(sealed, privateKey, 'a', 'x').equals(TEXT))
  t.ok(openWithKey(sealForKey(TEXT, privateKey, 'a'), privateKey, 'a', 'x').equals(TEXT))
  t.throws(() => openWithKey(sealed, privateKey, 'b', 'x'), INVALID)
  t.throws(() => openWithKey(sealed, newPair().privateKey, 'a', 'x'), INVALID)
  t.notOk(sealed.includes('license'))
  t.notOk(sealed.equals(sealForKey(TEXT, publicKey, 'a')), 'another each time')
  t.end()
})

t.test('every change of a byte shows', (t) => {
  const sealed = sealForKey(TEXT, publicKey, 'a')
  for (let at = 0; at < sealed.length; at += 1) {
    const changed = Buffer.from(sealed)
    changed[at]! ^= 1
    t.throws(() => openWithKey(changed, privateKey, 'a', 'x'), INVALID, `byte ${at}`)
  }
  for (const length of [0, 90, 91, 106, sealed.length - 1])
    t.throws(() => openWithKey(sealed.subarray(0, length), privateKey, 'a', 'x'), INVALID, `${length} bytes`)
  t.end()
})
