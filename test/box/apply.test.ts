/** `gapferry-box apply` as a person runs it, on a box that is a folder; what it takes and refuses: apply-rules.test.ts and
 *  apply-refused.test.ts, a whole box with its programs: test/e2e/apply.test.ts. */
import { execFileSync, spawn } from 'node:child_process'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { createVerify, X509Certificate } from 'node:crypto'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { sealCms } from '../../manifests/cms.ts'
import { sha256Of } from '../../manifests/digest.ts'
import { canonicalJson } from '../../manifests/json.ts'
import { serializeSealedLicenses } from '../../manifests/licenses.ts'
import { fingerprintWords } from '../../manifests/words.ts'
import { boxContent, idleYum, servedBy, servedFrom } from '../helpers/apply.ts'
import { GAPFERRY_BOX, runBox, SHELLS } from '../helpers/box-root.ts'
import { makeFolderBox, type FolderBox } from '../helpers/folder-box/box.ts'
import { gpgKey } from '../helpers/gpg.ts'
import { licenseDocument, licenseText, makeLicenseBox } from '../helpers/license-box.ts'
import { signContent, traces, writeParts } from '../helpers/mirror.ts'
import { sampleRoot } from '../helpers/part.ts'
import { report, type Outcome } from '../helpers/process.ts'

const WORDS = ['--fingerprint', fingerprintWords(sampleRoot)]
const { publicArmored } = await gpgKey('vendor')
const contents = [1, 2].map((number) => boxContent(number, publicArmored, { count: 3, bytes: 1000 }))

interface Bench {
  dir: string
  box: FolderBox
  /** with bundles 1 and 2 */
  sticks: string[]
  apply(args: readonly string[], options?: { shell?: [string, ...string[]] }): Promise<Outcome>
  /** all but what is apply's own */
  state(): unknown
}

async function bench(t: Test): Promise<Bench> {
  const dir = t.testdir({ yum: {} })
  const box = await makeFolderBox(join(dir, 'box'), { major: 16 })
  const sticks = contents.map((content, i) => {
    const stick = join(dir, `stick-${i + 1}`)
    writeParts(join(stick, 'gapferry/hq'), signContent(content))
    writeFileSync(join(stick, 'gapferry/hq/root.json'), sampleRoot)
    return stick
  })
  const env = { PYTHONPATH: idleYum(join(dir, 'yum')) }
  return {
    dir,
    box,
    sticks,
    apply: (args, options = {}) => runBox(['apply', '--root', box.root, ...args], { path: box.path, env, ...options }),
    state: () => [
      Object.entries(box.everything()).filter(([path]) => !/^(?:etc|var\/lib)\/gapferry\b/.test(path)),
      ['MODULE_REPO', 'RSSFEEDS', 'BROWSER_STATS'].map((key) => box.setting(key)),
    ],
  }
}

t.test('in every shell: the tree unpacked, the box pointed at it, a record on the stick', async (t) => {
  for (const shell of SHELLS) {
    await t.test(shell.join(' '), async (t) => {
      const { box, sticks, apply } = await bench(t)
      const outcome = await apply([sticks[0]!, ...WORDS, '--box', 'PBX1'], { shell })
      t.equal(outcome.status, 0, report(outcome))
      t.match(
        outcome.stdout,
        /bundle 1 of site hq, made 2026-11-22T12:00:00Z, good until .*: group pbx is unpacked here/,
      )
      t.match(outcome.stdout, 'packages: nothing to update')
      t.strictSame(servedBy(box.root), servedFrom(contents[0]!))
      t.match(
        box.read('/etc/yum.repos.d/Sangoma-Base.repo'),
        /baseurl=file:\/\/\/var\/lib\/gapferry\/origin\/yum\/sng-pkgs\/\n/,
      )
      t.match(
        box.read('/etc/gapferry/settings'),
        /^mode stick\norigin file:\/\/\/var\/lib\/gapferry\/origin\ngroup pbx\nbox pbx1\n/,
      )
      t.strictSame(readdirSync(join(sticks[0]!, 'gapferry/hq/report')).sort(), ['pbx1-1.applied', 'pbx1.gfi'])
    })
  }
})

