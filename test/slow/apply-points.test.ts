/** apply.py ended by SIGKILL, or refused, at every call that makes something durable, gives it its name or takes it away, one
 *  after the other: one whole tree is served, and the next run finishes. */
import { execFileSync } from 'node:child_process'
import { mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { sha256Of } from '../../manifests/digest.ts'
import { applyAll, boxContent, servedBy, servedFrom } from '../helpers/apply.ts'
import { signContent, writeParts } from '../helpers/mirror.ts'
import { sampleRoot } from '../helpers/part.ts'
import { NOW } from '../helpers/site.ts'

/** Ended at these, refused at those; chmod and the like change nothing that a second run would not do again. */
const CALLS = ['fsync', 'rename', 'link', 'symlink', 'unlink', 'rmdir', 'mkdir', 'write']
const ERRORS: Record<string, string> = {
  fsync: 'EIO',
  rename: 'EIO',
  link: 'EMLINK',
  symlink: 'ENOSPC',
  mkdir: 'ENOSPC',
  write: 'ENOSPC',
}
const LANES = 2

t.setTimeout(2_400_000)

for (const [name, first] of [
  ['the first bundle', 1],
  ['the second bundle', 2],
] as const) {
  t.test(name, async (t) => {
    const dir = t.testdir({ template: {} })
    const contents = [1, 2].map((number) => boxContent(number, 'key', { count: 3, bytes: 2000 }))
    const files = contents.map((content, i) => writeParts(join(dir, `stick-${i}`), signContent(content))[0]!)
    const [before, after] = [first === 2 ? servedFrom(contents[0]!) : undefined, servedFrom(contents[first - 1]!)]
    const run = { dir: files[first - 1]!, pin: sha256Of(sampleRoot) }
    const template = join(dir, 'template')
    if (first === 2) await applyAll(template, [{ ...run, dir: files[0]! }], { nowMs: NOW })

    let copies = 0
    const attempt = async (t: Test, inject: string): Promise<void> => {
      const box = join(dir, `box-${copies++}`)
      copy(template, box)
      // strace ends itself as its child was ended, and would look like a test that was killed
      const tracer = [
        'sh',
        '-c',
        '"$@"; exit $?',
        'sh',
        'strace',
        '-qq',
        '-o',
        '/dev/null',
        '-e',
        `trace=${CALLS.join(',')}`,
        '-e',
        `inject=${inject}`,
      ]
      await applyAll(box, [run], { nowMs: NOW, tracer })
      const served = JSON.stringify(servedBy(box))
      t.ok(
        [before, after].some((one) => JSON.stringify(one) === served),
        `${inject}: one whole tree, or none yet`,
      )
      const { results } = await applyAll(box, [run], { nowMs: NOW })
      t.match(results, [{ code: 'accepted' }], `${inject}: the next run finishes`)
      t.strictSame(servedBy(box), after)
      execFileSync('rm', ['-rf', box])
    }
    const points = await pointsOf(dir, template, run)
    t.ok(points.length > 60, `${points.length} points`)
    const lane = async (): Promise<void> => {
      for (let point = points.pop(); point !== undefined; point = points.pop()) await attempt(t, point)
    }
    await Promise.all(Array.from({ length: LANES }, lane))
  })
}

async function pointsOf(dir: string, template: string, run: { dir: string; pin: string }): Promise<string[]> {
  const box = join(dir, 'counted')
  copy(template, box)
  const log = join(dir, 'calls')
  const tracer = ['strace', '-qq', '-o', log, '-e', `trace=${CALLS.join(',')}`]
  await applyAll(box, [run], { nowMs: NOW, tracer })
  const counts = new Map<string, number>()
  for (const [, call] of readFileSync(log, 'utf8').matchAll(/^(\w+)\(/gm))
    counts.set(call!, (counts.get(call!) ?? 0) + 1)
  return [...counts].flatMap(([call, count]) =>
    Array.from({ length: count }, (_, n) => n + 1).flatMap((n) => {
      const error = ERRORS[call]
      return [
        ...(call === 'write' ? [] : [`${call}:signal=KILL:when=${n}`]),
        ...(error === undefined ? [] : [`${call}:error=${error}:when=${n}`]),
      ]
    }),
  )
}

/** With its hard links. */
function copy(from: string, to: string): void {
  mkdirSync(to)
  execFileSync('cp', ['-a', `${from}/.`, to])
}
