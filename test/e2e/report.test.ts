import { createPrivateKey } from 'node:crypto'
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { runGapferry } from '../../bundler/program.ts'
import { openReport, parseSealedReport, sealReport } from '../../manifests/report-seal.ts'
import { parseReport, signReport, type Report } from '../../manifests/report.ts'
import { runMirror } from '../../server/program.ts'
import { Ledger } from '../../storage/ledger.ts'
import { inside } from '../helpers/inside.ts'
import { makeGap, type Gap } from '../helpers/gap.ts'
import { must } from '../helpers/process.ts'
import { serveFolder } from '../helpers/static-server.ts'

interface Packed {
  number: number
  isNew: boolean
  carriedBytes: number
  leftOut: { count: number; bytes: number; source: string } | null
  files: { path: string }[]
}

const FILE_BYTES = 20_000

/** A site whose laptop carries vendor files, one more with each call of `offer`. The programs are the real ones: as processes,
 *  or, where a test has many runs, in this one. */
async function site(t: Test, how: 'processes' | 'inside') {
  const dir = t.testdir({ www: {}, gap: { laptop: {}, stick: {}, mirror: {} } })
  const upstream = await serveFolder(join(dir, 'www'))
  t.teardown(() => upstream.close())
  let count = 0
  let names: string[] = []
  const add = (): string => {
    const name = `${++count}.bin`
    writeFileSync(join(dir, 'www', name), Buffer.alloc(FILE_BYTES, count))
    names.push(name)
    return `files: [${names.map((one) => `{ url: '${upstream.url}/${one}', as: ${one} }`).join(', ')}]`
  }
  add()
  const gap = await (how === 'processes' ? makeGap(t, join(dir, 'gap'), add()) : makeInside(join(dir, 'gap'), add()))
  /** @param gone  those that the vendor withdrew */
  const offer = (...gone: string[]): void => {
    names = names.filter((name) => !gone.includes(name))
    gap.settings(add())
  }
  const pack = async (command: 'bundle' | 'pack', ...args: string[]): Promise<Packed> => {
    const { stdout } = must(await gap.gapferry(command, '--to', gap.stickDir, '--json', ...args))
    return (JSON.parse(stdout) as { bundles: [Packed] }).bundles[0]
  }
  return { gap, offer, pack }
}

type Pair = Pick<Gap, 'dir' | 'stickDir' | 'rootFile' | 'gapferry' | 'mirror' | 'settings'>

async function makeInside(dir: string, files: string): Promise<Pair> {
  const [laptop, mirror] = [join(dir, 'laptop'), join(dir, 'mirror')]
  const settings = (text: string): void => {
    const group = `{ name: pbx, origin: 'http://127.0.0.1:8416', ${text} }`
    const site = `sites: [{ name: hq, groups: [${group}] }]`
    writeFileSync(join(laptop, 'gapferry.yaml'), `apiVersion: gapferry/v1\nkind: Fleet\n${site}\n`)
  }
  const pair: Pair = {
    ...{ dir, stickDir: join(dir, 'stick'), rootFile: join(laptop, 'keys/hq/1.root.json'), settings },
    gapferry: (...args) => inside(runGapferry, laptop, args),
    mirror: (...args) => inside(runMirror, mirror, args),
  }
  settings(files)
  must(await pair.gapferry('init', '.', '--no-passphrase'))
  must(await pair.mirror('init', '.', '--trust', pair.rootFile, '--yes', '--origin', 'pbx=127.0.0.1:0'))
  return pair
}

const imported = async (gap: Pair, ...args: string[]) =>
  must(await gap.mirror('import', '--release', gap.stickDir, ...args))

t.test('a report comes back, the next bundle brings what is new, and the mirror is whole', async (t) => {
  const { gap, offer, pack } = await site(t, 'processes')
  const first = await pack('bundle')
  t.equal(first.leftOut, null)
  await imported(gap)
  offer()
  t.equal((await pack('bundle')).leftOut, null, 'that a bundle was packed does not mean that it came')
  rmSync(gap.stickDir, { recursive: true })
  mkdirSync(gap.stickDir)

  must(await gap.mirror('report', '--to', gap.stickDir, '--yes'))
  const { stdout } = must(await gap.gapferry('report', 'add', gap.stickDir, '--yes'))
  t.match(stdout, /^hq: report of .* added, 5 files are there; the identity of its mirror is accepted$/m)
  const next = await pack('pack')
  t.match(next, { number: 2, isNew: false, leftOut: { count: 5, source: /^the report of 20/ } })
  t.equal(next.carriedBytes, FILE_BYTES, 'the new file alone')
  const full = await pack('pack', '--full')
  t.match(full, { number: 2, isNew: false, leftOut: null }, 'the same bundle')
  t.equal(full.carriedBytes - next.carriedBytes, next.leftOut!.bytes)
  await pack('pack')
  const judged = must(await gap.gapferry('verify', join(gap.stickDir, 'gapferry/hq/hq-2.tar')))
  t.match(judged.stdout, /all its parts; left out, because the site shall have them: 5 paths\n +pbxact16 +1\.bin\n/)
  t.match((await imported(gap)).stdout, /1 new, 20\.0 kB[^]*complete/)
  t.match(JSON.parse(must(await gap.mirror('verify', '--json')).stdout), { isSound: true })
})

