import fc from 'fast-check'
import t from 'tap'
import { canonicalJson } from '../../manifests/json.ts'
import { parseCapture, isCapture } from '../../manifests/license-capture.ts'
import { isReactivation, parseLicenseDate, readLicenseFacts } from '../../manifests/license-facts.ts'
import { makeLicense, MAX_LICENSE_BYTES, parseLicense, serializeLicense } from '../../manifests/license.ts'
import {
  parseLicenseIndex,
  parseSealedLicenses,
  serializeLicenseIndex,
  serializeSealedLicenses,
} from '../../manifests/licenses.ts'
import type { Sha256 } from '../../manifests/digest.ts'
import { captureOf, licenseFiles, licenseText, type LicensedSpec } from '../helpers/licenses.ts'
import { makeTar } from '../helpers/tar.ts'

const PBX1: LicensedSpec = { box: 'pbx1', deploymentId: '12345678' }
const INVALID = { code: 'LICENSE_INVALID' }
const file = (path: string, data: string | Buffer) => {
  return { path, mode: '0644', owner: 'root', group: 'root', data: Buffer.from(data) }
}
const SOURCE = {
  site: 'hq',
  what: 'x',
  capturedAt: '2026-11-20T10:00:00Z',
  files: [...licenseFiles(PBX1)].map(([path, data]) => file(path, data)),
}
const LICENSE = makeLicense(SOURCE)

t.test('reads product, dates and machine from the files, and changes none of them', (t) => {
  t.match(LICENSE, {
    site: 'hq',
    deploymentId: '12345678',
    product: 'PBXact',
    host: 'H:ABCDE-12345',
    expires: [
      { name: 'sysadmin_exp', date: '2027-11-30' },
      { name: 'endpoint_exp', date: '2028-01-31' },
    ],
  })
  t.strictSame(
    LICENSE.files.map(({ path, data }) => [path, data]),
    [...licenseFiles(PBX1)],
  )
  const bytes = serializeLicense(LICENSE)
  t.strictSame(parseLicense(bytes, 'x'), LICENSE)
  t.ok(serializeLicense(parseLicense(bytes, 'x')).equals(bytes))
  t.end()
})

t.test('finds the deployment in any of the files, with any spelling of the key', (t) => {
  const of = (...files: [string, string][]) =>
    readLicenseFacts(files.map(([path, data]) => ({ path, data: Buffer.from(data, 'latin1') }))).deploymentIds
  t.strictSame(of(['/etc/schmooze/pbxid', '77\n']), ['77'])
  t.strictSame(of(['/etc/sangoma/license.txt', 'DeploymentID = 77\r\nx']), ['77'])
  t.strictSame(of(['/etc/sangoma/license.txt', '\xff\xfe\ndeploymentid: "77"\n']), ['77'])
  t.strictSame(of(['/etc/sangoma/license.txt', `deploymentid = ${'7'.repeat(600)}\n`]), [], 'a line that is too long')
  t.strictSame(of(['/etc/sangoma/license.txt', 'deploymentid = ../x\n']), [])
  t.end()
})

t.test('reads dates as vendors write them', (t) => {
  for (const text of [
    '2027-03-01',
    '2027-03-01 10:00:00',
    '2027-03-01T10:00:00Z',
    '20270301',
    '2027/03/01',
    '01-Mar-2027',
  ])
    t.equal(parseLicenseDate(text), '2027-03-01', text)
  for (const text of ['1 March 2027', 'Mar 1, 2027', 'March 1 2027', '3/1/2027', '03/01/2027', '1803897600'])
    t.equal(parseLicenseDate(text), '2027-03-01', text)
  for (const text of [
    'Never',
    '',
    '2027',
    '2027-02-30',
    '31/12/2027',
    '99999999',
    '0',
    '32-Mar-2027',
    '2027-3',
    '13-Foo-2027',
  ])
    t.equal(parseLicenseDate(text), undefined, text)
  fc.assert(
    fc.property(fc.string({ maxLength: 40 }), (text) => {
      const date = parseLicenseDate(text)
      return date === undefined || new Date(`${date}T00:00:00Z`).toISOString().startsWith(date)
    }),
  )
  t.equal(isReactivation({ name: 'Expires', date: '2027-03-01' }), true)
  t.equal(isReactivation({ name: 'sysadmin_exp', date: '2027-03-01' }), false)
  t.end()
})

