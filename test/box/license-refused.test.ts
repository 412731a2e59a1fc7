import { execFileSync } from 'node:child_process'
import { existsSync, lstatSync, mkdirSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { sealCms } from '../../manifests/cms.ts'
import { sha256Of } from '../../manifests/digest.ts'
import { canonicalJson } from '../../manifests/json.ts'
import { DEPLOYMENT, licenseDocument, licenseText, MARKER, type DocumentFile } from '../helpers/license-box.ts'
import { startLicenseMirror } from '../helpers/license-mirror.ts'
import { functionOf, makeScene } from '../helpers/license-scene.ts'

const ZL = '/etc/schmooze/schmooze.zl'
const TXT = '/etc/sangoma/license.txt'
const UNTIL = '2029-02-28'

t.test('a license of another deployment is refused, and the mirror hears it once', async (t) => {
  const { mirror, box, license, keep, system } = await makeScene(t)
  const before = system()
  const foreign = licenseText({ deployment: '99999999' })
  const documents = [
    licenseDocument({ deploymentId: '99999999' }),
    licenseDocument({ files: [{ path: ZL, text: foreign }] }),
    licenseDocument({ files: [{ path: '/etc/schmooze/pbxid', text: '99999999\n' }] }),
  ]
  for (const [n, document] of documents.entries()) {
    mirror.licenses.set('pbx1', document)
    const outcome = n === 0 ? await license() : await keep()
    t.match(outcome, { status: 3, stdout: '', stderr: /is for another deployment than this box/ })
    t.notMatch(outcome.stderr, /99999999|77001234/)
    t.strictSame(system(), before)
    t.strictSame(mirror.results[n], { result: 'refused', code: 'LICENSE_DEPLOYMENT', license: sha256Of(document) })
    t.strictSame(await keep(), { status: 0, stdout: '', stderr: '' })
    t.equal(mirror.results.length, n + 1)
  }
  t.strictSame([...box.calls(), ...box.restarts()], [])
  mirror.licenses.set('pbx1', licenseDocument())
  t.match(await keep(), { status: 0, stdout: /^license installed/ })
})

t.test('a box without a Deployment ID, or with two', async (t) => {
  const { mirror, box, license, keep } = await makeScene(t)
  mirror.licenses.set('pbx1', licenseDocument())
  box.write('/etc/sangoma/pbxid', '77009999\n')
  t.match(await license(), { status: 3, stderr: /name several Deployment IDs/ })
  rmSync(join(box.root, 'etc/sangoma/pbxid'))
  rmSync(join(box.root, 'etc/schmooze/pbxid'))
  box.write(ZL, 'Product-Name = PBXact\n')
  t.match(await license(), { status: 4, stderr: /has no Deployment ID/ })
  t.strictSame(await keep(), { status: 0, stdout: '', stderr: '' })
  t.notOk(mirror.requests.some(({ headers }) => 'gapferry-deployment' in headers))
  box.write(ZL, licenseText())
  t.match(await license(), { status: 0 })
})

t.test('documents that nobody should install are refused whole', async (t) => {
  const { mirror, box, license, system } = await makeScene(t)
  const before = system()
  const file = (path: string, more: Partial<DocumentFile> = {}): Buffer =>
    licenseDocument({
      files: [
        { path: TXT, text: licenseText() },
        { path, text: 'x', ...more },
      ],
    })
  const many = (count: number): DocumentFile[] =>
    Array.from({ length: count }, (_, n) => ({ path: `/etc/schmooze/${n}.zl`, text: 'x' }))
  const paths = [
    '/etc/shadow',
    '/etc/schmooze/../shadow.zl',
    '/etc/schmooze/sub/x.zl',
    '/etc/schmooze/.zl',
    '/etc/schmooze/.gapferry.zl',
    'etc/schmooze/x.zl',
    '/etc/schmooze/x.zl\n',
    '/etc/schmooze/x y.zl',
    '/etc/schmooze/pbx-brand',
    '/etc/sangoma/license/../../shadow',
    '/etc/gapferry/license',
    `/etc/schmooze/${'x'.repeat(300)}.zl`,
    '/etc/schmooze/licensé',
    '',
  ]
  const hostile: [string, Buffer][] = [
    ...paths.map((path): [string, Buffer] => [path, file(path)]),
    ['digest', file(ZL, { sha256: 'a'.repeat(64) })],
    ['owner', file(ZL, { owner: 'nobody-here' })],
    ['group', file(ZL, { group: '0' })],
    ['mode', file(ZL, { mode: '4755' })],
    ['mode as a word', file(ZL, { mode: 'rwxrwxrwx' })],
    ['twice', file(TXT)],
    ['33 files', licenseDocument({ files: many(33) })],
    ['no files', licenseDocument({ files: [] })],
    ['huge', licenseDocument({ files: [{ path: ZL, text: 'x'.repeat((1 << 20) + 1) }] })],
    ['format', licenseDocument({ format: 2 })],
    ['type', licenseDocument({ _type: 'gapferry-report' })],
    ['one more field', licenseDocument({ run: 'rm -rf /' })],
    ['a number as a path', canonicalJson({ ...JSON.parse(licenseDocument().toString()), files: [{ path: 1 }] })],
    ['files as an object', canonicalJson({ ...JSON.parse(licenseDocument().toString()), files: { a: 1 } })],
    ['twice the same field', Buffer.from(licenseDocument().toString().replace('{', '{"format":1,'))],
    ['no JSON', Buffer.from('license')],
    ['a list', Buffer.from('[]')],
    ['deep', Buffer.from('['.repeat(100_000))],
    ['other bytes', Buffer.from([0xff, 0xfe, 0x00])],
    ['larger than any', Buffer.alloc((2 << 20) + 1, 0x20)],
  ]
  for (const [what, document] of hostile) {
    mirror.licenses.set('pbx1', document)
    const outcome = await license()
    t.match(outcome, { status: 3, stdout: '', stderr: /the license is refused: / }, what)
    t.notMatch(outcome.stderr, new RegExp(`${MARKER}|${DEPLOYMENT}|Traceback`), what)
    t.strictSame(system(), before, what)
  }
  t.strictSame([...box.calls(), ...box.restarts()], [])
  t.equal(mirror.results.length, hostile.length)
})

t.test('no mode makes a license more than a file to read and write', async (t) => {
  const { mirror, box, license } = await makeScene(t)
  mirror.licenses.set(
    'pbx1',
    licenseDocument({ files: [{ path: ZL, text: licenseText({ until: UNTIL }), mode: '0777' }] }),
  )
  t.match(await license(), { status: 0 })
  t.equal(lstatSync(join(box.root, ZL)).mode & 0o7777, 0o664)
})

t.test('answers that are not what the mirror says, or not for this box', async (t) => {
  const { mirror, license, system } = await makeScene(t)
  const before = system()
  mirror.licenses.set('pbx1', licenseDocument())
  const other = await startLicenseMirror(t)
  const foreign = await sealCms(licenseDocument(), [other.authority.certificate.raw])
  const spoilers: [string, (body: Buffer) => Buffer][] = [
    ['for another', () => foreign],
    ['cut', (body) => body.subarray(0, -40)],
    ['changed', (body) => Buffer.concat([body.subarray(0, -60), Buffer.alloc(60, 7)])],
    ['empty', () => Buffer.alloc(0)],
    ['in the clear', () => licenseDocument()],
  ]
  for (const [what, spoil] of spoilers) {
    mirror.faults.spoil = (_, body) => spoil(body)
    t.match(await license(), { status: 3, stderr: /the license is refused: it does not open/ }, what)
  }
  mirror.faults.spoil = () => Buffer.alloc((4 << 20) + 1)
  t.match(await license(), { status: 3, stderr: /has more than 4194304 bytes/ })
  mirror.faults = { etag: `"${'a'.repeat(64)}"` }
  t.match(await license(), { status: 3, stderr: /is not what the mirror says/ })
  mirror.faults = { status: 500 }
  t.match(await license(), { status: 6, stderr: /the mirror answers 500/ })
  t.strictSame(system(), before)
})

t.test('folders and files that are links lead nowhere', async (t) => {
  const { mirror, box, license } = await makeScene(t)
  mirror.licenses.set('pbx1', licenseDocument())
  const outside = join(t.testdirName, 'outside')
  mkdirSync(outside)
  symlinkSync(outside, join(box.root, 'etc/sangoma'))
  t.match(await license(), { status: 3, stderr: /\/etc\/sangoma is a link to another place/ })
  rmSync(join(box.root, 'etc/sangoma'))
  box.write('/etc/sangoma/', { folder: true })
  const target = join(box.root, TXT)
  for (const make of [
    () => symlinkSync('/etc/shadow', target),
    () => symlinkSync('../gapferry/box.key', target),
    () => execFileSync('mkfifo', [target]),
    () => mkdirSync(target),
  ]) {
    make()
    const about = lstatSync(target)
    t.match(await license(), {
      status: 3,
      stderr: /license\.txt is (?:a link|no plain file): it is left (?:as it is|out)/,
    })
    t.equal(lstatSync(target).ino, about.ino)
    rmSync(target, { recursive: true })
  }
  t.equal(box.read(ZL), licenseText())
  t.strictSame(readdirSync(outside), [])
  t.match(await license(), { status: 0 })
})

t.test('one of the two folders may be a link to the other', async (t) => {
  const { mirror, box, license } = await makeScene(t)
  symlinkSync('schmooze', join(box.root, 'etc/sangoma'))
  mirror.licenses.set('pbx1', licenseDocument())
  t.match(await license(), { status: 0 })
  t.equal(box.read('/etc/schmooze/license.txt'), licenseText({ until: UNTIL }))
  const both = [`/etc/sangoma/a.zl`, '/etc/schmooze/a.zl'].map((path, n) => ({ path, text: `a = ${n}` }))
  mirror.licenses.set('pbx1', licenseDocument({ files: both }))
  t.match(await license(), { status: 3, stderr: /two of its files are for one place/ })
})

t.test('a license of another site than the first is refused', async (t) => {
  const { mirror, box, license } = await makeScene(t)
  mirror.licenses.set('pbx1', licenseDocument())
  await license()
  mirror.licenses.set('pbx1', licenseDocument({ site: 'branch' }))
  t.match(await license(), { status: 3, stderr: /is for another site than hq/ })
  const file = join(box.dir, 'sealed')
  writeFileSync(file, await sealCms(licenseDocument(), [mirror.boxes.get('pbx1')!]))
  t.match(await functionOf(box, 'license_install', file, 'branch'), { status: 3, stderr: /another site than branch/ })
})

t.test('wrong use is told', async (t) => {
  const { license, box } = await makeScene(t)
  t.match(await license('--file'), { status: 2 })
  t.match(await license('--code', 'x'), { status: 2, stderr: /"--code" is not known/ })
  t.match(await license('--help'), { status: 0, stdout: /license +fetch the license/ })
  rmSync(join(box.root, 'etc/gapferry/box.key'))
  t.match(await license(), { status: 4, stderr: /box\.key in \/etc\/gapferry is missing or damaged/ })
  writeFileSync(join(box.root, 'etc/gapferry/box.key'), 'damaged')
  t.match(await license(), { status: 4, stderr: /missing or damaged/ })
  t.notOk(existsSync(join(box.root, 'var/lib/gapferry/license/pending')))
})
