import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { execFileSync } from 'node:child_process'
import * as fc from 'fast-check'
import t from 'tap'
import { checkRpm, MAX_RPM_HEADER_BYTES, parseRpm } from '../../manifests/rpm-package.ts'
import { gpgKey } from '../helpers/gpg.ts'
import { buildRpms } from '../helpers/rpms.ts'

const SPECS = [
  { name: 'plain', version: '1.0' },
  { name: 'with-epoch', epoch: 3, version: '1.0~rc1', release: '2.el7', arch: 'x86_64' },
]
const rpms = await buildRpms(SPECS)

t.test('reads from an RPM what rpm reads from it', async (t) => {
  for (const rpm of rpms) {
    const format = '%{NAME} %{EPOCHNUM} %{VERSION} %{RELEASE} %{ARCH}'
    const want = execFileSync('rpm', ['-qp', '--qf', format, rpm.file], { encoding: 'utf8' }).split(' ')
    const found = parseRpm(readFileSync(rpm.file), rpm.fileName)
    t.same([found.name, found.epoch, found.version, found.release, found.arch], want)
    t.equal(found.nevra, rpm.nevra)
    t.equal(found.isSigned, false)
  }
})

t.test('sees that an RPM bears a signature', async (t) => {
  const [signed] = await buildRpms([SPECS[0]!], { signWith: await gpgKey() })
  t.equal(parseRpm(readFileSync(signed!.file), 'x').isSigned, true)
})

t.test('tells a source package', async (t) => {
  const dir = t.testdir({ 'x.spec': 'Name: x\nVersion: 1\nRelease: 1\nSummary: x\nLicense: MIT\n%description\nx\n' })
  execFileSync('rpmbuild', ['-bs', '--quiet', '--define', `_topdir ${dir}`, join(dir, 'x.spec')])
  t.equal(parseRpm(readFileSync(join(dir, 'SRPMS/x-1-1.src.rpm')), 'x').nevra, 'x-1-1.src')
})

t.test('needs only the beginning of the file', async (t) => {
  const bytes = readFileSync(rpms[0]!.file)
  t.same(parseRpm(bytes.subarray(0, MAX_RPM_HEADER_BYTES), 'x'), parseRpm(bytes.subarray(0, headerEnd(bytes)), 'x'))
})

t.test('accepts an RPM that is what the metadata says', async (t) => {
  for (const rpm of rpms) t.equal(checkRpm(readFileSync(rpm.file), { nevra: rpm.nevra }).nevra, rpm.nevra)
})

t.test('names the field in which an RPM is another package', async (t) => {
  const head = readFileSync(rpms[1]!.file)
  for (const [nevra, message] of [
    ['other-3:1.0~rc1-2.el7.x86_64', /name: expected "other", found "with-epoch"/],
    ['with-epoch-1.0~rc1-2.el7.x86_64', /epoch: expected "0", found "3"/],
    ['with-epoch-3:1.0-2.el7.x86_64', /version: expected "1.0", found "1.0~rc1"/],
    ['with-epoch-3:1.0~rc1-3.el7.x86_64', /release: expected "3.el7", found "2.el7"/],
    ['with-epoch-3:1.0~rc1-2.el7.noarch', /arch: expected "noarch", found "x86_64"/],
    ['nonsense', /name: expected ""/],
  ] as const) {
    t.throws(() => checkRpm(head, { nevra }), { code: 'RPM_MISMATCH', message }, nevra)
  }
})

t.test('refuses what is no RPM', async (t) => {
  t.throws(() => parseRpm(Buffer.from('<html>Sign in</html>'.padEnd(200)), 'x'), {
    code: 'RPM_INVALID',
    message: /starts with "<html>/,
  })
  t.throws(() => parseRpm(Buffer.alloc(0), 'x'), { code: 'RPM_INVALID' })
})

t.test('refuses an RPM that is cut off in its header', async (t) => {
  const bytes = readFileSync(rpms[0]!.file)
  const end = headerEnd(bytes)
  for (let length = 0; length < end; length += 7) {
    t.throws(() => parseRpm(bytes.subarray(0, length), 'x'), { code: 'RPM_INVALID' }, `${length} of ${end} bytes`)
  }
})

t.test('survives any damage to a header', async () => {
  const bytes = readFileSync(rpms[0]!.file)
  const end = headerEnd(bytes)
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.nat({ max: end - 1 }), fc.nat({ max: 255 })), { minLength: 1, maxLength: 6 }),
      (edits) => {
        const damaged = Buffer.from(bytes)
        for (const [at, byte] of edits) damaged[at] = byte
        try {
          parseRpm(damaged, 'x')
          return true
        } catch (error) {
          return (error as { code?: string }).code === 'RPM_INVALID'
        }
      },
    ),
    { numRuns: 2000 },
  )
})

t.test('refuses headers that claim more than there is, and tags that stand there twice', async (t) => {
  const bytes = readFileSync(rpms[0]!.file)
  const edit = (at: number, value: number) => {
    const copy = Buffer.from(bytes)
    copy.writeUInt32BE(value, at)
    return copy
  }
  t.throws(() => parseRpm(edit(96 + 8, 0x7fffffff), 'x'), { code: 'RPM_INVALID', message: /too large/ })
  t.throws(() => parseRpm(edit(96 + 12, 0x7fffffff), 'x'), { code: 'RPM_INVALID', message: /too large/ })
  const main = mainHeader(bytes)
  const secondTag = bytes.readUInt32BE(main + 16 + 16)
  t.throws(() => parseRpm(edit(main + 16, secondTag), 'x'), { code: 'RPM_INVALID', message: /twice/ })
})

t.test('refuses fields of another type', async (t) => {
  const bytes = readFileSync(rpms[1]!.file)
  const main = mainHeader(bytes)
  const entryOf = (tag: number): number => {
    for (let at = main + 16; ; at += 16) if (bytes.readUInt32BE(at) === tag) return at
  }
  for (const [name, tag, offset, value, message] of [
    ['epoch as text', 1003, 4, 6, /1003 is no number/],
    ['epoch outside', 1003, 8, 0x7fffffff, /1003 is no number/],
    ['name as number', 1000, 4, 4, /1000 that is text/],
    ['name outside', 1000, 8, 0x7fffffff, /points outside/],
  ] as const) {
    const damaged = Buffer.from(bytes)
    damaged.writeUInt32BE(value, entryOf(tag) + offset)
    t.throws(() => parseRpm(damaged, 'x'), { code: 'RPM_INVALID', message }, name)
  }
})

function mainHeader(bytes: Buffer): number {
  return bytes.indexOf(Buffer.from([0x8e, 0xad, 0xe8, 0x01]), 100)
}

function headerEnd(bytes: Buffer): number {
  const main = mainHeader(bytes)
  return main + 16 + bytes.readUInt32BE(main + 8) * 16 + bytes.readUInt32BE(main + 12)
}