t.test('of two files that name a date the later one counts', (t) => {
  const files = [
    { path: '/etc/schmooze/a.zl', data: Buffer.from('x_exp = 2027-01-01\n') },
    { path: '/etc/schmooze/b.zl', data: Buffer.from('x_exp = 2028-01-01\n') },
    { path: '/etc/schmooze/c.zl', data: Buffer.from('x_exp = 2026-01-01\n') },
  ]
  t.strictSame(readLicenseFacts(files).expires, [{ name: 'x_exp', date: '2028-01-01' }])
  t.end()
})

t.test('refuses files of no deployment, of two, at other places, and too many of them', (t) => {
  const make =
    (files: ReturnType<typeof file>[], more = {}) =>
    () =>
      makeLicense({ ...SOURCE, files, ...more })
  t.throws(make([file('/etc/schmooze/a.zl', 'nothing')]), INVALID)
  t.throws(
    make([file('/etc/schmooze/a.zl', 'deploymentid = 1'), file('/etc/schmooze/b.zl', 'deploymentid = 2')]),
    INVALID,
  )
  t.throws(make(SOURCE.files, { deploymentId: '9' }), INVALID, 'another than whoever brings it says')
  t.doesNotThrow(make([file('/etc/schmooze/a.zl', 'nothing')], { deploymentId: '9' }))
  for (const path of [
    '/etc/passwd',
    '/etc/schmooze/../passwd',
    '/etc/schmooze/sub/x.zl',
    'etc/schmooze/x.zl',
    '/etc/schmooze/x.zl\n',
    '/etc/schmooze/..zl/',
    '/etc/schmooze/',
    '/etc/schmooze/pbxid2',
    '/etc/schmooze/x zl.zl',
    '/etc/sangomas/x.zl',
  ])
    t.throws(make([...SOURCE.files, file(path, 'x')]), INVALID, path)
  t.throws(make([...SOURCE.files, SOURCE.files[0]!]), INVALID, 'one path twice')
  t.throws(make([...SOURCE.files, file('/etc/schmooze/big.zl', Buffer.alloc(MAX_LICENSE_BYTES))]), INVALID)
  t.throws(
    make([...SOURCE.files, ...Array.from({ length: 31 }, (_, i) => file(`/etc/schmooze/${i}.zl`, 'x'))]),
    INVALID,
  )
  t.throws(make([{ ...SOURCE.files[0]!, mode: '4755' }]), INVALID, 'a mode that gives rights')
  t.throws(make([{ ...SOURCE.files[0]!, owner: 'root;reboot' }]), INVALID)
  t.end()
})

t.test('refuses documents that break a rule', (t) => {
  const doc = JSON.parse(serializeLicense(LICENSE).toString()) as Record<string, unknown> & { files: object[] }
  const [first, second] = doc.files as Record<string, unknown>[]
  const changes: Record<string, object> = {
    format: { format: 2 },
    type: { _type: 'gapferry-licenses' },
    'an unknown key': { more: 1 },
    'no files': { files: [] },
    'files out of order': { files: [second, first] },
    'another digest': { files: [{ ...first, sha256: '0'.repeat(64) }, second] },
    'base64 of two spellings': { files: [{ ...first, data: 'eA=' }, second] },
    'a place that no license has': { files: [{ ...first, path: '/etc/shadow' }, second] },
    'a date that is none': { expires: [{ name: 'x', date: '2027' }] },
    'a deployment that is none': { deploymentId: '' },
    'a product with tricks': { product: 'a\u202eb' },
    'a time that is none': { capturedAt: 'yesterday' },
  }
  for (const [name, change] of Object.entries(changes))
    t.throws(() => parseLicense(canonicalJson({ ...doc, ...change }), 'x'), INVALID, name)
  const bytes = serializeLicense(LICENSE)
  for (const other of [
    Buffer.alloc(0),
    Buffer.from('[]'),
    Buffer.from(` ${bytes.toString()}`),
    Buffer.alloc(3_000_000),
  ])
    t.throws(() => parseLicense(other, 'x'), INVALID)
  t.end()
})

