import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import t from 'tap'
import { Catalog } from '../../storage/catalog.ts'
import { makeGap } from '../helpers/gap.ts'
import { makeLab } from '../helpers/lab.ts'

const KEY = '/etc/pki/rpm-gpg/RPM-GPG-KEY-gapferry'
const SWITCH_MS = 4
const RUNS = 8
/** Until both releases were met by chance. */
const MAX_RUNS = 40

t.test('releases switch every few milliseconds, and dnf never sees a mixed pair or a file that is gone', async (t) => {
  const lab = await makeLab(t)
  const yum = (url: string): string => `yum:\n  - { id: p, baseurl: ['${url}/'] }`
  const first = await lab.publish('p', [{ name: 'a', version: '1' }], { signed: false })
  const gap = await makeGap(t, lab.folder('gap'), yum(first.url))
  await gap.bundle()
  await gap.deliver()
  await lab.publish(
    'p',
    [
      { name: 'a', version: '1' },
      { name: 'a', version: '2' },
    ],
    { signed: false },
  )
  t.equal((await gap.bundle()).number, 2)
  await gap.deliver()
  await gap.serve()
  const box = lab.box({ keyFiles: { [KEY]: (await gap.fetch('keys/site.asc')).toString() } })
  box.repoFile('p.repo', (await gap.fetch(`gapferry-${gap.group}.repo`)).toString())

  // Past the rule that stamps rise, which `release` keeps: two trees in turn are enough to mix a pair.
  const catalog = new Catalog(join(gap.mirrorDir, 'store/catalog.db'))
  t.teardown(() => catalog.close())
  let switches = 0
  const stop = new AbortController()
  const switching = (async () => {
    for (; !stop.signal.aborted; switches++) {
      const number = 1 + (switches % 2)
      catalog.write(() =>
        catalog.putRelease({ group: gap.group, role: 'current', number, stamps: new Map(), nowMs: Date.now() }),
      )
      await delay(SWITCH_MS)
    }
  })()
  const failures: string[] = []
  const seen = new Set<string>()
  let runs = 0
  for (; runs < RUNS || (seen.size < 2 && runs < MAX_RUNS); runs++) {
    const { status, stdout, stderr } = await box.makecache()
    if (status !== 0) failures.push(stdout + stderr)
    const { stdout: versions } = await box.dnf(['-C', 'repoquery', '--qf', '%{version}', 'a'])
    seen.add(versions.trim().replace(/\s+/g, ' '))
  }
  stop.abort()
  await switching
  t.strictSame(failures, [], `${runs} runs over ${switches} switches`)
  t.ok(switches > 10 * runs, `${switches} switches`)
  t.strictSame([...seen].sort(), ['1', '1 2'], 'both releases were met')
})
