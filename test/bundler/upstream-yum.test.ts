import { createHash } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { gunzipSync, gzipSync } from 'node:zlib'
import t, { type Test } from 'tap'
import { Fetcher, makeDispatcher } from '../../bundler/fetch.ts'
import { verifySignature } from '../../bundler/keys/openpgp.ts'
import { lookYum, type YumContext, type YumRepoConfig, type YumUpstream } from '../../bundler/upstream-yum.ts'
import { BlobStore } from '../../storage/blobs.ts'
import { Ledger } from '../../storage/ledger.ts'
import { gpgKey } from '../helpers/gpg.ts'
import { buildRpms, makeRepository, type RepositoryOptions } from '../helpers/rpms.ts'
import { startUpstream, type Upstream } from '../helpers/upstream.ts'
import { rowsOf } from '../helpers/tables.ts'

const dispatcher = makeDispatcher()
t.teardown(() => dispatcher.destroy())
const fetcher = new Fetcher({ dispatcher, userAgent: 'gapferry/0.0.0', retries: 2, wait: async () => {} })
const rpms = await buildRpms([
  { name: 'alpha', version: '1.0', arch: 'x86_64', files: { '/usr/bin/alpha': 'a', '/usr/share/alpha/data': 'b' } },
  { name: 'alpha', version: '1.1', arch: 'x86_64' },
  { name: 'beta', epoch: 2, version: '0.9~rc1', requires: ['alpha >= 1.1', '/usr/share/alpha/data', 'gamma'] },
])
const STAMP = 1_780_000_000
let benches = 0

t.test('finds the packages whatever the metadata is packed with', async (t) => {
  for (const compression of ['gz', 'xz', 'bz2', 'zstd'] as const) {
    const { look, base } = await bench(t, { compression })
    const found = await look()
    t.strictSame(
      rowsOf(found.packages)
        .map((row) => row.nevra)
        .sort(),
      rpms.map((rpm) => rpm.nevra).sort(),
      compression,
    )
    t.match(found, { baseurls: [base], repomdMaxTimestamp: STAMP, verdict: 'unchecked', warnings: [] }, compression)
    const row = rowsOf(found.packages).find((one) => one.name === 'beta')!
    t.match(row, { bytes: rpms[2]!.bytes, href: rpms[2]!.fileName, checksum: { hex: rpms[2]!.sha256 } }, compression)
  }
})

t.test('checks every kind of checksum, and fetches nothing twice', async (t) => {
  for (const checksum of ['md5', 'sha1', 'sha256', 'sha384', 'sha512'] as const) {
    const { look, upstream } = await bench(t, { checksum, databases: true })
    const found = await look()
    t.equal(rowsOf(found.packages)[0]!.checksum.algorithm, checksum)
    const before = upstream.requests.length
    await look()
    t.strictSame(
      upstream.requests.slice(before).map((one) => one.path),
      ['/repo/repodata/repomd.xml'],
      `${checksum}: the second look asks for repomd.xml alone`,
    )
    const asked = new Set(upstream.requests.map((one) => one.path.replace(/.*-/, '')))
    t.strictSame([...asked].sort(), ['/repo/repodata/repomd.xml', 'filelists.xml.gz', 'other.xml.gz', 'primary.xml.gz'])
  }
})

t.test('follows a mirrorlist with the variables filled in, and a metalink', async (t) => {
  const { look, upstream, base, list } = await bench(t)
  upstream.set('/list', `# mirrors\n${upstream.url}/$id/\n`)
  const vars = { id: 'repo' }
  t.strictSame((await look({ mirrorlist: `${upstream.url}/list?x=$id`, vars })).baseurls, [base])
  t.equal(upstream.requests.find((one) => one.path === '/list')!.query, 'x=repo')
  upstream.set(
    '/metalink',
    metalink(list('repomd.xml'), [upstream.url, upstream.url.replace('127.0.0.1', 'localhost')]),
  )
  const linked = await look({ metalink: `${upstream.url}/metalink` })
  t.strictSame(linked.baseurls, [base, base.replace('127.0.0.1', 'localhost')])
  t.strictSame((await look({ mirrorlist: `${upstream.url}/metalink` })).baseurls[0], base, 'as yum does: by its name')
  upstream.set('/metalink', metalink(Buffer.from('another'), [upstream.url]))
  await t.rejects(look({ metalink: `${upstream.url}/metalink` }), { code: 'METALINK_MISMATCH' })
  upstream.set('/list', '<html>Sign in</html>')
  await t.rejects(look({ mirrorlist: `${upstream.url}/list` }), {
    code: /FETCH_CAPTIVE|MIRRORLIST_EMPTY/,
    message: /Sign in|list/,
  })
  upstream.set('/list', 'ftp://only.example/\n')
  await t.rejects(look({ mirrorlist: `${upstream.url}/list` }), { code: 'MIRRORLIST_EMPTY', message: /ftp:\/\/only/ })
})

