import { readdirSync, statSync } from 'node:fs'
import { join, resolve } from 'node:path'
import t from 'tap'
import { makeLab } from './lab.ts'
import { serveSample } from './sample-upstream.ts'

const SAMPLE = resolve(import.meta.dirname, '../sample')
const OLD = ['sangoma-pbx-2302', 'asterisk18-18.9.0', 'asterisk18-core-18.9.0', 'asterisk18-voicemail-18.9.0']

t.test('a box in an old state finds the sample by its mirrorlists and upgrades to its newest versions', async (t) => {
  const lab = await makeLab(t)
  const sample = await serveSample()
  t.teardown(() => sample.close())
  const repoFile = ['sng7', 'updates'].map((repo) => {
    const mirrorlist = `${sample.url}/?release=$releasever&arch=$basearch&repo=${repo}&dist=$dist`
    return `[sng-${repo}]\nname=sng-${repo}\nmirrorlist=${mirrorlist}\ngpgcheck=0\nrepo_gpgcheck=0\n`
  })
  const box = lab.box({ repoFiles: { 'Sangoma-Base.repo': repoFile.join('') } })
  const installed = await box.install(
    ...OLD,
    'openssl-libs-1:1.0.2k-21.el7_9',
    'sysadmin-16.0.19',
    'kernel-3.10.0-1160.88.1.el7',
  )
  t.equal(installed.status, 0, installed.stderr)
  const upgraded = await box.upgrade()
  t.equal(upgraded.status, 0, upgraded.stderr)
  t.same(await box.pending(), [])
  const now = await box.installed()
  for (const nevra of [
    'asterisk18-18.20.2-1.sng7.x86_64',
    'openssl-libs-1:1.0.2k-26.el7_9.x86_64',
    'sangoma-pbx-2402-1.sng7.noarch',
  ]) {
    t.ok(now.includes(nevra), nevra)
  }
  t.equal(now.filter((name) => name.startsWith('kernel-')).length, 2, 'kernels stand side by side')
})

t.test('a repository the vendor does not have gets an empty list, a file it does not have is not found', async (t) => {
  const sample = await serveSample()
  t.teardown(() => sample.close())
  const answer = await fetch(`${sample.url}/?release=7&arch=x86_64&repo=epel`)
  t.equal(answer.status, 200)
  t.equal(await answer.text(), '')
  t.equal((await fetch(`${sample.url}/%2e%2e/helpers/lab.ts`)).status, 404)
  t.equal((await fetch(`${sample.url}/firmware/phone-x.bin`)).headers.get('content-length'), '4096')
})

t.test('the sample stays small', (t) => {
  const entries = readdirSync(SAMPLE, { recursive: true, encoding: 'utf8' }).map((name) => statSync(join(SAMPLE, name)))
  const bytes = entries.filter((entry) => entry.isFile()).reduce((sum, entry) => sum + entry.size, 0)
  t.ok(bytes > 100_000 && bytes < 1_000_000, `${bytes} bytes`)
  t.end()
})