t.test('the words: needed, compared, remembered', async (t) => {
  const { dir, box, sticks, apply, state } = await bench(t)
  const before = [state(), traces(sticks[0]!)]
  const without = await apply([sticks[0]!])
  t.match(without, {
    status: 2,
    stderr: new RegExp(`site hq, by a root with the words: ${WORDS[1]!} \\[ROOT_NOT_CONFIRMED\\]`),
  })
  const other = WORDS[1]!.split(' ').with(0, 'zoo').join(' ')
  t.match(await apply([sticks[0]!, '--fingerprint', other]), { status: 3, stderr: /\[ROOT_FINGERPRINT\]/ })
  t.match(await apply([sticks[0]!, '--fingerprint', 'nonsense']), {
    status: 3,
    stderr: /"nonsense", is not on the list/,
  })
  t.strictSame([state(), traces(sticks[0]!)], before)
  t.notOk(existsSync(join(box.root, 'etc/gapferry/root.json')))
  rmSync(join(sticks[0]!, 'gapferry/hq/root.json'))
  const spelled = WORDS[1]!.toUpperCase().replaceAll(' ', ', ')
  t.match(
    await apply([sticks[0]!, '--fingerprint', spelled, '--no-report']),
    { status: 0 },
    'the root in the part will do',
  )
  t.match(await apply([sticks[1]!, '--fingerprint', other, '--no-report']), {
    status: 3,
    stderr: /that this box believes/,
  })
  t.match(await apply([sticks[1]!, '--no-report']), { status: 0 })
  rmSync(join(box.root, 'etc/gapferry/root.json'))
  t.match(
    await apply([sticks[0]!, ...WORDS]),
    { status: 3, stderr: /\[ROLE_ROLLBACK\]/ },
    'pinned anew, still not older',
  )
  writeFileSync(join(box.root, 'etc/gapferry/state.json'), 'x')
  t.match(await apply([sticks[1]!, ...WORDS]), { status: 1, stderr: /state\.json: cannot be read.*\[STORE_DAMAGED\]/ })
  t.ok(existsSync(join(dir, 'box')))
})

t.test('what cannot be meant, or cannot be now', async (t) => {
  const { box, sticks, apply, state, dir } = await bench(t)
  const before = state()
  const cases: [string[], number, RegExp][] = [
    [[], 2, /the folder where the stick is mounted is missing/],
    [['a', 'b'], 2, /one folder at a time/],
    [['--what'], 2, /"--what" is not known/],
    [[sticks[0]!, '--group'], 2, /--group: a value is missing/],
    [[sticks[0]!, '--accept-expired'], 2, /need each other/],
    [[sticks[0]!, '--accept-expired', '--reason', 'a\nb'], 2, /printable/],
    [[sticks[0]!, '--box', '../x'], 2, /is no name/],
    [[join(dir, 'nowhere'), ...WORDS], 4, /\[BUNDLE_NOT_FOUND\][^]*is the stick mounted/],
    [[dir, ...WORDS], 4, /\[BUNDLE_NOT_FOUND\]/],
    [[sticks[0]!, ...WORDS, '--site', 'lab'], 4, /no bundle of site lab here; there are bundles of hq/],
    [[sticks[0]!, ...WORDS, '--group', 'x'], 2, /its groups: pbx.*\[GROUP_UNKNOWN\]/],
  ]
  for (const [args, status, stderr] of cases) t.match(await apply(args), { status, stderr }, args.join(' ').slice(-60))
  box.database(false)
  t.match(await apply([sticks[0]!, ...WORDS]), {
    status: 1,
    stderr: /database of FreePBX cannot be read; nothing was changed/,
  })
  box.database(true)
  box.write('/etc/gapferry/hold', 'not today\n')
  t.match(await apply([sticks[0]!, ...WORDS]), { status: 7, stderr: /held: not today/ })
  t.strictSame(
    state()
      ?.toString()
      .replace(/etc\/gapferry[^,]*/g, ''),
    before?.toString().replace(/etc\/gapferry[^,]*/g, ''),
  )
  t.equal(servedBy(box.root), undefined)
})

