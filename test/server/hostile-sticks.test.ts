/** Sticks made to harm: what is no plain file, what starts by itself, what changes while it is read, and names that are
 *  written for the terminal they are shown on. */
import { execFileSync } from 'node:child_process'
import {
  appendFileSync,
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { basename, join } from 'node:path'
import t, { type Test } from 'tap'
import { runGapferry } from '../../bundler/program.ts'
import { fingerprintWords } from '../../manifests/words.ts'
import { importParts } from '../../server/import.ts'
import { runMirror } from '../../server/program.ts'
import { openStoreForWriting } from '../../server/store.ts'
import { stateOf } from '../helpers/hostile.ts'
import { inside } from '../helpers/inside.ts'
import { makeContent, signContent, traces, writeParts } from '../helpers/mirror.ts'
import { sampleBundle, sampleRoot, type SampleBundle } from '../helpers/part.ts'
import type { Outcome } from '../helpers/process.ts'
import { NOW } from '../helpers/site.ts'
import { entriesOf } from '../helpers/tar.ts'

/** Control characters but line ends, and what turns or hides text. */
const TRICKS = /[^\P{Cc}\n]|\p{Cf}|[\u2028\u2029]/u
const MOVES = '\u001b]0;owned\u0007\u001b[2J\u001b[1;1H\r\b\u009b31m'
const TURNS = '\u202egnp.rat\u2066\u200b\u2028'

interface Site {
  dir: string
  stick: string
  storeDir: string
  mirror: (...args: string[]) => Promise<Outcome>
}

async function site(t: Test): Promise<Site> {
  const dir = t.testdir({ 'root.json': sampleRoot, stick: {}, mir: {} })
  const around = { nowMs: () => NOW + 3_600_000 }
  const mirror = (...args: string[]): Promise<Outcome> => inside(runMirror, join(dir, 'mir'), args, around)
  const args = ['init', '.', '--trust', '../root.json', '--fingerprint', fingerprintWords(sampleRoot)]
  t.equal((await mirror(...args, '--origin', 'pbx=127.0.0.1:0')).status, 0)
  return { dir, stick: join(dir, 'stick'), storeDir: join(dir, 'mir', 'store'), mirror }
}

const bundle = (number: number, packages = ['a', 'b']) =>
  signContent(makeContent(number, [{ stamp: number, packages }]))

function fifo(file: string): string {
  execFileSync('mkfifo', [file])
  return file
}

t.test('what is no plain file is refused at once, whoever names it', async (t) => {
  const { dir, stick, storeDir, mirror } = await site(t)
  const [good] = writeParts(dir, bundle(1))
  symlinkSync(good!, join(stick, 'link.tar'))
  symlinkSync('loop.tar', join(stick, 'loop.tar'))
  const before = stateOf(storeDir)
  const files = [fifo(join(stick, 'pipe.tar')), join(stick, 'link.tar'), '/dev/zero', '/dev/null', '/dev/full']
  for (const file of files) {
    const { status, stderr } = await mirror('import', file)
    t.match(stderr, 'BUNDLE_NOT_REGULAR', basename(file))
    t.equal(status, 3)
  }
  t.not((await mirror('import', join(stick, 'loop.tar'))).status, 0)
  t.equal(stateWithoutAudit(before), stateWithoutAudit(stateOf(storeDir)))
})

t.test('a root that is no plain file is refused at once, too', async (t) => {
  const { dir } = await site(t)
  const [part] = writeParts(dir, bundle(1))
  writeFileSync(join(dir, 'huge.json'), '')
  truncateSync(join(dir, 'huge.json'), 2 ** 40)
  for (const root of [fifo(join(dir, 'pipe.json')), '/dev/zero', '/dev/full', join(dir, 'huge.json'), dir]) {
    const init = ['init', 'new', '--trust', root, '--yes', '--origin', 'pbx=127.0.0.1:0']
    t.match((await inside(runMirror, dir, init)).stderr, 'ROOT_INVALID', `init: ${basename(root)}`)
    t.match((await inside(runGapferry, dir, ['verify', '--trust', root, part!])).stderr, 'ROOT_INVALID')
  }
  t.notOk(existsSync(join(dir, 'new')))
})

t.test('on a stick only plain files with the name of a part are opened; nothing is run or written', async (t) => {
  const { stick, storeDir, mirror } = await site(t)
  const folder = join(stick, 'gapferry', 'hq')
  writeParts(folder, bundle(1))
  fifo(join(folder, 'hq-7.tar'))
  mkdirSync(join(folder, 'hq-8.tar'))
  symlinkSync('/etc/passwd', join(folder, 'hq-9.tar'))
  symlinkSync('/dev/zero', join(folder, 'hq-10.tar'))
  const marker = join(stick, 'it-ran')
  const script = `#!/bin/sh\ntouch ${marker}\n`
  for (const name of ['autorun.sh', '.autorun', 'hq-11.tar.sh', 'verify.py', 'root.json']) {
    writeFileSync(join(folder, name), script, { mode: 0o755 })
    writeFileSync(join(stick, name), script, { mode: 0o755 })
  }
  writeFileSync(join(stick, 'autorun.inf'), `[autorun]\nopen=autorun.sh\n`)
  const before = traces(folder).filter((line) => !/hq-(7|9|10)/.test(line))
  const { status, stderr, stdout } = await mirror('import', stick)
  t.equal(status, 0, stderr)
  t.match(stdout, /bundle 1 of site hq: genuine/)
  for (const number of [7, 8, 9, 10]) t.match(stderr, `ignored: hq-${number}.tar is not a regular file`)
  t.notOk(existsSync(marker))
  t.same(
    traces(folder).filter((line) => !/hq-(7|9|10)/.test(line)),
    before,
  )
  t.same(readdirSync(join(storeDir, 'staging')), [])
})

t.test('a file of 1 TiB that is nearly all hole costs no time', async (t) => {
  const { dir, stick, mirror } = await site(t)
  const [whole] = writeParts(dir, bundle(1))
  const hole = join(stick, 'hq-2.tar')
  writeFileSync(hole, '')
  truncateSync(hole, 2 ** 40)
  truncateSync(whole!, 2 ** 40)
  const startMs = performance.now()
  t.match((await mirror('import', hole)).stderr, /BUNDLE_(TRAILING|ENTRY_MISSING)/)
  t.match((await mirror('import', whole!)).stderr, 'BUNDLE_TRAILING')
  t.ok(performance.now() - startMs < 10_000)
})

t.test('a folder full of strangers is not listed for ever', async (t) => {
  const { stick, mirror } = await site(t)
  for (let i = 0; i < 300; i++) writeFileSync(join(stick, `lab-${i + 1}.tar`), '')
  writeParts(stick, bundle(1))
  const { status, stderr } = await mirror('import', stick)
  t.equal(status, 0)
  t.ok(stderr.split('\n').length < 40, 'twenty names and how many more')
})

t.test('bytes that change while they are read are refused', async (t) => {
  const { stick, storeDir } = await site(t)
  const [file] = writeParts(stick, large())
  const last = entriesOf(file!).at(-1)!
  t.ok(last.bytesAt > 3 * 2 ** 20, 'further on than one read goes')
  const store = openStoreForWriting(storeDir)
  t.teardown(() => store.close())
  const before = stateOf(storeDir)
  const changes: [string, () => void][] = [
    ['BLOB_DIGEST_MISMATCH', () => overwrite(file!, last.bytesAt, 'evil')],
    ['BUNDLE_HEADER_INVALID', () => overwrite(file!, last.headerAt + 200, 'evil')],
    ['BUNDLE_TRUNCATED', () => truncateSync(file!, last.headerAt)],
  ]
  for (const [code, change] of changes) {
    let isDone = false
    const onProgress = (): void => {
      if (!isDone) change()
      isDone = true
    }
    const importing = importParts(store, { inputs: [file!], isDryRun: false, nowMs: NOW, clockMs: NOW, onProgress })
    await t.rejects(importing, { code })
    t.equal(stateOf(storeDir), before, `${code}: nothing is kept`)
    writeParts(stick, large())
  }
  // What is appended after the file was opened is not read: its size was taken then.
  let isDone = false
  const onProgress = (): void => {
    if (!isDone) appendFileSync(file!, 'evil')
    isDone = true
  }
  const result = await importParts(store, { inputs: [file!], isDryRun: false, nowMs: NOW, clockMs: NOW, onProgress })
  t.match(result, { number: 1, missing: [] })
})

t.test('names cannot write to the terminal that they are shown on', async (t) => {
  const { dir, stick, mirror } = await site(t)
  const [good] = writeParts(join(dir, 'made'), bundle(1))
  const names = [`hq-2${MOVES}.tar`, `hq-3${TURNS}.tar`, 'hq-4\nbundle 9 of site hq: genuine.tar']
  const clean = (what: string, { stdout, stderr }: Outcome): void => {
    t.notMatch(stdout, TRICKS, `${what}: stdout`)
    t.notMatch(stderr, TRICKS, `${what}: stderr`)
    t.notMatch(`${stdout}${stderr}`, /^bundle 9/m, `${what}: a line of its own`)
  }
  for (const name of names) {
    mkdirSync(join(stick, 'gapferry', `lab${name.slice(4, -4)}`), { recursive: true })
    writeFileSync(join(stick, name), 'rubbish')
  }
  clean('nothing for us', await mirror('import', stick))
  writeParts(stick, bundle(1))
  clean('ignored', await mirror('import', stick))
  clean('ignored, as JSON', await mirror('--json', 'import', stick))
  for (const [i, name] of names.entries()) {
    const file = join(stick, name)
    clean(`refused, name ${i}`, await mirror('import', file))
    const json = await mirror('--json', 'import', file)
    clean('refused, as JSON', json)
    t.match(JSON.parse(json.stdout), { error: { code: 'BUNDLE_TRUNCATED' } })
    execFileSync('cp', [good!, file])
    clean('taken', await mirror('import', file))
    for (const command of ['inspect', 'verify']) {
      const args = [command, '--trust', join(dir, 'root.json'), file]
      clean(command, await inside(runGapferry, dir, args, { nowMs: () => NOW }))
      clean(`${command}, as JSON`, await inside(runGapferry, dir, ['--json', ...args], { nowMs: () => NOW }))
    }
  }
  for (const command of ['status', 'bundles', 'audit']) {
    clean(command, await mirror(command))
    clean(`${command}, as JSON`, await mirror('--json', command))
  }
})

/** Larger than what is read at once. */
function large(): SampleBundle {
  const files = Array.from({ length: 4 }, (_, i) => [`${i}.bin`, Buffer.alloc(2 ** 21, i + 1)] as const)
  return sampleBundle({ files: Object.fromEntries(files) })
}

function overwrite(file: string, at: number, text: string): void {
  const fd = openSync(file, 'r+')
  writeSync(fd, text, at)
  closeSync(fd)
}

/** A refused import leaves a row in the audit trail, and is meant to. */
function stateWithoutAudit(state: string): string {
  const [files, rows] = JSON.parse(state) as [unknown, [string, unknown][]]
  return JSON.stringify([files, rows.filter(([name]) => !/audit|sqlite_sequence/.test(name))])
}
