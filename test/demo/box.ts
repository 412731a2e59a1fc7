/**
 * The demo's box, a folder: it asks the mirror as a FreePBX box does (the list by POST, each module by HEAD and POST) and as
 * yum does, checks what comes, unpacks modules and notes packages as installed. Nothing is really installed.
 */
import { createHash } from 'node:crypto'
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import { createMessage, readKey, readMessage, readSignature, verify, type Key } from 'openpgp'
import { request } from 'undici'
import { parseModuleFeed, type ModuleEntry } from '../../manifests/module-feed.ts'
import { compareModuleVersions } from '../../manifests/module-version.ts'
import type { PackageRow } from '../../manifests/package-xml.ts'
import { dataOfType, parseRepomd } from '../../manifests/repomd.ts'
import { compareEvr, parseNevra, type Nevra } from '../../manifests/rpm-version.ts'
import { entriesOf } from '../helpers/tar.ts'
import { licenseOf, packagesOf, readBox, writeBox } from './box-state.ts'

export interface DemoBox {
  /** where its state is kept */
  dir: string
  /** of the mirror, as it is told */
  origin: string
  /** ids of its yum repositories there */
  yum: readonly string[]
  /** armored public keys: the modules' vendor's, and the site's, as it had them before */
  vendorKey: string
  siteKey: string
}

/** What a list offers that is newer than what the box has, or that this needs. */
export interface Pending {
  modules: { entry: ModuleEntry; from: string | undefined }[]
  packages: { row: PackageRow; from: Nevra; url: string }[]
}

/** A box's order; the rest by name. */
const FIRST = ['framework', 'core', 'sipsettings']
/** Another one is installed beside the one that runs. */
const BESIDE = ['kernel']

/** Asks for the lists, checks them, and compares. */
export async function pendingOf(box: DemoBox): Promise<Pending> {
  const { modules, packages } = readBox(box.dir)
  return {
    modules: pendingModules(await listedModules(box), modules),
    packages: pendingPackages(await offeredPackages(box), packages),
  }
}

/** Fetches, checks and notes all of it.
 *  @throws for the first thing that is not as it should be; what was noted before stays */
export async function upgrade(box: DemoBox, pending: Pending): Promise<void> {
  for (const { entry } of pending.modules) {
    await installModule(box, entry)
    const state = readBox(box.dir)
    writeBox(box.dir, { ...state, modules: { ...state.modules, [entry.rawname]: entry.version } })
  }
  for (const { row, from, url } of pending.packages) {
    const bytes = await ask('GET', url)
    expectDigest(row.checksum.algorithm, bytes, row.checksum.hex, row.nevra)
    const state = readBox(box.dir)
    const stays = state.packages.filter((nevra) => BESIDE.includes(row.name) || parseNevra(nevra)?.name !== from.name)
    writeBox(box.dir, { ...state, packages: [...stays, row.nevra].sort() })
  }
}

async function listedModules({ dir, origin }: DemoBox): Promise<ModuleEntry[]> {
  const { installid, modules } = readBox(dir)
  const form = new URLSearchParams({ installid, brandid: 'pbxact', phpver: '7.4.33', distro: 'freepbxdistro' })
  for (const [rawname, version] of Object.entries(modules)) {
    const about = { version, status: '2', rawname, license: licenseOf(rawname) }
    for (const [key, value] of Object.entries(about)) form.set(`modules[${rawname}][${key}]`, value)
  }
  form.set('pbxver', modules['framework']!)
  form.set('sv', '2')
  const list = await ask('POST', `${origin}/all-16.0.xml`, form.toString())
  return parseModuleFeed(list, 'the list').entries.filter(({ section }) => section === 'module')
}

function pendingModules(listed: readonly ModuleEntry[], modules: Record<string, string>): Pending['modules'] {
  const byName = new Map(listed.map((entry) => [entry.rawname, entry]))
  const wanted = new Map<string, ModuleEntry>()
  const take = (entry: ModuleEntry): void => {
    const has = modules[entry.rawname]
    if (wanted.has(entry.rawname) || (has !== undefined && compareModuleVersions(has, entry.version) >= 0)) return
    // What it depends on comes before it.
    for (const text of entry.depends.module) {
      const needed = byName.get(text.split(' ')[0]!)
      if (needed !== undefined && modules[needed.rawname] === undefined) take(needed)
    }
    wanted.set(entry.rawname, entry)
  }
  const rank = ({ rawname }: ModuleEntry): string =>
    `${FIRST.includes(rawname) ? FIRST.indexOf(rawname) : 9} ${rawname}`
  const installed = listed.filter(({ rawname }) => modules[rawname] !== undefined)
  for (const entry of installed.sort((a, b) => (rank(a) < rank(b) ? -1 : 1))) take(entry)
  return [...wanted.values()].map((entry) => ({ entry, from: modules[entry.rawname] }))
}