t.test('takes all metadata from one base URL, and the next when one is not whole', async (t) => {
  const { look, upstream, base, list, copyTo } = await bench(t)
  copyTo('/old')
  const old = `${upstream.url}/old/`
  // a mirror in the middle of an update: the index of yesterday, a list of today
  upstream.set(list.path('filelists', '/old'), gzipSync('<filelists packages="0"></filelists>'))
  const found = await look({ baseurl: [old, base] })
  t.strictSame(found.baseurls, [base, old])
  t.equal(upstream.count(list.path('primary')), 0, 'the primary is in the store already: same bytes')
  upstream.fault('/old/repodata/repomd.xml', { kind: 'replace', body: 'Sorry' })
  upstream.fault('/repo/repodata/repomd.xml', { kind: 'status', status: 404 })
  await t.rejects(look({ baseurl: [old, base] }), {
    code: 'FETCH_STATUS',
    message: new RegExp(`none of 2 base URLs is usable: .*${old}.*Sorry.*; .*${base}.*404`),
  })
})

t.test('names the URL and what came for metadata that is not what it says', async (t) => {
  const { look, upstream, list, repomd, repack } = await bench(t)
  const expectRefusal = async (name: string, code: string | RegExp, message: RegExp): Promise<void> => {
    await t.rejects(look(), { code, message }, name)
  }
  upstream.fault('/repo/repodata/repomd.xml', { kind: 'portal', times: 1 })
  await expectRefusal('captive portal', 'FETCH_CAPTIVE', /repomd\.xml.*HotelNet/s)
  upstream.fault('/repo/repodata/repomd.xml', { kind: 'replace', body: 'Sorry', times: 1 })
  await expectRefusal('text', 'REPOMD_INVALID', /http:\/\/127.*repomd\.xml.*Sorry/s)
  upstream.fault(list.path('primary'), { kind: 'flip', at: 40 })
  await expectRefusal('flipped', 'FETCH_DIGEST_MISMATCH', /primary/)
  upstream.fault(list.path('primary'), { kind: 'truncate', after: 40 })
  await expectRefusal('truncated', /FETCH_/, /primary/)
  upstream.fault(list.path('primary'))
  const good = list('primary')
  const open = gunzipSync(good).toString()
  repack('primary', gzipSync(open.replace('packages="3"', 'packages="4"')))
  await expectRefusal('count', 'REPODATA_INVALID', /primary\.xml\.gz: says packages="4" and holds 3/)
  repack('primary', good.subarray(0, -20))
  await expectRefusal('cut off before it was published', 'DECOMPRESS_INVALID', /primary\.xml\.gz/)
  repack('primary', gzipSync('<html>Sign in</html>'))
  await expectRefusal('page', 'REPODATA_INVALID', /expected <metadata>, found <html>/)
  repack('primary', gzipSync(open), { open: 'f'.repeat(64) })
  await expectRefusal('open-checksum', 'REPODATA_MIXED', /expected sha256 ffff.*found/s)
  repack('primary', gzipSync(open), { openSize: 5 })
  await expectRefusal('open-size', 'REPODATA_MIXED', /expected 5 bytes when unpacked/)
  repack('primary', good)
  repomd((text) => text.replace(/<data type="primary">.*?<\/data>/s, ''))
  await expectRefusal('no primary', 'REPOMD_INVALID', /names no primary/)
})

t.test('refuses filelists and changelogs that are about other packages', async (t) => {
  for (const type of ['filelists', 'other'] as const) {
    const { look, list, repack } = await bench(t)
    const open = gunzipSync(list(type)).toString()
    repack(type, gzipSync(open.replace(/pkgid="[0-9a-f]{64}"/, `pkgid="${'0'.repeat(64)}"`)))
    await t.rejects(look(), { code: 'REPODATA_MIXED', message: new RegExp(`${type}.*lists package 0000`) })
    repack(type, gzipSync(open.replace(/<package .*?<\/package>/s, '').replace('packages="3"', 'packages="2"')))
    await t.rejects(look(), { code: 'REPODATA_MIXED', message: /lists 1 packages of primary not/ })
  }
})

t.test('warns of an upstream without filelists or changelogs', async (t) => {
  const { look, repomd } = await bench(t)
  repomd((text) => text.replace(/<data type="(?:filelists|other)">.*?<\/data>/gs, ''))
  const found = await look()
  t.strictSame(Object.keys(found.data), ['primary'])
  t.match(found.warnings, [/no filelists/, /no changelogs/])
})