t.test('a differential that does not fit says what is missing, and what brings it', async (t) => {
  const { gap, offer, pack } = await site(t, 'inside')
  await pack('bundle')
  await imported(gap)
  must(await gap.mirror('report', '--to', gap.stickDir, '--yes'))
  must(await gap.gapferry('report', 'add', gap.stickDir, '--yes'))
  offer()
  await pack('bundle')
  must(await gap.mirror('init', '../standby', '--trust', gap.rootFile, '--yes'))
  const standby = (...args: string[]) => gap.mirror(...args, '--config', '../standby/mirror.yaml')
  const lacking = await standby('import', gap.stickDir)
  t.equal(lacking.status, 4)
  t.match(lacking.stdout, /^missing: 5 paths\n[^]*1\.bin +20\.0 kB +in no part[^]*2\.bin/m)
  t.match(lacking.stderr, /BUNDLE_INCOMPLETE.*\n.*gapferry pack --full --to DIR; or gapferry report add/)
  t.match(JSON.parse((await standby('import', gap.stickDir, '--json')).stdout), {
    isComplete: false,
    missing: [{ part: null }, { part: null }, { part: null }],
  })
  t.equal((await standby('release')).status, 4)

  // Either way out that was named.
  must(await standby('report', '--to', gap.stickDir, '--yes'))
  t.match(
    (await gap.gapferry('report', 'add', gap.stickDir)).stderr,
    /REPORT_OLDER|REPORT_IDENTITY/,
    'it is another mirror',
  )
  await pack('pack', '--full')
  must(await standby('import', '--release', gap.stickDir))
})

t.test('what was packed with --full is mended like that, and what was not, is not', async (t) => {
  const { gap, offer, pack } = await site(t, 'inside')
  await pack('bundle')
  await imported(gap)
  must(await gap.mirror('report', '--to', gap.stickDir, '--yes'))
  must(await gap.gapferry('report', 'add', gap.stickDir, '--yes'))
  offer()
  await pack('bundle')
  const [file] = (await pack('pack', '--full')).files
  const good = readFileSync(file!.path)
  const bad = Buffer.from(good)
  bad[good.length - 3000]! ^= 1
  writeFileSync(file!.path, bad)
  t.match((await gap.gapferry('verify', file!.path)).status, 3)
  const mended = await pack('pack', '--repair', '--full')
  t.match(mended, { number: 2, isNew: false, leftOut: null, files: [{ mendedBytes: Number }] })
  t.ok(readFileSync(file!.path).equals(good))
  must(await gap.gapferry('verify', file!.path))
  writeFileSync(file!.path, bad)
  t.match(await pack('pack', '--repair'), { leftOut: null })
  t.ok(readFileSync(file!.path).equals(good), 'also where nobody says so again: the stick tells how it was packed')
  await pack('pack')
  const small = readFileSync(file!.path)
  t.ok(small.length < good.length)
  small[small.length - 3000]! ^= 1
  writeFileSync(file!.path, small)
  t.match(await pack('pack', '--repair'), { leftOut: { count: 5 }, carriedBytes: FILE_BYTES })
})

t.test('words over the phone are a base, too', async (t) => {
  const { gap, offer, pack } = await site(t, 'inside')
  await pack('bundle')
  await imported(gap)
  const told = JSON.parse(must(await gap.mirror('report', '--level', 'words', '--json')).stdout) as { words: string }
  const upper = told.words.toUpperCase().replaceAll(' ', ', ')
  t.match(must(await gap.gapferry('report', 'add', '--words', upper)).stdout, /^hq has bundle 1 whole/)
  t.match(must(await gap.gapferry('report', 'list')).stdout, /^hq +in words, .* +bundle 1$/m)
  offer()
  const next = await pack('bundle')
  t.match(next, { carriedBytes: FILE_BYTES, leftOut: { count: 5, source: /^the words of bundle 1, told 20/ } })
  await imported(gap)
})