async function installModule(box: DemoBox, entry: ModuleEntry): Promise<void> {
  const { rawname, location, signedSha1 } = entry
  const url = `${box.origin}/modules/${location}`
  await ask('HEAD', `${url}?`)
  const served = await ask('POST', url, 'sv=2')
  if (signedSha1 === undefined) throw new Error(`${rawname}: it is not signed`)
  expectDigest('sha1', served, signedSha1, rawname)
  const key = await readKey({ armoredKey: box.vendorKey })
  const { data, signatures } = await verify({
    message: await readMessage({ binaryMessage: new Uint8Array(served) }),
    verificationKeys: key,
    format: 'binary',
    expectSigned: true,
  })
  await signatures[0]!.verified
  const archive = Buffer.from(data as Uint8Array)
  if (entry.md5 !== undefined) expectDigest('md5', archive, entry.md5, rawname)
  if (entry.sha1 !== undefined) expectDigest('sha1', archive, entry.sha1, rawname)
  unpack(join(box.dir, 'modules'), rawname, gunzipSync(archive))
}

function unpack(folder: string, rawname: string, tar: Buffer): void {
  rmSync(join(folder, rawname), { recursive: true, force: true })
  for (const { name, bytesAt, bytes } of entriesOf(tar)) {
    if (name.endsWith('/')) continue
    if (!name.startsWith(`${rawname}/`) || name.split('/').includes('..')) throw new Error(`${rawname}: ${name} in it`)
    mkdirSync(dirname(join(folder, name)), { recursive: true })
    writeFileSync(join(folder, name), tar.subarray(bytesAt, bytesAt + bytes))
  }
}

async function offeredPackages({ origin, yum, siteKey }: DemoBox): Promise<{ row: PackageRow; url: string }[]> {
  const key = await readKey({ armoredKey: siteKey })
  const lists = yum.map(async (id) => {
    const base = `${origin}/yum/${id}`
    const index = await ask('GET', `${base}/repodata/repomd.xml`)
    await checkSignature(index, await ask('GET', `${base}/repodata/repomd.xml.asc`), key)
    const { href, checksum } = dataOfType(parseRepomd(index, id), 'primary')!
    const primary = await ask('GET', `${base}/${href}`)
    expectDigest(checksum.algorithm, primary, checksum.hex, `${id} primary`)
    return packagesOf(gunzipSync(primary)).map(({ row }) => ({ row, url: `${base}/${row.href}` }))
  })
  return (await Promise.all(lists)).flat()
}

/** @throws unless `key` signed `bytes` */
async function checkSignature(bytes: Buffer, signature: Buffer, key: Key): Promise<void> {
  const { signatures } = await verify({
    message: await createMessage({ binary: new Uint8Array(bytes) }),
    signature: await readSignature({ armoredSignature: signature.toString() }),
    verificationKeys: key,
    expectSigned: true,
  })
  await signatures[0]!.verified
}

function pendingPackages(
  offered: readonly { row: PackageRow; url: string }[],
  packages: readonly string[],
): Pending['packages'] {
  const evr = ({ epoch, version, release }: Nevra) => [epoch, version, release] as const
  const newest = new Map<string, Nevra>()
  for (const one of packages.map((nevra) => parseNevra(nevra)!)) {
    const best = newest.get(one.name)
    if (best === undefined || compareEvr(evr(one), evr(best)) > 0) newest.set(one.name, one)
  }
  return [...newest.values()].flatMap((from) => {
    const [best] = offered
      .filter(({ row }) => row.name === from.name && compareEvr(evr(row), evr(from)) > 0)
      .sort((a, b) => compareEvr(evr(b.row), evr(a.row)))
    return best === undefined ? [] : [{ ...best, from }]
  })
}

async function ask(method: 'GET' | 'HEAD' | 'POST', url: string, form?: string): Promise<Buffer> {
  const headers = form === undefined ? {} : { 'content-type': 'application/x-www-form-urlencoded' }
  const { statusCode, body } = await request(url, { method, headers, ...(form === undefined ? {} : { body: form }) })
  const bytes = Buffer.from(await body.arrayBuffer())
  if (statusCode !== 200) throw new Error(`${method} ${url}: ${statusCode} ${bytes.toString().slice(0, 80)}`)
  return bytes
}

function expectDigest(algorithm: string, bytes: Buffer, expected: string, what: string): void {
  const found = createHash(algorithm).update(bytes).digest('hex')
  if (found !== expected) throw new Error(`${what}: ${algorithm} is ${found}, expected ${expected}`)
}
