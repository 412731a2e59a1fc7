import { copyFileSync, mkdtempSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { execFileSync } from 'node:child_process'
import { basename, join } from 'node:path'
import t, { type Test } from 'tap'
import { boxTool } from '../../bundler/box/tool.ts'
import { makeGap, snapshot, type Gap } from '../helpers/gap.ts'
import { makeLab } from '../helpers/lab.ts'
import { entriesOf, makeTar } from '../helpers/tar.ts'

/** The largest file of a tree, the tool for boxes, fits into a part, and not much more. */
const PART_SIZE = `${boxTool().length + 40_000}B`

const SPECS = [
  { name: 'a', version: '1', payloadBytes: 3000 },
  { name: 'b', version: '1', payloadBytes: 40_000 },
]

/** Imports what `change` makes of a copy of the part, and expects the refusal and that the mirror is what it was.
 *  @param more  `--dry-run` for damage among the blobs, of which an import would keep the rest */
async function refused(
  t: Test,
  gap: Gap,
  part: string,
  what: string,
  code: RegExp,
  change: (tar: Buffer) => Buffer,
  ...more: string[]
): Promise<void> {
  await refusedFile(t, gap, badCopy(gap, part, change), what, code, ...more)
}

function badCopy(gap: Gap, part: string, change: (tar: Buffer) => Buffer): string {
  const file = join(mkdtempSync(join(gap.dir, 'bad-')), basename(part))
  writeFileSync(file, change(readFileSync(part)))
  return file
}

async function refusedFile(
  t: Test,
  gap: Gap,
  file: string,
  what: string,
  code: RegExp,
  ...more: string[]
): Promise<void> {
  const store = join(gap.mirrorDir, 'store')
  const before = blobsOf(store)
  const { status, stdout, stderr } = await gap.mirror('import', file, '--json', ...more)
  t.equal(status, 3, `${what}: exit status 3`)
  const { error } = JSON.parse(stdout) as { error: { code: string } }
  t.match(error.code, code, `${what}: ${error.code}`)
  t.match(stderr, new RegExp(error.code), `${what}: said to the person too`)
  t.strictSame(blobsOf(store), before, `${what}: no trace in the store`)
  t.strictSame(readdirSync(join(store, 'staging')), [], `${what}: nothing in staging`)
}

function blobsOf(store: string): string[] {
  return [...snapshot(join(store, 'blobs')).keys()]
}

const flip = (at: number) => (tar: Buffer) => {
  const bad = Buffer.from(tar)
  bad[at] = bad[at]! ^ 1
  return bad
}

t.test('what is not exactly the signed bundle is refused, and leaves nothing behind', async (t) => {
  const lab = await makeLab(t)
  await lab.publish('p', SPECS, { signed: false })
  const yum = `yum:\n  - { id: p, baseurl: ['${lab.url}/p/'] }`
  const gap = await makeGap(t, lab.folder('gap'), yum)
  const [part] = (await gap.bundle()).files
  const entries = entriesOf(part!)
  const tarOf = (bytes: Buffer, skip?: string) =>
    entriesOf(bytes)
      .filter((entry) => entry.name !== skip)
      .map(({ name, bytesAt, bytes: length }) => ({ name, bytes: bytes.subarray(bytesAt, bytesAt + length) }))

  t.test('a flipped bit in every metadata file, tree and blob', async (t) => {
    for (const { name, headerAt, bytesAt, bytes } of entries) {
      // Roots up to the pinned one are never read, and part.json is only believed in messages.
      if (name.endsWith('.root.json') || name === 'part.json') continue
      const middle = bytesAt + Math.floor(bytes / 2)
      const dry = name.startsWith('blobs/') ? ['--dry-run'] : []
      await refused(t, gap, part!, name, /^(ROLE|BUNDLE|BLOB|TREE|SITE|DIGEST)_/, flip(middle), ...dry)
      await refused(t, gap, part!, `header of ${name}`, /^BUNDLE_/, flip(headerAt + 100), ...dry)
    }
  })

  t.test('truncated, trailing, compressed', async (t) => {
    const tar = readFileSync(part!)
    const last = entries.at(-1)!
    for (const [what, bytes] of [
      ['cut in a blob', last.bytesAt + 10],
      ['cut before the end marks', tar.length - 1024],
    ] as const) {
      await refused(t, gap, part!, what, /^BUNDLE_TRUNCATED$/, () => tar.subarray(0, bytes), '--dry-run')
    }
    await refused(t, gap, part!, 'empty', /^BUNDLE_/, () => Buffer.alloc(0))
    await refused(t, gap, part!, 'a byte more', /^BUNDLE_TRAILING$/, (tar) => Buffer.concat([tar, Buffer.from('x')]))
    await refused(t, gap, part!, 'a second archive', /^BUNDLE_TRAILING$/, (tar) => Buffer.concat([tar, tar]))
    await refused(t, gap, part!, 'compressed', /^BUNDLE_/, (tar) => execFileSync('gzip', ['-c'], { input: tar }))
  })

  t.test('of a damaged part the rest is kept; the damage is named, and nothing of it is served', async (t) => {
    const { name, bytesAt } = entries.findLast((entry) => entry.name.startsWith('blobs/'))!
    const file = badCopy(gap, part!, flip(bytesAt))
    const { status, stdout, stderr } = await gap.mirror('import', '--release', file, '--json')
    t.equal(status, 3)
    const told = JSON.parse(stdout) as { error: { code: string }; damaged: { sha256: string }[]; missing: object[] }
    t.match(told, { error: { code: 'BLOB_DIGEST_MISMATCH' }, damaged: [{ sha256: name.slice(6) }], missing: [{}] })
    t.match(stderr, /gapferry pack --repair/)
    const blobs = blobsOf(join(gap.mirrorDir, 'store'))
    t.ok(blobs.length > 3)
    t.notOk(blobs.some((blob) => blob.endsWith(name.slice(6))))
    t.match(await gap.mirror('release'), { status: 4, stderr: /RELEASE_INCOMPLETE/ })
  })

  t.test('traversal, links and names that nobody signed', async (t) => {
    const evil = (name: string, header?: (block: Buffer) => void) => (tar: Buffer) =>
      makeTar([...tarOf(tar), { name, bytes: Buffer.from('x'), ...(header === undefined ? {} : { header }) }])
    await refused(t, gap, part!, 'traversal', /^BUNDLE_ENTRY_UNKNOWN$/, evil('../../../etc/cron.d/x'))
    await refused(t, gap, part!, 'absolute', /^BUNDLE_ENTRY_UNKNOWN$/, evil('/etc/passwd'))
    await refused(t, gap, part!, 'unnamed blob', /^BUNDLE_ENTRY_UNKNOWN$/, evil(`blobs/${'f'.repeat(64)}`))
    for (const type of '12345679xgLKS') {
      await refused(
        t,
        gap,
        part!,
        `type ${type}`,
        /^BUNDLE_/,
        evil(`blobs/${'f'.repeat(64)}`, (block) => block.write(type, 156, 'latin1')),
      )
    }
    const [first] = tarOf(readFileSync(part!))
    await refused(t, gap, part!, 'twice', /^BUNDLE_/, (tar) => makeTar([first!, ...tarOf(tar)]))
    const link = join(gap.dir, 'link.tar')
    symlinkSync(part!, link)
    await refusedFile(t, gap, link, 'a symbolic link', /^BUNDLE_NOT_REGULAR$/)
    const fifo = join(gap.dir, 'fifo.tar')
    execFileSync('mkfifo', [fifo])
    await refusedFile(t, gap, fifo, 'a pipe', /^BUNDLE_NOT_REGULAR$/)
  })

  t.test('another site’s and another key’s', async (t) => {
    const other = await makeGap(t, lab.folder('other'), yum, { site: 'other' })
    await refusedFile(t, gap, (await other.bundle()).files[0]!, 'another site', /^(SITE_MISMATCH|ROLE_SIGNATURE)$/)
    const thief = await makeGap(t, lab.folder('thief'), yum)
    await refusedFile(t, gap, (await thief.bundle()).files[0]!, 'another key', /^ROLE_SIGNATURE$/)
  })

  t.test('an older one, once a newer was imported', async (t) => {
    const old = join(gap.dir, basename(part!))
    copyFileSync(part!, old)
    const newer = await gap.bundle('--renew')
    t.equal(newer.number, 2)
    await gap.deliver()
    await refusedFile(t, gap, old, 'older', /^ROLE_ROLLBACK$/)
    const again = await gap.mirror('import', newer.files[0]!, '--json')
    t.equal(again.status, 0, 'the same again is harmless')
  })
})

t.test('a missing part is named, what came is kept, and the rest completes it', async (t) => {
  const lab = await makeLab(t)
  await lab.publish('p', SPECS, { signed: false })
  const gap = await makeGap(t, lab.folder('gap'), `yum:\n  - { id: p, baseurl: ['${lab.url}/p/'] }`)
  const { files } = await gap.bundle('--part-size', PART_SIZE)
  t.ok(files.length > 1, `${files.length} parts`)
  const stick = snapshot(gap.stickDir)
  const [first, ...rest] = files
  const partial = await gap.mirror('import', first!, '--json')
  t.equal(partial.status, 4)
  const { error } = JSON.parse(partial.stdout.trimEnd().split('\n').at(-1)!) as { error: { code: string } }
  t.equal(error.code, 'BUNDLE_INCOMPLETE')
  t.match(partial.stderr, /-2of\d+\.tar/, 'names the part that is missing')
  t.equal((await gap.mirror('release')).status, 4, 'cannot be released')
  const dry = await gap.mirror('import', '--dry-run', ...rest)
  t.equal(dry.status, 0, dry.stderr)
  t.equal((await gap.mirror('release')).status, 4, 'a dry run keeps nothing')
  t.equal((await gap.mirror('import', ...rest.reverse(), '--release')).status, 0, 'any order')
  t.strictSame(snapshot(gap.stickDir), stick, 'the stick is as it was')
  for (const file of files) t.equal((await gap.gapferry('verify', ...files)).status, 0, file)
  const alone = await gap.gapferry('verify', first!)
  t.equal(alone.status, 4, 'a part alone is genuine and incomplete')
})