t.test('after a lost stick, what goes back is what is served there, and what was lost is not carried', async (t) => {
  const { gap, offer, pack } = await site(t, 'inside')
  await pack('bundle')
  await imported(gap)
  must(await gap.mirror('report', '--to', gap.stickDir, '--yes'))
  must(await gap.gapferry('report', 'add', gap.stickDir, '--yes'))
  offer()
  await pack('bundle') // lost
  const pruned = must(await gap.gapferry('store', 'prune', '--keep', '1', '--yes', '--json'))
  t.match(JSON.parse(pruned.stdout), { kept: ['hq 2', 'hq 1'] }, 'what is served there stays')
  offer('3.bin')
  t.equal((await pack('bundle')).carriedBytes, FILE_BYTES, 'the file of the lost one is in no tree of this')
  await imported(gap)
  const { origins } = JSON.parse(must(await gap.mirror('status', '--json')).stdout) as { origins: object[] }
  t.match(origins, [{ bundle: 3, rollback: { isPossible: true, content: 1 } }])
  t.match(must(await gap.mirror('status')).stdout, /rollback to bundle 1 is possible/)
  t.equal(must(await gap.mirror('rollback')).stdout, 'pbx is served the content before bundle 3: that of bundle 1\n')

  // It was rolled back because something is wrong with bundle 3: that is never what bundle 4 goes back to.
  rmSync(gap.stickDir, { recursive: true })
  mkdirSync(gap.stickDir)
  must(await gap.mirror('report', '--to', gap.stickDir, '--yes'))
  must(await gap.gapferry('report', 'add', gap.stickDir))
  t.match((await pack('pack')).number, 3, 'nothing is new')
  offer('4.bin')
  t.equal((await pack('bundle')).carriedBytes, FILE_BYTES)
  await imported(gap)
  t.match(must(await gap.mirror('rollback', '--json')).stdout, /"content":1\b/)
})

t.test('a mirror cannot choose what it goes back to by telling of an older state', async (t) => {
  const { gap, offer, pack } = await site(t, 'inside')
  const withReport = async (change: (report: Report) => Partial<Report>, ...args: string[]) => {
    must(await gap.mirror('report', '--to', gap.stickDir, '--yes'))
    const ledger = new Ledger(join(gap.dir, 'laptop/store/ledger.db'))
    t.teardown(() => ledger.close())
    const folder = join(gap.stickDir, 'gapferry/hq/report')
    const [newest] = readdirSync(folder).sort((a, b) => b.localeCompare(a, 'en', { numeric: true }))
    const file = join(folder, newest!)
    const opened = openReport(parseSealedReport(readFileSync(file), file), ledger.reports.key('hq'), file)
    const { _type, format: _format, ...report } = parseReport(opened, file).report
    const key = createPrivateKey(readFileSync(join(gap.dir, 'mirror/store/identity.key')))
    const signed = signReport({ ...report, ...change(parseReport(opened, file).report) }, key)
    writeFileSync(file, sealReport(signed, ledger.reports.publicKey('hq'), 'hq'))
    ledger.close()
    return gap.gapferry('report', 'add', file, '--yes', ...args)
  }
  await pack('bundle')
  await imported(gap)
  offer()
  await pack('bundle')
  await imported(gap)
  must(await withReport(() => ({})))
  const old = (): Partial<Report> => ({ served: [{ group: 'pbx', bundle: 1, role: 'current' }] })
  t.match((await withReport(old)).stderr, /bundle 1, which it says pbx is served.*REPORT_OLDER/)
  const foreign = await withReport(({ bundles }) => ({
    bundles: bundles.map((one) => (one.number === 2 ? { ...one, state: 'a'.repeat(64) } : one)),
  }))
  must(foreign)
  offer('2.bin')
  await pack('bundle')
  await imported(gap)
  t.match(
    must(await gap.mirror('rollback', '--json')).stdout,
    /"content":1\b/,
    'not its bundle 2: what of its own is whole',
  )
})

t.test('a report that was kept back, or came twice, makes no bundle that does not fit', async (t) => {
  const { gap, offer, pack } = await site(t, 'inside')
  await pack('bundle')
  await imported(gap)
  must(await gap.mirror('report', '--to', gap.stickDir, '--yes'))
  const [early, late] = ['early', 'late'].map((name) => join(gap.dir, name)) as [string, string]
  cpSync(gap.stickDir, early, { recursive: true })
  must(await gap.gapferry('report', 'add', early, '--yes'))
  offer()
  await pack('bundle')
  // The stick with bundle 2 is lost; the old report comes once more, then a month goes by.
  must(await gap.gapferry('report', 'add', early))
  offer()
  const third = await pack('bundle')
  t.equal(third.carriedBytes, 2 * FILE_BYTES, 'what the lost one brought is in it again')
  await imported(gap)
  mkdirSync(late)
  must(await gap.mirror('report', '--to', late, '--yes'))
  must(await gap.gapferry('report', 'add', late))
  t.match((await gap.gapferry('report', 'add', early)).stderr, /REPORT_OLDER/)
  t.equal((await pack('pack')).carriedBytes, 0)
})
