/**
 * What fwconsole and yum do on the demo's box: they ask where its settings and repository files say, as FreePBX does (the list
 * by POST, each module by HEAD and POST) and as yum does, check what comes, unpack modules and note packages as installed. No
 * package is really installed.
 */
import { createHash } from 'node:crypto'
import { globSync, mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import { createMessage, readKey, readMessage, readSignature, verify, type Key } from 'openpgp'
import { request } from 'undici'
import { parseModuleFeed, type ModuleEntry } from '../../manifests/module-feed.ts'
import { compareModuleVersions } from '../../manifests/module-version.ts'
import type { PackageRow } from '../../manifests/package-xml.ts'
import { dataOfType, parseRepomd } from '../../manifests/repomd.ts'
import { compareEvr, parseNevra, type Nevra } from '../../manifests/rpm-version.ts'
import type { FolderBox } from '../helpers/folder-box/box.ts'
import { entriesOf } from '../helpers/tar.ts'
import {
  installedModules,
  installedPackages,
  KEYS_FOLDER,
  licenseOf,
  MODULES_FOLDER,
  noteModule,
  packagesOf,
  writePackages,
} from './box-state.ts'

export interface DemoBox {
  /** where its state is kept */
  dir: string
  /** what it has as MODULE_REPO */
  modules: string
  /** of its yum repositories */
  baseurls: readonly string[]
  /** armored public keys: the modules' vendor's, and the site's */
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

/** As fwconsole's settings and the repository files have it. */
export function settingsOf(box: FolderBox, dir: string): DemoBox {
  const sections = globSync('*.repo', { cwd: join(box.root, 'etc/yum.repos.d') })
    .flatMap((name) => box.read(`/etc/yum.repos.d/${name}`).split(/^(?=\[)/m))
    .filter((section) => /^enabled *= *1$/m.test(section))
  return {
    dir,
    modules: box.setting('MODULE_REPO')![0],
    baseurls: sections.flatMap((section) => /^baseurl *= *(\S+?)\/?$/m.exec(section)?.[1] ?? []),
    vendorKey: vendorKeyOf(box),
    siteKey: box.read('/etc/pki/rpm-gpg/RPM-GPG-KEY-gapferry'),
  }
}

/** The key that came with its framework. */
export function vendorKeyOf(box: FolderBox): string {
  return box.read(join(KEYS_FOLDER, globSync('*.key', { cwd: join(box.root, KEYS_FOLDER) })[0]!))
}

/** Asks for the lists, checks them, and compares. */
export async function pendingOf(box: DemoBox): Promise<Pending> {
  return {
    modules: pendingModules(await listedModules(box), installedModules(box.dir)),
    packages: pendingPackages(await offeredPackages(box), installedPackages(box.dir)),
  }
}

/** Fetches, checks, unpacks and notes all of them.
 *  @throws for the first thing that is not as it should be; what was noted before stays */
export async function upgradeModules(box: DemoBox, { modules }: Pending): Promise<void> {
  for (const { entry } of modules) {
    await installModule(box, entry)
    noteModule(box.dir, entry.rawname, entry.version)
  }
}

/** Fetches, checks and notes all of them; throws as {@link upgradeModules}. */
export async function updatePackages(box: DemoBox, { packages }: Pending): Promise<void> {
  for (const { row, from, url } of packages) {
    const bytes = await ask('GET', url)
    expectDigest(row.checksum.algorithm, bytes, row.checksum.hex, row.nevra)
    const stays = installedPackages(box.dir).filter(
      (nevra) => BESIDE.includes(row.name) || parseNevra(nevra)?.name !== from.name,
    )
    writePackages(box.dir, [...stays, row.nevra])
  }
}

async function listedModules({ dir, modules: repo }: DemoBox): Promise<ModuleEntry[]> {
  const modules = installedModules(dir)
  const form = new URLSearchParams({ brandid: 'pbxact', phpver: '7.4.33', distro: 'freepbxdistro' })
  for (const [rawname, version] of Object.entries(modules)) {
    const about = { version, status: '2', rawname, license: licenseOf(rawname) }
    for (const [key, value] of Object.entries(about)) form.set(`modules[${rawname}][${key}]`, value)
  }
  form.set('pbxver', modules['framework']!)
  form.set('sv', '2')
  const list = await ask('POST', `${repo}/all-16.0.xml`, form.toString())
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
  const url = `${box.modules}/modules/${location}`
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
  unpack(join(box.dir, 'root', MODULES_FOLDER), rawname, gunzipSync(archive))
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

async function offeredPackages({ baseurls, siteKey }: DemoBox): Promise<{ row: PackageRow; url: string }[]> {
  const key = await readKey({ armoredKey: siteKey })
  const lists = baseurls.map(async (base) => {
    const index = await ask('GET', `${base}/repodata/repomd.xml`)
    await checkSignature(index, await ask('GET', `${base}/repodata/repomd.xml.asc`), key)
    const { href, checksum } = dataOfType(parseRepomd(index, base), 'primary')!
    const primary = await ask('GET', `${base}/${href}`)
    expectDigest(checksum.algorithm, primary, checksum.hex, `${base} primary`)
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
