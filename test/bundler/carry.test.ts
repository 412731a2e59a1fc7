import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { gunzipSync, gzipSync } from 'node:zlib'
import t, { type Test } from 'tap'
import { runGapferry } from '../../bundler/program.ts'
import { sha256Of } from '../../manifests/digest.ts'
import { dataOfType, parseRepomd, writeRepomd } from '../../manifests/repomd.ts'
import { inside } from '../helpers/inside.ts'
import { makeLab, type Lab } from '../helpers/lab.ts'
import type { Outcome } from '../helpers/process.ts'

/** Changes the text of a published repository's primary, with a repomd.xml that agrees: a vendor who is consistently wrong. */
function editPrimary(dir: string, edit: (text: string) => string): void {
  const repomdFile = join(dir, 'repodata/repomd.xml')
  const repomd = parseRepomd(readFileSync(repomdFile), 'repomd.xml')
  const primary = dataOfType(repomd, 'primary')!
  const open = Buffer.from(edit(gunzipSync(readFileSync(join(dir, primary.href))).toString()))
  const bytes = gzipSync(open)
  writeFileSync(join(dir, primary.href), bytes)
  primary.checksum = { algorithm: 'sha256', hex: sha256Of(bytes) }
  primary.openChecksum = { algorithm: 'sha256', hex: sha256Of(open) }
  primary.bytes = bytes.length
  primary.openBytes = open.length
  writeFileSync(repomdFile, writeRepomd(repomd))
}

async function laptop(lab: Lab, path: string): Promise<(...args: string[]) => Promise<Outcome>> {
  const dir = lab.folder('laptop')
  const yum = `          - { id: p, baseurl: ['${lab.url}/${path}/'] }`
  const group = `      - name: a\n        origin: http://m.lan\n        yum:\n${yum}`
  writeFileSync(
    join(dir, 'gapferry.yaml'),
    `apiVersion: gapferry/v1\nkind: Fleet\nsites:\n  - name: hq\n    groups:\n${group}\n`,
  )
  const gapferry = (...args: string[]): Promise<Outcome> => inside(runGapferry, dir, args)
  await gapferry('init', '--no-passphrase')
  return gapferry
}

function refused(t: Test, outcome: Outcome, status: number, code: string, message: RegExp): void {
  t.equal(outcome.status, status, outcome.stderr)
  t.match(outcome.stderr, code)
  t.match(outcome.stderr, message)
}

t.test('an RPM whose own header is another package than the metadata says is refused', async (t) => {
  for (const [field, from, to] of [
    ['name', '<name>a</name>', '<name>b</name>'],
    ['version', 'ver="1"', 'ver="2"'],
    ['epoch', 'epoch="0"', 'epoch="5"'],
    ['release', 'rel="1"', 'rel="9"'],
    ['arch', '<arch>noarch</arch>', '<arch>x86_64</arch>'],
  ] as const) {
    const lab = await makeLab(t)
    const { dir } = await lab.publish('p', [{ name: 'a', version: '1' }], { signed: false })
    editPrimary(dir, (text) => text.replace(from, to))
    for (const name of readdirSync(join(dir, 'repodata'))) {
      // The other lists name the package, too.
      if (!/-(filelists|other)\.xml\.gz$/.test(name)) continue
      t.match(gunzipSync(readFileSync(join(dir, 'repodata', name))).toString(), 'name="a"')
    }
    const gapferry = await laptop(lab, 'p')
    refused(t, await gapferry('pull'), 3, 'RPM_MISMATCH', new RegExp(`says another ${field}: expected`))
    refused(t, await gapferry('pack', '--to', '.'), 4, 'PLAN_UNFETCHED', /gapferry pull/)
  }
})

t.test('a package that is not what its checksum says is refused, and the rest is kept', async (t) => {
  const lab = await makeLab(t)
  const { dir } = await lab.publish(
    'p',
    [
      { name: 'a', version: '1' },
      { name: 'b', version: '1' },
    ],
    { signed: false },
  )
  const file = join(dir, 'b-1-1.noarch.rpm')
  const good = readFileSync(file)
  writeFileSync(file, Buffer.concat([good.subarray(0, good.length - 1), Buffer.from([good.at(-1)! ^ 1])]))
  const gapferry = await laptop(lab, 'p')
  refused(t, await gapferry('pull'), 3, 'FETCH_DIGEST_MISMATCH', /b-1-1\.noarch/)
  writeFileSync(file, good)
  const pull = await gapferry('pull', '--json')
  t.match(JSON.parse(pull.stdout), { fetched: { count: 1 }, here: { count: 1 } }, 'the other was not fetched twice')
})

t.test('whether an upstream signed a package stands in the bundle for everyone to see', async (t) => {
  const verdicts: Record<string, string> = {}
  for (const signed of [true, false]) {
    const lab = await makeLab(t)
    const path = signed ? 'signed' : 'unsigned'
    await lab.publish(path, [{ name: 'a', version: '1' }], { signed })
    const gapferry = await laptop(lab, path)
    const { stdout, stderr } = await gapferry('bundle', '--to', '.', '--json')
    t.notMatch(stderr, '[', stderr)
    const [bundle] = (JSON.parse(stdout) as { bundles: { files: { path: string }[] }[] }).bundles
    const shown = await gapferry('inspect', bundle!.files[0]!.path)
    verdicts[path] = /a-1-1\.noarch\.rpm.*/.exec(shown.stdout)?.[0] ?? shown.stderr
  }
  t.match(verdicts['signed'], /\bunchecked\b/)
  t.match(verdicts['unsigned'], /\bunsigned\b/)
})