t.test('checks the signature of repomd.xml where there is a key', async (t) => {
  const [key, other] = [await gpgKey(), await gpgKey('other')]
  const signed = await bench(t, { signWith: key })
  const wishes = { gpgkey: key.publicArmored }
  t.equal((await signed.look()).verdict, 'unchecked')
  t.equal((await signed.look(wishes)).verdict, 'good')
  t.equal((await signed.look({ ...wishes, repoGpgcheck: true })).verdict, 'good')
  const bad = await signed.look({ gpgkey: other.publicArmored })
  t.match(bad, { verdict: 'bad', warnings: [/not good/] })
  const refused = { gpgkey: other.publicArmored, repoGpgcheck: true }
  await t.rejects(signed.look(refused), { code: 'REPOMD_SIGNATURE', message: /repomd\.xml.*not good/ })
  signed.upstream.fault('/repo/repodata/repomd.xml.asc', { kind: 'status', status: 404 })
  t.match(await signed.look(wishes), { verdict: 'unsigned', warnings: [/not signed/] })
  await t.rejects(signed.look({ ...wishes, repoGpgcheck: true }), { code: 'REPOMD_SIGNATURE', message: /found none/ })
  signed.upstream.fault('/repo/repodata/repomd.xml.asc', { kind: 'portal' })
  await t.rejects(signed.look(wishes), { code: 'FETCH_CAPTIVE' }, 'a login page is no answer')
  signed.upstream.fault('/repo/repodata/repomd.xml.asc')
  const nonsense = { gpgkey: 'nonsense', baseurl: [signed.base, `${signed.base}x`] }
  await t.rejects(signed.look(nonsense), { code: 'KEY_INVALID' }, 'no other place could help')
})

t.test('stops when it is told to', async (t) => {
  const { look, context } = await bench(t)
  const stop = new AbortController()
  stop.abort(new Error('enough'))
  await t.rejects(look({}, { ...context, signal: stop.signal }), { message: 'enough' })
})

interface Bench {
  upstream: Upstream
  /** of the repository */
  base: string
  context: YumContext
  look: (repo?: Partial<YumRepoConfig>, context?: YumContext) => Promise<YumUpstream>
  /** the bytes of a list as served, or of repomd.xml */
  list: ((type: string) => Buffer) & { path: (type: string, folder?: string) => string }
  /** edits repomd.xml */
  repomd: (edit: (text: string) => string) => void
  /** serves other bytes for a list and declares them */
  repack: (type: string, bytes: Buffer, lie?: { open?: string; openSize?: number }) => void
  copyTo: (folder: string) => void
}

async function bench(t: Test, options: RepositoryOptions = {}): Promise<Bench> {
  const root = join(t.testdir({}), String(benches++))
  await makeRepository(join(root, 'repo'), rpms, { timestamp: STAMP, ...options })
  const files = new Map<string, string | Buffer>()
  for (const name of readdirSync(join(root, 'repo/repodata'))) {
    files.set(`/repo/repodata/${name}`, readFileSync(join(root, 'repo/repodata', name)))
  }
  const upstream = await startUpstream(t, files)
  const base = `${upstream.url}/repo/`
  const ledger = new Ledger(join(root, 'ledger.db'))
  t.teardown(() => ledger.close())
  const { signal } = new AbortController()
  const store = new BlobStore(root)
  const context: YumContext = { fetcher, store, signal, aliases: ledger, verifySignature, nowMs: Date.now() }
  const path = (type: string, folder = '/repo'): string =>
    [...files.keys()].find((name) => name.startsWith(folder) && name.includes(type))!
  const repomd: Bench['repomd'] = (edit) =>
    files.set('/repo/repodata/repomd.xml', edit(String(files.get('/repo/repodata/repomd.xml'))))
  return {
    upstream,
    base,
    context,
    look: ({ ...repo } = {}, other = context) => {
      const place = repo.mirrorlist ?? repo.metalink ?? repo.baseurl
      return lookYum(
        { id: 'sng-pkgs', vars: {}, repoGpgcheck: false, ...(place === undefined ? { baseurl: [base] } : {}), ...repo },
        other,
      )
    },
    list: Object.assign((type: string) => Buffer.from(files.get(path(type))!), { path }),
    repomd,
    repack: (type, bytes, lie = {}) => {
      files.set(path(type), bytes)
      repomd((text) =>
        text.replace(new RegExp(`<data type="${type}">.*?</data>`, 's'), (data) => declare(data, bytes, lie)),
      )
    },
    copyTo: (folder) => {
      for (const [name, bytes] of new Map(files)) files.set(name.replace('/repo/', `${folder}/`), bytes)
    },
  }
}

function declare(data: string, bytes: Buffer, { open, openSize }: { open?: string; openSize?: number }): string {
  let unpacked = Buffer.alloc(0)
  try {
    unpacked = gunzipSync(bytes)
  } catch {
    // damaged on purpose
  }
  return data
    .replace(/(<checksum type="sha256">)\w+/, `$1${sha256(bytes)}`)
    .replace(/(<open-checksum type="sha256">)\w+/, `$1${open ?? sha256(unpacked)}`)
    .replace(/<size>\d+/, `<size>${bytes.length}`)
    .replace(/<open-size>\d+/, `<open-size>${openSize ?? unpacked.length}`)
}

function metalink(repomd: Buffer, urls: string[]): string {
  const resources = urls.map((url) => `<url type="http">${url}/repo/repodata/repomd.xml</url>`).join('')
  return `<metalink xmlns="http://www.metalinker.org/" xmlns:mm="http://fedorahosted.org/mirrormanager"><files><file name="repomd.xml">
    <mm:timestamp>${STAMP}</mm:timestamp><size>${repomd.length}</size>
    <verification><hash type="sha256">${sha256(repomd)}</hash></verification>
    <resources>${resources}</resources></file></files></metalink>`
}

function sha256(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex')
}
