/** `gapferry-box apply` ended anywhere (SIGKILL): the old tree or the new one is served, whole, and the same command finishes.
 *  Each call of the system in turn: test/slow/apply-points.test.ts. */
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import t from 'tap'
import { fingerprintWords } from '../../manifests/words.ts'
import { boxContent, idleYum, servedBy, servedFrom } from '../helpers/apply.ts'
import { GAPFERRY_BOX } from '../helpers/box-root.ts'
import { makeFolderBox } from '../helpers/folder-box/box.ts'
import { gpgKey } from '../helpers/gpg.ts'
import { signContent, writeParts } from '../helpers/mirror.ts'
import { sampleRoot } from '../helpers/part.ts'
import { must, report, run, type Outcome } from '../helpers/process.ts'

const SEED = Number(process.env['GAPFERRY_SEED'] ?? Date.now() % 1_000_000)
const KILLS = Number(process.env['GAPFERRY_KILLS'] ?? 5)

t.test(`killed at random moments (GAPFERRY_SEED=${SEED})`, async (t) => {
  const dir = t.testdir({ yum: {} })
  const { publicArmored } = await gpgKey('vendor')
  const contents = [1, 2].map((number) => boxContent(number, publicArmored))
  const [before, after] = contents.map((content) => servedFrom(content))
  const sticks = contents.map((content, i) => {
    const stick = join(dir, `stick-${i + 1}`)
    writeParts(join(stick, 'gapferry/hq'), signContent(content))
    return stick
  })
  const template = join(dir, 'template')
  const box = await makeFolderBox(template, { major: 16 })
  const pristine = box.everything()
  const command = (at: string, stick: string): string[] => {
    const words = stick === sticks[0] ? ['--fingerprint', fingerprintWords(sampleRoot)] : []
    return ['dash', GAPFERRY_BOX, 'apply', stick, '--root', join(at, 'root'), '--no-report', ...words]
  }
  const yum = idleYum(join(dir, 'yum'))
  const envOf = (at: string) => ({
    PATH: `${join(at, 'bin')}:/usr/sbin:/usr/bin:/sbin:/bin`,
    PYTHONPATH: yum,
    TMPDIR: dir,
  })
  const apply = (at: string, stick: string): Promise<Outcome> => {
    const [program, ...args] = command(at, stick)
    return run(program!, args, { env: envOf(at) })
  }
  must(await apply(template, sticks[0]!))
  t.strictSame(servedBy(box.root), before)
  const started = Date.now()
  copy(template, join(dir, 'timed'))
  const timed = await apply(join(dir, 'timed'), sticks[1]!)
  const wholeMs = Date.now() - started
  t.equal(timed.status, 0, report(timed))
  t.strictSame(servedBy(join(dir, 'timed/root')), after)

  let seed = SEED
  const random = (): number => (seed = (seed * 48271) % 2147483647) / 2147483647
  for (let i = 0; i < KILLS; i++) {
    const at = join(dir, `kill-${i}`)
    copy(template, at)
    const ms = Math.ceil(random() * wholeMs)
    await killedAfter(command(at, sticks[1]!), envOf(at), ms)
    const served = servedBy(join(at, 'root'))
    t.ok(isSame(served, before) || isSame(served, after), `${ms} of ${wholeMs} ms: one whole tree`)
    const finished = await whenFree(() => apply(at, sticks[1]!))
    t.equal(finished.status, 0, report(finished))
    t.strictSame(servedBy(join(at, 'root')), after)
    execFileSync('rm', ['-rf', at])
  }
  must(await apply(template, sticks[1]!))
  must(await run('dash', [GAPFERRY_BOX, 'uninstall', '--root', box.root], { env: envOf(template) }))
  const left = Object.entries(box.everything()).filter(([path]) => !/^(?:etc|var\/lib)\/gapferry\b/.test(path))
  t.strictSame(Object.fromEntries(left), pristine)
  t.strictSame(readdirSync(join(box.root, 'etc/gapferry')).sort(), ['root.json', 'state.json'])
  t.match(await apply(template, sticks[0]!), { status: 3, stderr: /\[ROLE_ROLLBACK\]/ }, 'known after uninstall, too')
  const again = await apply(template, sticks[1]!)
  t.equal(again.status, 0, report(again))
})

/** What was killed holds its lock until the system has taken all of it away. */
async function whenFree(again: () => Promise<Outcome>): Promise<Outcome> {
  for (let tries = 50; ; tries--) {
    const outcome = await again()
    if (outcome.status !== 7 || tries === 0) return outcome
    await delay(100)
  }
}

function isSame(one: unknown, other: unknown): boolean {
  return JSON.stringify(one) === JSON.stringify(other)
}

/** With its hard links. */
function copy(from: string, to: string): void {
  mkdirSync(to)
  execFileSync('cp', ['-a', `${from}/.`, to])
}

/** With all that it had started. */
async function killedAfter([program, ...args]: string[], env: Record<string, string>, ms: number): Promise<void> {
  const child = spawn(program!, args, { env, detached: true, stdio: ['ignore', 'ignore', 'pipe'] })
  const timer = setTimeout(() => process.kill(-child.pid!, 'SIGKILL'), ms)
  child.stderr.resume()
  await once(child, 'close')
  clearTimeout(timer)
}