t.test('no message quotes what it refuses', (t) => {
  const secret = 'SECRET-8f2a'
  const said = (work: () => unknown): string => {
    try {
      work()
      return ''
    } catch (error) {
      return `${String(error)} ${String((error as Error).cause)}`
    }
  }
  const doc = JSON.parse(serializeLicense(LICENSE).toString()) as object
  for (const work of [
    () => parseLicense(Buffer.from(`{"${secret}`), 'x'),
    () => parseLicense(canonicalJson({ ...doc, deploymentId: `${secret}/` }), 'x'),
    () => parseLicense(canonicalJson({ ...doc, product: `${secret}\u202e` }), 'x'),
    () => parseLicenseIndex(Buffer.from(`{"${secret}`), 'x'),
    () =>
      parseLicenseIndex(
        canonicalJson({ _type: 'gapferry-license-index', format: 1, site: 'hq', licenses: { [secret]: 1 } }),
        'x',
      ),
    () =>
      makeLicense({ ...SOURCE, files: [file('/etc/schmooze/a.zl', `deploymentid = ${secret}\n`), ...SOURCE.files] }),
  ]) {
    const message = said(work)
    t.not(message, '')
    t.notMatch(message, new RegExp(secret))
  }
  t.end()
})

t.test('reads what gapferry-box capture writes', (t) => {
  const capture = parseCapture(captureOf({ ...PBX1, machine: 'a'.repeat(64) }), 'x')
  t.match(capture, {
    box: 'pbx1',
    deploymentId: '12345678',
    capturedAt: '2026-11-20T10:00:00Z',
    machine: 'a'.repeat(64),
  })
  t.strictSame(
    capture.files.map(({ path, data }) => [path, data]),
    [...licenseFiles(PBX1)],
  )
  t.equal(parseCapture(captureOf(PBX1), 'x').machine, undefined)
  t.equal(isCapture(captureOf(PBX1)), true)
  t.equal(isCapture(Buffer.from('gapferry-license')), false)
  t.end()
})

t.test('refuses an archive that is cut, changed, or that somebody else made', (t) => {
  const good = captureOf(PBX1)
  const refuse = (bytes: Buffer, name: string) => t.throws(() => parseCapture(bytes, 'x'), INVALID, name)
  for (let length = 0; length < good.length; length += 509) refuse(good.subarray(0, length), `${length} bytes`)
  refuse(Buffer.concat([good, Buffer.alloc(1)]), 'a byte more')
  refuse(Buffer.concat([good, Buffer.alloc(1024)]), 'two blocks more')
  for (let at = 0; at < good.length; at += 61) {
    const changed = Buffer.from(good)
    changed[at]! ^= 0x11
    refuse(changed, `byte ${at}`)
  }
  const lines = (change: (lines: string[]) => string[]) => captureOf(PBX1, { change })
  refuse(
    lines((all) => all.slice(1)),
    'no first line',
  )
  refuse(
    lines((all) => all.map((line) => line.replace('gapferry-license 1', 'gapferry-license 2'))),
    'format 2',
  )
  for (const key of ['box', 'deployment', 'captured', 'tool'])
    refuse(
      lines((all) => all.filter((line) => !line.startsWith(key))),
      `no ${key}`,
    )
  refuse(
    lines((all) => [...all, 'box pbx2']),
    'a line twice',
  )
  refuse(
    lines((all) => [...all, 'surprise 1']),
    'a line that is not known',
  )
  refuse(
    lines((all) => all.slice(0, -1)),
    'a file that is not named',
  )
  refuse(
    lines((all) => [...all, all.at(-1)!]),
    'a file twice',
  )
  refuse(
    lines((all) => all.map((line) => line.replace(/^captured .*/, 'captured now'))),
    'no time',
  )
  const others = new Map([...licenseFiles(PBX1), ['/etc/zz', Buffer.from('x')]])
  refuse(captureOf(PBX1, { entries: others }), 'a file from elsewhere')
  const many = new Map(
    Array.from({ length: 33 }, (_, i) => [`/etc/schmooze/${String(i).padStart(2, '0')}.zl`, Buffer.from('x')]),
  )
  refuse(captureOf(PBX1, { entries: many }), 'too many files')
  refuse(
    captureOf(PBX1, { entries: new Map([['/etc/schmooze/big.zl', Buffer.alloc(MAX_LICENSE_BYTES + 1)]]) }),
    'too large',
  )
  const head = { name: 'gapferry-license', bytes: Buffer.from('gapferry-license 1\nend 1\n') }
  refuse(makeTar([head]), 'facts that are missing')
  refuse(makeTar([{ ...head, header: (block) => void block.write('2', 156) }]), 'a link')
  refuse(makeTar([]), 'an empty archive')
  refuse(Buffer.from(licenseText(PBX1)), 'a license file itself')
  t.end()
})

