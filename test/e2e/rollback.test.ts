import t from 'tap'
import { boxTool } from '../../bundler/box/tool.ts'
import { newestTimestamp, parseRepomd } from '../../manifests/repomd.ts'
import { makeGap } from '../helpers/gap.ts'
import { makeLab } from '../helpers/lab.ts'

/** The largest file of a tree, the tool for boxes, fits into a part, and not much more. */
const PART_SIZE = `${boxTool().length + 40_000}B`

const KEY = '/etc/pki/rpm-gpg/RPM-GPG-KEY-gapferry'
const version = (number: number) => ({ name: 'asterisk', version: `18.${number}` })

t.test('going back one bundle and returning: real dnf takes each step without clean', async (t) => {
  const lab = await makeLab(t)
  const publish = (...numbers: number[]) => lab.publish('p', numbers.map(version), { signed: false })
  const { url } = await publish(1)
  const gap = await makeGap(t, lab.folder('gap'), `yum:\n  - { id: p, baseurl: ['${url}/'] }`)
  await gap.bundle()
  await gap.deliver()
  await gap.serve()
  const box = lab.box({ keyFiles: { [KEY]: (await gap.fetch('keys/site.asc')).toString() } })
  box.repoFile('p.repo', (await gap.fetch(`gapferry-${gap.group}.repo`)).toString())

  let highest = 0
  /** dnf takes what is served now, and yum's rule holds: newer than everything before. */
  const offers = async (numbers: number[], step: string): Promise<void> => {
    const made = await box.makecache()
    t.equal(made.status, 0, `${step}: ${made.stderr}`)
    const { stdout } = await box.dnf(['-C', 'repoquery', '--qf', '%{version}', 'asterisk'])
    t.strictSame(
      stdout.split(/\s+/).filter(Boolean).sort(),
      numbers.map((n) => `18.${n}`),
      step,
    )
    const stamp = newestTimestamp(parseRepomd(await gap.fetch('yum/p/repodata/repomd.xml'), 'repomd.xml'))
    t.ok(stamp > highest, `${step}: ${stamp} > ${highest}`)
    highest = stamp
  }
  const status = async (): Promise<{ role: string; rollback: { isPossible: boolean; reason?: string } }> => {
    const { stdout } = await gap.mirror('status', '--json')
    return (JSON.parse(stdout) as { origins: [Awaited<ReturnType<typeof status>>] }).origins[0]
  }

  await offers([1], 'bundle 1')
  t.match(await status(), { role: 'current', rollback: { isPossible: false, reason: /first/ } })
  const first = await gap.mirror('rollback')
  t.equal(first.status, 4)
  t.match(first.stderr, /RELEASE_NOTHING/)

  await publish(1, 2)
  await gap.bundle()
  await gap.deliver()
  await offers([1, 2], 'bundle 2')
  t.match(await status(), { rollback: { isPossible: true } })
  t.match((await gap.mirror('rollback', '--return')).stderr, /was not rolled back/)
  t.equal((await gap.mirror('rollback')).status, 0)
  await offers([1], 'rolled back')
  t.match(await status(), { role: 'previous', rollback: { isPossible: false } })
  t.equal((await gap.mirror('rollback')).status, 0, 'again is harmless')
  const again = await gap.mirror('release', '2')
  t.equal(again.status, 3)
  t.match(again.stderr, /RELEASE_STAMP.*\n *next: gapferry-mirror rollback --return/)
  t.equal((await gap.mirror('rollback', '--return')).status, 0)
  await offers([1, 2], 'returned')
  const twice = await gap.mirror('rollback')
  t.equal(twice.status, 3, 'once each per bundle')
  t.match(twice.stderr, /RELEASE_STAMP/)
  t.match(await status(), { role: 'return', rollback: { isPossible: false } })

  await publish(1, 2, 3)
  await gap.bundle()
  await gap.deliver()
  await offers([1, 2, 3], 'bundle 3')
  t.match(await status(), { role: 'current', rollback: { isPossible: true } })
})

t.test('a mirror that skipped a bundle can go back to it all the same', async (t) => {
  const lab = await makeLab(t)
  const publish = (...numbers: number[]) => lab.publish('p', numbers.map(version), { signed: false })
  const { url } = await publish(1)
  const gap = await makeGap(t, lab.folder('gap'), `yum:\n  - { id: p, baseurl: ['${url}/'], newest: 1 }`)
  await gap.bundle()
  await gap.deliver()
  await publish(2)
  await gap.bundle()
  await publish(3)
  const { files } = await gap.bundle('--part-size', PART_SIZE)
  await gap.deliver(...files)
  // Bundle 3 carries what bundle 2 had as its previous tree.
  t.equal((await gap.mirror('rollback')).status, 0)
})
