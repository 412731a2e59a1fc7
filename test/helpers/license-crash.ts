import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { X509Certificate } from 'node:crypto'
import { cpSync, existsSync, globSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Test } from 'tap'
import { sealCms } from '../../manifests/cms.ts'
import { GAPFERRY_BOX } from './box-root.ts'
import { licenseDocument, licenseText, makeLicenseBox } from './license-box.ts'
import { run, type Outcome } from './process.ts'

const FILES = ['/etc/sangoma/license.txt', '/etc/schmooze/schmooze.zl']
const OLD = licenseText()
const NEW = licenseText({ until: '2029-02-28' })

const STRACE = ['strace', '-f', '-qq', '-o', '/dev/null', '-e', 'signal=none']

/** A box with an old license in two files, to be killed while it installs a new one from a file; each attempt on a copy. */
export interface CrashScene {
  dir: string
  /** A copy, as it is before. */
  copy(): CrashBox
}

export interface CrashBox {
  root: string
  /** in front of it, what runs it: strace and its arguments */
  install(before?: readonly string[]): Promise<Outcome>
  /** the same, killed with all that it started after so many milliseconds; undefined: never. @returns how long it took */
  killedAfter(ms: number | undefined): Promise<number>
  /** `old`, `new`, or which files are which; anything else of the box that is wrong is told instead */
  state(): string
  restarts(): number
  /** what is there that nobody should find after a run that ended well */
  leftOvers(): string[]
}

export async function makeCrashScene(t: Test): Promise<CrashScene> {
  const dir = t.testdir()
  const original = join(dir, 'original')
  const box = await makeLicenseBox(original, { files: { [FILES[0]!]: OLD, [FILES[1]!]: OLD } })
  await box.run(['key', '--box', 'pbx1'])
  const certificate = new X509Certificate(box.read('/etc/gapferry/box.pem')).raw
  writeFileSync(join(dir, 'sealed'), await sealCms(licenseDocument(), [certificate]))
  let copies = 0
  const copy = (): CrashBox => {
    const to = join(dir, `copy-${++copies}`)
    cpSync(original, to, { recursive: true, verbatimSymlinks: true })
    const log = join(to, 'restarts')
    writeFileSync(join(to, 'bin/systemctl'), `#!/bin/sh\n[ "$1" != restart ] || echo >>'${log}'\n`, { mode: 0o755 })
    writeFileSync(join(to, 'bin/fwconsole'), '#!/bin/sh\necho info\n', { mode: 0o755 })
    return crashBox(to, join(dir, 'sealed'))
  }
  return { dir, copy }
}

function crashBox(dir: string, sealed: string): CrashBox {
  const root = join(dir, 'root')
  const command = ['dash', GAPFERRY_BOX, 'license', '--file', sealed, '--root', root]
  const env = { PATH: `${join(dir, 'bin')}:/usr/sbin:/usr/bin:/sbin:/bin` }
  const log = join(dir, 'restarts')
  return {
    root,
    install: (before = []) => {
      const [program, ...args] = [...before, ...command] as [string, ...string[]]
      return run(program, args, { env })
    },
    killedAfter: async (ms) => {
      const startedMs = performance.now()
      const child = spawn(command[0]!, command.slice(1), { env, detached: true, stdio: 'ignore' })
      const timer = ms === undefined ? undefined : setTimeout(() => process.kill(-child.pid!, 'SIGKILL'), ms)
      await once(child, 'close')
      clearTimeout(timer)
      return performance.now() - startedMs
    },
    state: () => stateOf(root),
    restarts: () => (existsSync(log) ? readFileSync(log, 'utf8').length : 0),
    leftOvers: () => leftOversIn(root),
  }
}

function stateOf(root: string): string {
  const states = FILES.map((path) => {
    const text = readFileSync(join(root, path), 'utf8')
    return text === OLD ? 'old' : text === NEW ? 'new' : 'broken'
  })
  // what FreePBX looks for: names that begin with a dot are nothing to it
  const names = ['etc/schmooze', 'etc/sangoma'].flatMap((folder) => readdirSync(join(root, folder)))
  const seen = names.filter((name) => !name.startsWith('.')).sort()
  const expected = ['license.txt', 'pbx-brand', 'pbx-version', 'pbxid', 'schmooze.zl']
  if (seen.join() !== expected.join()) return `other files: ${seen.join()}`
  return states[0] === states[1] ? states[0]! : states.join(' ')
}

function leftOversIn(root: string): string[] {
  const own = ['etc/schmooze', 'etc/sangoma', 'etc/gapferry', 'var/lib/gapferry/license']
  const hidden = own.flatMap((folder) => globSync(join(root, folder, '.gapferry-*')))
  const notes = ['license.journal', 'pending', 'restart', 'pending.new']
  return [...hidden, ...notes.filter((name) => existsSync(join(root, 'var/lib/gapferry/license', name)))]
}

/** Removes the copies, so that many attempts need little room. */
export function dropCopy(box: CrashBox): void {
  rmSync(join(box.root, '..'), { recursive: true, force: true })
}

/** How often one process makes a call while a license is installed. */
export async function countOf(box: CrashBox, call: string, log: string): Promise<number> {
  await box.install(['strace', '-f', '-qq', '-o', log, '-e', `trace=${call}`])
  const counts = new Map<string, number>()
  for (const line of readFileSync(log, 'utf8').split('\n')) {
    const [, pid] = new RegExp(`^(\\d+) +${call}\\(`).exec(line) ?? []
    if (pid !== undefined) counts.set(pid, (counts.get(pid) ?? 0) + 1)
  }
  return Math.max(...counts.values())
}

/** Killed when the python of the tool is about to make this call for the nth time. */
export function killedAt(box: CrashBox, call: string, n: number): Promise<Outcome> {
  return box.install([...STRACE, '-e', `trace=${call}`, '-e', `inject=${call}:signal=KILL:when=${n}`])
}

/** What must be true after it was cut off, and after it was run again. */
export async function checkAfterwards(t: Test, box: CrashBox, what: string): Promise<void> {
  const isBetween = existsSync(join(box.root, 'var/lib/gapferry/license/license.journal'))
  const state = box.state()
  t.ok(isBetween ? /^(?:old|new|new old)$/.test(state) : /^(?:old|new)$/.test(state), `${what}: ${state}`)
  const again = await box.install()
  t.match(again, { status: 0 }, `${what}: ${again.stderr}`)
  t.strictSame([box.state(), box.leftOvers()], ['new', []], what)
  t.ok(box.restarts() >= 3, `${what}: restarted`)
}
