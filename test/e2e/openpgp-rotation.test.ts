import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { withGpgHome } from '../helpers/gpg.ts'
import { makeGap } from '../helpers/gap.ts'
import { makeLab } from '../helpers/lab.ts'
import { mustRun, report } from '../helpers/process.ts'

const KEY = '/etc/pki/rpm-gpg/RPM-GPG-KEY-gapferry'
const version = (number: number) => ({ name: 'asterisk', version: `18.${number}`, payloadBytes: 1000 })

t.test(
  'a new OpenPGP key: published first, then it signs; real dnf goes on where the box took it beforehand',
  async (t) => {
    const lab = await makeLab(t)
    const publish = (...numbers: number[]) => lab.publish('p', numbers.map(version), { signed: false })
    const { url } = await publish(1)
    const gap = await makeGap(t, lab.folder('gap'), `yum:\n  - { id: p, baseurl: ['${url}/'] }`)
    const siteKey = async () => (await gap.fetch('keys/site.asc')).toString()
    const deliver = async (...numbers: number[]) => {
      await publish(...numbers)
      await gap.bundle()
      await gap.deliver()
    }
    await deliver(1)
    await gap.serve()
    const oldKey = await siteKey()
    const boxes = [lab.box({ keyFiles: { [KEY]: oldKey } }), lab.box({ keyFiles: { [KEY]: oldKey } })] as const
    const [late, early] = boxes
    for (const box of boxes) {
      box.repoFile('p.repo', (await gap.fetch(`gapferry-${gap.group}.repo`)).toString())
      t.equal((await box.makecache()).status, 0)
      t.equal((await box.install('asterisk')).status, 0)
    }

    const announced = await gap.gapferry('keys', 'rotate', 'openpgp')
    t.equal(announced.status, 0, report(announced))
    const [, waiting] = /^ {2}waiting +((?:[0-9A-F]{4} +){9}[0-9A-F]{4})$/m.exec(announced.stdout)!
    t.match(announced.stdout, `curl -o ${KEY} ${gap.origin}/keys/site.asc`)
    await deliver(1, 2)
    const both = await siteKey()
    t.equal(both.match(/BEGIN PGP PUBLIC KEY BLOCK/g)?.length, 2)
    t.ok(both.startsWith(oldKey))
    await knownToGpgAndRpm(t, lab.folder('tools'), both, waiting!)
    for (const box of boxes) t.equal((await box.upgrade()).status, 0, 'the old key goes on signing')
    early.keyFile(KEY, both)

    const used = await gap.gapferry('keys', 'rotate', 'openpgp', '--now')
    t.equal(used.status, 0, report(used))
    t.notMatch(used.stderr, /warning/, 'a bundle brought the key before')
    await deliver(1, 2, 3)
    const upgraded = await early.upgrade()
    t.equal(upgraded.status, 0, report(upgraded))
    t.strictSame(await early.installed(), ['asterisk-18.3-1.noarch'])
    const refused = await late.upgrade()
    t.not(refused.status, 0)
    t.match(report(refused), /repomd\.xml GPG signature verification error: Bad GPG signature/)
    t.strictSame(await late.installed(), ['asterisk-18.2-1.noarch'], 'nothing was changed')
    late.keyFile(KEY, await siteKey())
    t.equal((await late.upgrade()).status, 0, 'what the manual says mends it')
    t.strictSame(await late.installed(), ['asterisk-18.3-1.noarch'])

    const rolledBack = await gap.mirror('rollback')
    t.equal(rolledBack.status, 0, report(rolledBack))
    for (const box of boxes) t.equal((await box.makecache()).status, 0, 'the way back is signed by the new key, too')
    t.equal((await gap.gapferry('keys', 'rotate', 'openpgp', '--remove', oldFingerprint(used.stdout))).status, 0)
    await deliver(1, 2, 3, 4)
    t.equal((await siteKey()).match(/BEGIN PGP PUBLIC KEY BLOCK/g)?.length, 1)
    for (const box of boxes) t.equal((await box.upgrade()).status, 0)
  },
)

/** Both read every key of the file; gpg shows the fingerprint that gapferry shows. */
async function knownToGpgAndRpm(t: Test, dir: string, siteKey: string, waiting: string): Promise<void> {
  const file = join(dir, 'site.asc')
  writeFileSync(file, siteKey)
  mkdirSync(join(dir, 'db'))
  await mustRun('rpm', ['--dbpath', join(dir, 'db'), '--import', file])
  const { stdout } = await mustRun('rpm', ['--dbpath', join(dir, 'db'), '-q', 'gpg-pubkey'])
  t.equal(stdout.trim().split('\n').length, 2, 'rpm --import takes both')
  t.match(stdout, `gpg-pubkey-${waiting.replaceAll(' ', '').slice(-8).toLowerCase()}-`)
  await withGpgHome([], async (gpg) => {
    t.match((await gpg('--with-fingerprint', '--show-keys', file)).stdout, waiting)
  })
}

function oldFingerprint(text: string): string {
  return /^ {2}retired +([0-9A-F]{4} [0-9A-F]{4})/m.exec(text)![1]!
}
