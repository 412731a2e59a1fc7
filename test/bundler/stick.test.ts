import { symlinkSync, truncateSync, writeFileSync } from 'node:fs'
import { statfsSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { checkLimits, checkSpace, checkStick, explainMedium, unmountedPlace } from '../../bundler/stick.ts'
import { isGapferryError } from '../../manifests/errors.ts'

/** As proc(5) and fstab(5) show them. */
const row = (place: string, type = 'ext4'): string => `42 27 0:39 / ${place} rw,relatime shared:1 - ${type} /dev/x rw\n`
const ROOT = row('/')

t.test('a place where something should be mounted, and is not', (t) => {
  const fstab =
    '# /dev/sdz1 /opt/no\nUUID=1 / ext4 defaults 0 1\nUUID=2 none swap sw\nLABEL=HQ /stick\\040one vfat noauto,user 0 0\n'
  const cases: [what: string, path: string, mountinfo: string, expected: string | undefined][] = [
    ['in fstab, not mounted', '/stick one', ROOT, '/stick one'],
    ['below it', '/stick one/out', ROOT, '/stick one'],
    ['mounted', '/stick one', ROOT + row('/stick\\040one'), undefined],
    ['a neighbour', '/stick one more', ROOT, undefined],
    ['a comment', '/opt/no', ROOT, undefined],
    ['anywhere else', '/home/anna/out', ROOT, undefined],
    ['a desktop’s folder, nothing mounted', '/media/anna/HQ', ROOT, '/media/anna/HQ'],
    ['the same, mounted', '/media/anna/HQ', ROOT + row('/media/anna/HQ', 'vfat'), undefined],
    ['below what is mounted', '/media/anna/HQ/out', ROOT + row('/media/anna/HQ', 'vfat'), undefined],
    ['another stick', '/media/anna/HQ', ROOT + row('/media/anna/LAB', 'vfat'), '/media/anna/HQ'],
    ['/run/media', '/run/media/anna/HQ', ROOT + row('/run'), '/run/media/anna/HQ'],
    ['/mnt itself', '/mnt', ROOT, '/mnt'],
    ['/mnt itself, mounted', '/mnt', ROOT + row('/mnt'), undefined],
    ['a name that begins alike', '/mnt2/out', ROOT, undefined],
  ]
  for (const [what, path, mountinfo, expected] of cases)
    t.equal(unmountedPlace(path, { mountinfo, fstab }), expected, what)
  t.equal(unmountedPlace('/home', { mountinfo: '', fstab: '' }), undefined, 'where no table tells')
  t.end()
})

t.test('the folder must be there, be mounted where it should be, and may be a link to that', (t) => {
  const dir = t.testdir({ stick: {}, file: '' })
  const tables = { mountinfo: ROOT, fstab: `LABEL=HQ ${dir}/stick vfat noauto 0 0\n` }
  symlinkSync(join(dir, 'stick'), join(dir, 'link'))
  for (const name of ['none', 'file']) {
    t.throws(() => checkStick(join(dir, name), { tables }), { code: 'MEDIUM_UNUSABLE', hint: /mount the stick/ })
  }
  for (const name of ['stick', 'link']) {
    t.throws(() => checkStick(join(dir, name), { tables }), { code: 'MEDIUM_UNUSABLE', hint: /--unmounted/ })
    checkStick(join(dir, name), { tables, isUnmounted: true })
    checkStick(join(dir, name), { tables: { ...tables, mountinfo: ROOT + row(`${dir}/stick`) } })
  }
  t.end()
})

t.test('what the system says of a bad stick has a next step; anything else stays what it is', (t) => {
  for (const code of ['EROFS', 'EACCES', 'EIO', 'ENODEV']) {
    const error = explainMedium('/stick', Object.assign(new Error(code), { code }))
    t.ok(isGapferryError(error, 'MEDIUM_UNUSABLE') && error.message.includes(code) && error.hint !== undefined, code)
  }
  const other = new Error('other')
  t.equal(explainMedium('/stick', other), other)
  t.end()
})

t.test('FAT takes no file of 4 GiB; the part size that fits is said', (t) => {
  const dir = t.testdir()
  const file = (bytes: number) => [{ name: 'hq-7.tar', bytes }]
  for (const type of ['vfat', 'msdos', 'fuse.fusefat']) {
    const mounts = ROOT + row(dir, type)
    t.throws(() => checkLimits(dir, 'hq', file(2 ** 32), mounts), {
      code: 'SPACE_SHORT',
      message: /hq-7\.tar has 4294967296/,
      hint: 'add --part-size 4200MB',
    })
    checkLimits(dir, 'hq', file(2 ** 32 - 1), mounts)
    t.ok(4_200_000_000 <= 2 ** 32 - 1)
  }
  for (const type of ['ext4', 'exfat', 'fuseblk', 'ntfs3']) checkLimits(dir, 'hq', file(2 ** 40), ROOT + row(dir, type))
  t.end()
})

t.test('a site that is a device of Windows is no folder there', (t) => {
  const dir = t.testdir()
  for (const site of ['con', 'aux.x', 'com1', 'lpt9']) {
    t.throws(() => checkLimits(dir, site, [], row(dir, 'exfat')), {
      code: 'MEDIUM_UNUSABLE',
      message: new RegExp(site),
    })
    checkLimits(dir, site, [], row(dir, 'ext4'))
  }
  for (const site of ['console', 'com', 'hq', 'aux1']) checkLimits(dir, site, [], row(dir, 'vfat'))
  t.end()
})

t.test('without room it is said how much is missing, and what would make it', (t) => {
  const dir = t.testdir()
  const about = { site: 'hq', number: 7 }
  const { bavail, bsize } = statfsSync(dir)
  const free = bavail * bsize
  checkSpace(dir, free / 2, about)
  t.throws(() => checkSpace(dir, free + 10e9, about), {
    code: 'SPACE_SHORT',
    message: /to write, .* free, 10\.\d GB too little/,
    hint: /--part-size \d+MB/,
  })
  for (const [name, bytes] of [
    ['hq-5.tar', 9e9],
    ['hq-6-1of2.tar', 9e9],
    ['hq-6-2of2.tar', 9e9],
    ['hq-8.tar', 90e9],
    ['lab-1.tar', 90e9],
  ] as const) {
    writeFileSync(join(dir, name), '')
    truncateSync(join(dir, name), bytes)
  }
  const hint = /^remove hq-5\.tar, hq-6-1of2\.tar of older bundles \(18\.0 GB\)/
  t.throws(() => checkSpace(dir, free + 10e9, about), { code: 'SPACE_SHORT', hint })
  t.throws(() => checkSpace(dir, free + 90e9, about), { code: 'SPACE_SHORT', hint: /^use a stick with/ })
  t.end()
})
