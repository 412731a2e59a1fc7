import { cpSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { boxTool } from '../../bundler/box/tool.ts'
import { loadFleet } from '../../bundler/config.ts'
import { fingerprintWords } from '../../manifests/words.ts'
import { makeGap } from '../helpers/gap.ts'
import { only } from '../helpers/key-lab.ts'
import { makeLab } from '../helpers/lab.ts'
import { report } from '../helpers/process.ts'

/** The largest file of a tree, the tool for boxes, fits into a part, and not much more. */
const PART_SIZE = `${boxTool().length + 40_000}B`

const KEY = '/etc/pki/rpm-gpg/RPM-GPG-KEY-gapferry'
const version = (number: number) => ({ name: 'asterisk', version: `18.${number}`, payloadBytes: 60_000 })

t.test('the laptop is lost: a bundle and the root key are enough, and real dnf goes on', async (t) => {
  const lab = await makeLab(t)
  const publish = (...numbers: number[]) => lab.publish('p', numbers.map(version), { signed: false })
  const { url } = await publish(1)
  const gap = await makeGap(t, lab.folder('gap'), `yum:\n  - { id: p, baseurl: ['${url}/'] }`)
  const words = fingerprintWords(readFileSync(gap.rootFile))
  const safe = lab.folder('safe')
  const rootKey = join(safe, 'root.key')
  renameSync(only(join(gap.laptopDir, 'keys/hq'), /^root-/), rootKey)

  await gap.bundle()
  await gap.deliver()
  await gap.serve()
  const box = lab.box({ keyFiles: { [KEY]: (await gap.fetch('keys/site.asc')).toString() } })
  box.repoFile('p.repo', (await gap.fetch(`gapferry-${gap.group}.repo`)).toString())
  t.equal((await box.makecache()).status, 0)
  t.equal((await box.install('asterisk-18.1-1')).status, 0)

  await publish(1, 2)
  const { files, number } = await gap.bundle('--part-size', PART_SIZE)
  t.equal(number, 2)
  t.ok(files.length > 1, 'a bundle of several parts')
  const found = lab.folder('found')
  for (const file of files) cpSync(file, join(found, file.split('/').at(-1)!))
  await gap.deliver()
  t.equal((await gap.bundle('--renew')).number, 3, 'made after the stick that is left')
  await gap.deliver()

  // Lost: everything but the root key, one stick, and the words on paper.
  rmSync(gap.laptopDir, { recursive: true })
  mkdirSync(gap.laptopDir)
  const from = ['init', '.', '--from', found, '--no-passphrase']
  const unasked = await gap.gapferry(...from, '--root-key', rootKey)
  t.equal(unasked.status, 2)
  t.match(unasked.stderr, /ROOT_NOT_CONFIRMED/)
  t.match(unasked.stderr, words, 'shows the words to compare')
  const wrong = await gap.gapferry(
    ...from,
    '--root-key',
    rootKey,
    '--fingerprint',
    fingerprintWords(Buffer.from('other')),
  )
  t.match(wrong.stderr, /ROOT_FINGERPRINT/)
  t.strictSame(readdirSync(gap.laptopDir), [], 'nothing was made')
  const again = await gap.gapferry(...from, '--root-key', rootKey, '--fingerprint', words, '--number-above', '3')
  t.equal(again.status, 0, report(again))
  t.match(again.stdout, /site hq is set up again from bundle 2/)
  t.match(again.stdout, /next bundle +4;/)
  t.match(again.stdout, /the OpenPGP key is new. Before they update/)
  t.equal(statSync(join(gap.laptopDir, 'keys/hq')).mode & 0o777, 0o700)
  t.match(loadFleet(join(gap.laptopDir, 'gapferry.yaml')).sites, [
    { name: 'hq', groups: [{ name: gap.group, origin: gap.origin, yum: [{ id: 'p', baseurl: [`${url}/`] }] }] },
  ])
  t.match(readFileSync(join(gap.laptopDir, 'gapferry.yaml'), 'utf8'), /fill in include, exclude and newest/)
  t.match((await gap.gapferry(...from, '--yes')).stderr, /KEY_EXISTS/)

  await publish(1, 2, 3)
  t.equal((await gap.bundle()).number, 4)
  await gap.deliver()
  const refused = await box.upgrade()
  t.not(refused.status, 0, 'a box does not take a key that nobody gave it')
  box.keyFile(KEY, (await gap.fetch('keys/site.asc')).toString())
  const upgraded = await box.upgrade()
  t.equal(upgraded.status, 0, report(upgraded))
  t.strictSame(await box.installed(), ['asterisk-18.3-1.noarch'])

  // The stick's blobs were kept: the way back leads to what it had.
  const back = await gap.mirror('rollback')
  t.equal(back.status, 0, report(back))
  t.equal((await box.makecache()).status, 0)
  const { stdout } = await box.dnf(['-C', 'repoquery', '--qf', '%{version}', 'asterisk'])
  t.strictSame(stdout.split(/\s+/).filter(Boolean).sort(), ['18.1', '18.2'])
})