const A = 'a'.repeat(64) as Sha256
const B = 'b'.repeat(64) as Sha256
const SEALED = {
  site: 'hq',
  number: 7,
  index: A,
  blobs: new Map([
    [A, 800],
    [B, 2400],
  ]),
}

t.test('the signed list names blobs and nothing else', (t) => {
  const bytes = serializeSealedLicenses(SEALED)
  t.strictSame(parseSealedLicenses(bytes), SEALED)
  t.strictSame(parseSealedLicenses(serializeSealedLicenses({ ...SEALED, index: null })).index, null)
  const doc = JSON.parse(bytes.toString()) as object
  for (const [name, change] of Object.entries({
    'an index that is not there': { index: 'c'.repeat(64) },
    'no blobs': { blobs: {}, index: null },
    'a size of nothing': { blobs: { [A]: 0 } },
    'a size that no CMS has': { blobs: { [A]: 5_000_000 } },
    'a name that is no digest': { blobs: { [A]: 1, x: 1 } },
    'too many': {
      blobs: Object.fromEntries(Array.from({ length: 1002 }, (_, i) => [String(i).padStart(64, '0'), 1])),
      index: null,
    },
    'an unknown key': { deployments: [] },
    format: { format: 2 },
  }))
    t.throws(() => parseSealedLicenses(canonicalJson({ ...doc, ...change })), INVALID, name)
  t.throws(() => parseSealedLicenses(Buffer.from(`${bytes.toString()}\n`)), INVALID, 'another spelling')
  t.throws(() => parseSealedLicenses(Buffer.alloc(2_000_000, 32)), INVALID)
  t.end()
})

t.test('the index tells whose blob is which', (t) => {
  const entry = {
    sha256: A,
    content: B,
    recipient: 'box' as const,
    product: null,
    expires: [{ name: 'x_exp', date: '2027-01-01' }],
  }
  const bytes = serializeLicenseIndex('hq', new Map([['12345678', entry]]))
  t.strictSame(parseLicenseIndex(bytes, 'x'), { site: 'hq', licenses: new Map([['12345678', entry]]) })
  t.throws(() => serializeLicenseIndex('hq', new Map([['a b', entry]])), INVALID)
  t.throws(() => serializeLicenseIndex('hq', new Map([['1', { ...entry, recipient: 'all' as 'box' }]])), INVALID)
  t.throws(() => parseLicenseIndex(Buffer.from(`${bytes.toString()} `), 'x'), INVALID)
  const many = new Map(Array.from({ length: 1001 }, (_, i) => [String(i), entry]))
  t.throws(() => serializeLicenseIndex('hq', many), INVALID)
  t.end()
})