t.test('on a stick only parts are read, links are not followed, and nothing is written outside of it', async (t) => {
  const { dir, box, sticks, apply } = await bench(t)
  const folder = join(sticks[0]!, 'gapferry/hq')
  symlinkSync(join(sticks[1]!, 'gapferry/hq/hq-2.tar'), join(folder, 'hq-2.tar'))
  execFileSync('mkfifo', [join(folder, 'hq-9.tar')])
  for (const name of ['._hq-8.tar', 'hq-7.tar.part', 'lab-6.tar', 'autorun.inf']) writeFileSync(join(folder, name), 'x')
  mkdirSync(join(dir, 'outside'))
  symlinkSync(join(dir, 'outside'), join(folder, 'report'))
  const outcome = await apply([sticks[0]!, ...WORDS, '--box', 'pbx1'])
  t.equal(outcome.status, 0, report(outcome))
  t.match(outcome.stderr, /the stick cannot be written: .*report is not a folder/)
  t.strictSame(readdirSync(join(dir, 'outside')), [])
  t.strictSame(readdirSync(join(box.root, 'var/lib/gapferry/report')).sort(), ['pbx1-1.applied', 'pbx1.gfi'])
  t.strictSame(servedBy(box.root), servedFrom(contents[0]!))
})

t.test(
  '--once puts back what was there, also after it was ended by force, and after an apply that stays',
  async (t) => {
    const { box, sticks, apply, state, dir } = await bench(t)
    const before = state()
    const once = await apply([sticks[0]!, ...WORDS, '--once', '--no-report'])
    t.match(once, { status: 0, stdout: /every setting is as before/ })
    t.strictSame(state(), before)

    const env = { PATH: `${box.path}:/usr/sbin:/usr/bin:/sbin:/bin`, PYTHONPATH: join(dir, 'yum'), TMPDIR: dir }
    /** sends a signal to it and all its children while it waits for Enter */
    const ended = async ([shell, ...options]: [string, ...string[]], signal: NodeJS.Signals): Promise<string> => {
      const args = [...options, GAPFERRY_BOX, 'apply', sticks[1]!, '--root', box.root, '--once', '--no-report']
      const child = spawn(shell, args, { env, detached: true, stdio: ['pipe', 'pipe', 'ignore'] })
      let said = ''
      for await (const chunk of child.stdout) {
        const isFirst = !said.includes('until Enter')
        said += String(chunk)
        if (isFirst && said.includes('until Enter')) process.kill(-child.pid!, signal)
      }
      return said
    }
    for (const shell of SHELLS.slice(0, 2)) {
      t.match(await ended(shell, 'SIGINT'), /every setting is as it was before --once\n$/, shell.join(' '))
      t.strictSame(state(), before, `interrupted in ${shell.join(' ')}`)
    }
    await ended(SHELLS[0]!, 'SIGKILL')
    t.ok(existsSync(join(box.root, 'etc/gapferry/once/0001')), 'ended while it waited: the changes are there')
    t.ok(existsSync(join(box.root, 'etc/gapferry/once')))
    const next = await apply([sticks[1]!, '--once', '--no-report'])
    t.match(next, { status: 0, stderr: /was ended before it put everything back: done now/ })
    t.strictSame(state(), before)
    t.notOk(existsSync(join(box.root, 'etc/gapferry/once')))

    t.match(await apply([sticks[1]!, '--no-report', '--no-keep']), { status: 0 })
    box.write('/etc/yum.repos.d/Sangoma-Base.repo', '[sng-pkgs]\nname=of the operator\nbaseurl=http://intra.lan/\n')
    const stays = state()
    t.notSame(stays, before)
    const shown = await apply([sticks[1]!, '--once', '--no-report'])
    t.match(shown, { status: 0, stdout: /changed \/etc\/yum\.repos\.d\/Sangoma-Base\.repo[^]*restored \/etc\/yum/ })
    t.strictSame(state(), stays, 'back to what was there before, not to the vendor’s')
  },
)

