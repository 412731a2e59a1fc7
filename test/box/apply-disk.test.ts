/** A disk that is full before or while a stick is applied: the old tree is served on, and nothing is half done. */
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { sha256Of } from '../../manifests/digest.ts'
import { applyAll, boxContent, servedBy, servedFrom } from '../helpers/apply.ts'
import { removeFolder } from '../helpers/cache.ts'
import { signContent, writeParts } from '../helpers/mirror.ts'
import { sampleRoot } from '../helpers/part.ts'
import { mustRun, run } from '../helpers/process.ts'
import { NOW } from '../helpers/site.ts'

const MB = 1_000_000
const DISK_BYTES = 3 * MB

t.test('full before, and at each moment', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'gapferry-disk-'))
  const contents = [1, 2].map((number) => boxContent(number, 'key', { count: 12, bytes: 100_000 }))
  const [before, after] = contents.map((content) => servedFrom(content))
  const files = contents.map((content, i) => writeParts(join(dir, `stick-${i}`), signContent(content))[0]!)
  const box = join(dir, 'box')
  const data = join(box, 'var/lib/gapferry')
  mkdirSync(data, { recursive: true })
  await mustRun('mount', ['-t', 'tmpfs', '-o', `size=${DISK_BYTES}`, 'none', data])
  t.teardown(async () => {
    await run('umount', ['-l', data])
    removeFolder(dir)
  })
  const apply = async (file: string, reserveBytes: number) => {
    const { results } = await applyAll(box, [{ dir: file, pin: sha256Of(sampleRoot) }], { nowMs: NOW, reserveBytes })
    return results[0]!
  }
  const first = await apply(files[0]!, 64 * MB)
  t.match(first, { code: 'SPACE_SHORT', message: /expected \d+ MB of free space, found \d MB/ }, 'told before')
  t.strictSame(
    readdirSync(data)
      .filter((name) => name !== 'lost+found')
      .sort(),
    ['blobs', 'trees'],
  )
  t.match(await apply(files[0]!, 0), { code: 'accepted' })
  t.strictSame(servedBy(box), before)

  const filler = join(data, 'filler')
  for (const leftBytes of [0, 4096, 90_000, 150_000, 420_000, 700_000, 860_000]) {
    const { stdout } = await mustRun('df', ['--output=avail', '-B1', data])
    writeFileSync(filler, Buffer.alloc(Math.max(0, Number(stdout.split('\n')[1]) - leftBytes)))
    const full = await apply(files[1]!, -100 * MB)
    t.match(full, { code: 'errno 28' }, `${leftBytes} bytes left: ${full.code}`)
    t.strictSame(servedBy(box), before, 'the old tree is served')
    t.notOk(readdirSync(data).includes('staging'))
    rmSync(filler)
  }
  t.match(await apply(files[1]!, 0), { code: 'accepted' })
  t.strictSame(servedBy(box), after)
})
