import t from 'tap'
import { isVendorName, vendorId, vendorQuestion, VENDOR_NAMES } from '../../manifests/vendor-names.ts'
import { vendorRepoFiles } from '../helpers/folder-box/el7.ts'

t.test('every repository of the vendor’s own files is known by its mirrorlist, and by its base URL', async (t) => {
  const text = Object.values(vendorRepoFiles()).join('\n')
  const sections = text.split(/^\[/m).slice(1)
  let asked = 0
  for (const section of sections) {
    const id = section.slice(0, section.indexOf(']'))
    const list = /^mirrorlist=http:\/\/mirrorlist\.sangoma\.net(.*)$/m.exec(section)?.[1]
    const base = /^#baseurl=http:\/\/package1\.sangoma\.net(.*)$/m.exec(section)?.[1]
    if (list !== undefined) {
      asked++
      t.equal(vendorId(vendorQuestion(list)!.word), id, list)
    }
    if (base === undefined) continue
    const path = base.replaceAll('$releasever', '7').replaceAll('$basearch', 'x86_64').replace(/\/?$/, '/')
    const question = vendorQuestion(`${path}repodata/repomd.xml`)!
    t.strictSame([vendorId(question.word), question.file], [id, 'repodata/repomd.xml'], path)
  }
  t.equal(asked, 8)
})

t.test('what a box sends is taken as it comes', async (t) => {
  t.strictSame(vendorQuestion('/?release=7&arch=x86_64&repo=sng7&dist=$dist&staging=$staging'), { word: 'sng7' })
  t.strictSame(vendorQuestion('//?repo=sng7php74'), { word: 'sng7php74' })
  t.equal(vendorId('sng7php74'), 'sng-sng7php74')
  t.equal(vendorId('constructor'), 'sng-constructor')
  t.strictSame(vendorQuestion('/sng7//sng7/Packages/a%2b.rpm?x'), { word: 'sng7', file: 'Packages/a%2b.rpm' })
  for (const target of [
    '/',
    '/?repo=',
    '/?repo=../x',
    '/?repo=a%20b',
    '/?x=sng7',
    '/all-16.0.xml',
    '/sng7/sng7',
    '/x?repo=os',
  ])
    t.equal(vendorQuestion(target), undefined, target)
})

t.test('names count in any case, with a port or without', async (t) => {
  for (const name of VENDOR_NAMES) t.ok(isVendorName(`${name.toUpperCase()}:80`) && isVendorName(name))
  for (const name of ['sangoma.net', 'x.sng7.com', 'mirrorlist.sangoma.net.evil', '']) t.notOk(isVendorName(name), name)
})