t.test('a box with a key signs what it says', async (t) => {
  const { box, sticks, apply } = await bench(t)
  const etc = join(box.root, 'etc/gapferry')
  mkdirSync(etc, { recursive: true })
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', join(etc, 'box.key')]
  execFileSync('openssl', ['req', '-x509', ...key, '-out', join(etc, 'box.pem'), '-subj', '/CN=pbx1', '-days', '9'], {
    stdio: 'pipe',
  })
  chmodSync(join(etc, 'box.key'), 0o600)
  const outcome = await apply([sticks[0]!, ...WORDS, '--box', 'pbx1'])
  t.equal(outcome.status, 0, report(outcome))
  const text = readFileSync(join(sticks[0]!, 'gapferry/hq/report/pbx1-1.applied'), 'utf8')
  const { applied, certificate, signature } = JSON.parse(text) as Record<'applied' | 'certificate' | 'signature', never>
  t.equal(text, `${canonicalJson({ applied, certificate, signature }).toString()}\n`)
  const { publicKey } = new X509Certificate(Buffer.from(certificate, 'base64'))
  t.ok(createVerify('sha256').update(canonicalJson(applied)).verify(publicKey, signature, 'base64'))
})

t.test('of the sealed licenses the one for the key of this box is installed', async (t) => {
  const dir = t.testdir({ yum: {} })
  const box = await makeLicenseBox(join(dir, 'box'))
  const env = { PYTHONPATH: idleYum(join(dir, 'yum')) }
  t.equal((await box.run(['key', '--box', 'pbx1'])).status, 0)
  const own = new X509Certificate(box.read('/etc/gapferry/box.pem')).raw
  const other = await makeLicenseBox(join(dir, 'other'))
  t.equal((await other.run(['key', '--box', 'pbx2'])).status, 0)
  const foreign = new X509Certificate(other.read('/etc/gapferry/box.pem')).raw
  const sealed = await Promise.all(
    [own, foreign].map((certificate) => sealCms(licenseDocument({ site: 'hq' }), [certificate])),
  )
  const content = boxContent(1, publicArmored, { count: 1, bytes: 100 })
  for (const bytes of sealed) content.blobs.set(sha256Of(bytes), bytes)
  const blobs = new Map(sealed.map((bytes) => [sha256Of(bytes), bytes.length]))
  const licenses = serializeSealedLicenses({ site: 'hq', number: 1, index: null, blobs })
  content.trees.set(sha256Of(licenses), licenses)
  content.targets.set('licenses', { sha256: sha256Of(licenses), bytes: licenses.length })
  writeParts(join(dir, 'stick/gapferry/hq'), signContent(content))
  const outcome = await box.run(['apply', join(dir, 'stick'), ...WORDS, '--box', 'pbx1'], { env })
  t.equal(outcome.status, 0, report(outcome))
  t.match(outcome.stdout, /license installed: 2 files, for PBXact/)
  t.equal(box.read('/etc/schmooze/schmooze.zl'), licenseText({ until: '2029-02-28' }))
  t.equal(readdirSync(join(box.root, 'var/lib/gapferry/licenses')).length, 2, 'both lie there, sealed')
  const again = await box.run(['apply', join(dir, 'stick'), '--box', 'pbx1', '--no-report'], { env })
  t.match(again, { status: 0 })
  t.notMatch(again.stdout, 'license installed')
})
