import t from 'tap'
import { advisoriesByNevra, UpdateinfoReader, type Advisory } from '../../manifests/updateinfo.ts'

const TEXT = `<?xml version="1.0" encoding="UTF-8"?>
<updates>
  <update from="a@example.invalid" status="final" type="security" version="1">
    <id> RHSA-1 </id><title>fix &amp; more</title><severity>Important</severity>
    <references><reference id="CVE-1" type="cve"/></references>
    <pkglist><collection><name>x</name>
      <package name="app" version="2" release="1" epoch="1" arch="x86_64"><filename>app.rpm</filename></package>
      <package name="lib" version="3" release="2" arch="noarch"/>
      <package name="odd" version="3"/>
    </collection></pkglist>
  </update>
  <update type="bugfix"><id>RHBA-2</id><pkglist/></update>
  <update><pkglist><collection><package name="lib" version="3" release="2" arch="noarch"/></collection></pkglist></update>
</updates>`

t.test('reads advisories and the packages that they name, however the bytes are cut', (t) => {
  const whole = read(TEXT, TEXT.length)
  t.strictSame(whole, read(TEXT, 7))
  t.match(whole, [
    { id: 'RHSA-1', type: 'security', severity: 'important' },
    { id: 'RHBA-2', type: 'bugfix', severity: '', packages: [] },
    { id: '', type: '' },
  ])
  t.same(
    [...advisoriesByNevra(whole)].map(([nevra, about]) => [nevra, about.map(({ id }) => id)]),
    [
      ['app-1:2-1.x86_64', ['RHSA-1']],
      ['lib-3-2.noarch', ['RHSA-1', '']],
    ],
  )
  t.end()
})

t.test('refuses what is no XML, and what has a document type', (t) => {
  for (const text of ['<updates>', '<updates></updat>', '<!DOCTYPE x []><updates/>', '\\xff'.repeat(3)]) {
    t.throws(() => read(text, 5), { code: 'XML_INVALID' }, text)
  }
  t.throws(() => new UpdateinfoReader('u').write(Buffer.from([0x3c, 0xff])), { code: 'XML_INVALID' })
  t.end()
})

t.test('refuses a crowd of advisories', (t) => {
  const text = `<updates>${'<update/>'.repeat(100_001)}</updates>`
  t.throws(() => read(text, text.length), { code: 'REPODATA_INVALID' })
  t.end()
})

function read(text: string, piece: number): Advisory[] {
  const reader = new UpdateinfoReader('updateinfo')
  const bytes = Buffer.from(text)
  for (let at = 0; at < bytes.length; at += piece) reader.write(bytes.subarray(at, at + piece))
  return reader.end()
}
