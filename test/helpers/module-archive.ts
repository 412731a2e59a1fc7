import { createHash } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { FILE_TIME, fromCache, intoCache } from './cache.ts'
import { withGpgHome, type GpgKey } from './gpg.ts'
import { escapeXml, licenseOf, type ModuleSpec } from './module-list.ts'
import { makeTar } from './tar.ts'

/** A module as the vendor publishes it. */
export interface BuiltModule {
  /** of the plain archive */
  tgz: Buffer
  /** what is served: `tgz`, or the signed message that holds it */
  served: Buffer
  isSigned: boolean
}

/** What may stand in an archive: path → text; a path with a slash at the end is a folder. */
export type ArchiveFiles = Record<string, string | Buffer>

/** Everything about one archive that is to be built. */
interface Order {
  spec: ModuleSpec
  /** of a commercial build */
  php?: string | undefined
  signWith: GpgKey | undefined
  sealWith: GpgKey
}

/** Builds and signs archives with one gpg for those that are not in the cache. The same order gives the same bytes. */
export async function buildModules(orders: readonly Order[]): Promise<BuiltModule[]> {
  const archives = await sealed(orders)
  const wanted = orders.map(({ signWith }, i) => ({ tgz: archives[i]!, signWith }))
  const signed = wanted.filter((one) => one.signWith !== undefined) as { tgz: Buffer; signWith: GpgKey }[]
  await fill(
    signed.map(({ tgz, signWith }) => ({
      name: signedName(tgz, signWith),
      key: signWith,
      args: ['--sign'],
      input: tgz,
    })),
  )
  return wanted.map(({ tgz, signWith }) => {
    if (signWith === undefined) return { tgz, served: tgz, isSigned: false }
    return { tgz, served: readFileSync(fromCache(signedName(tgz, signWith))!), isSigned: true }
  })
}

/** A gzipped tar archive, folders first, with nothing in it that depends on the day. */
export function makeTgz(files: ArchiveFiles): Buffer {
  const names = Object.keys(files)
  const folders = new Set(
    names.flatMap((name) =>
      name
        .split('/')
        .slice(0, -1)
        .map((_, i, all) => `${all.slice(0, i + 1).join('/')}/`),
    ),
  )
  const entries = [...folders].sort().map((name) => ({ name, bytes: Buffer.alloc(0), header: asFolder }))
  const plain = names
    .filter((name) => !name.endsWith('/'))
    .map((name) => ({ name, bytes: Buffer.from(files[name]!), header: stamp }))
  return gzipSync(makeTar([...entries, ...plain]), { level: 9 })
}

/** module.xml as it lies in the archive. */
export function moduleXml(spec: ModuleSpec): string {
  const depends = Object.entries(spec.depends ?? {}).flatMap(([type, texts]) =>
    [texts].flat().map((text) => `    <${type}>${escapeXml(text)}</${type}>\n`),
  )
  const fields = {
    rawname: spec.rawname,
    repo: spec.repo ?? 'standard',
    name: spec.name ?? spec.rawname,
    version: spec.version,
    publisher: 'Example Vendor',
    license: licenseOf(spec),
    category: 'Test',
    ...spec.inside,
  }
  return [
    '<module>\n',
    ...Object.entries(fields).map(([name, text]) => `  <${name}>${escapeXml(text)}</${name}>\n`),
    depends.length === 0 ? '' : `  <depends>\n${depends.join('')}  </depends>\n`,
    `  <supported>\n    <version>${spec.version.split('.').slice(0, 2).join('.')}</version>\n  </supported>\n</module>\n`,
  ].join('')
}

/** The archives, with a module.sig in them where asked for. */
async function sealed(orders: readonly Order[]): Promise<Buffer[]> {
  const all = orders.map((order) => ({ order, files: filesOf(order), manifest: '' }))
  const withSig = all.filter(({ order }) => order.spec.sig === true && order.spec.archive === undefined)
  for (const one of withSig) one.manifest = sigText(one.files, one.order)
  await fill(
    withSig.map(({ manifest, order }) => ({
      name: sigName(manifest, order.sealWith),
      key: order.sealWith,
      args: ['--clearsign'],
      input: Buffer.from(manifest),
    })),
  )
  for (const { files, manifest, order } of withSig) {
    files[`${order.spec.rawname}/module.sig`] = readFileSync(fromCache(sigName(manifest, order.sealWith))!)
  }
  return all.map(({ order, files }) => order.spec.archive ?? makeTgz(files))
}

function filesOf({ spec, php }: Order): ArchiveFiles {
  const top = spec.rawname
  const noise = createHash('shake256', { outputLength: spec.payloadBytes ?? 600 })
  const own = Object.entries(spec.files ?? {}).map(([path, text]) => [`${top}/${path}`, text] as const)
  return {
    [`${top}/module.xml`]: moduleXml(spec),
    [`${top}/page.${top}.php`]: `<?php // ${spec.rawname} ${spec.version}${php === undefined ? '' : ` for PHP ${php}`}\n`,
    [`${top}/assets/noise.bin`]: noise.update(`${spec.rawname} ${spec.version} ${php ?? ''}`).digest(),
    ...Object.fromEntries(own),
  }
}

function sigText(files: ArchiveFiles, { spec, sealWith }: Order): string {
  const hashes = Object.entries(files)
    .filter(([path]) => !path.endsWith('/'))
    .map(
      ([path, bytes]) =>
        `${path.slice(spec.rawname.length + 1)} = ${createHash('sha256').update(bytes).digest('hex')}\n`,
    )
  const config = {
    version: 1,
    hash: 'sha256',
    signedwith: sealWith.fingerprint.slice(-16),
    signedby: 'vendor',
    repo: 'manual',
    timestamp: `${FILE_TIME}.0`,
  }
  const lines = Object.entries(config).map(([key, value]) => `${key}=${value}\n`)
  return `;################################################\n[config]\n${lines.join('')}[hashes]\n${hashes.join('')}`
}

interface Signing {
  name: string
  key: GpgKey
  args: string[]
  input: Buffer
}

/** Signs what is not in the cache, in one GnuPG home for all. */
async function fill(jobs: readonly Signing[]): Promise<void> {
  const missing = [...new Map(jobs.map((job) => [job.name, job])).values()].filter(
    ({ name }) => fromCache(name) === undefined,
  )
  if (missing.length === 0) return
  const keys = new Map(missing.map(({ key }) => [key.fingerprint, key]))
  await withGpgHome([...keys.values()], async (gpg, home) => {
    for (const { name, key, args, input } of missing) {
      const [from, to] = [join(home, 'input'), join(home, 'output')]
      writeFileSync(from, input)
      await gpg('--local-user', key.fingerprint, '--output', to, ...args, from)
      intoCache(to, name)
    }
  })
}

function signedName(tgz: Buffer, key: GpgKey): string {
  return `module-${digest(tgz)}-${key.fingerprint.slice(-16)}.tgz.gpg`
}

function sigName(manifest: string, key: GpgKey): string {
  return `module-${digest(Buffer.from(manifest))}-${key.fingerprint.slice(-16)}.sig`
}

function digest(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex').slice(0, 32)
}

function asFolder(block: Buffer): void {
  block.write('000755 \0', 100, 'latin1')
  block.write('5', 156, 'latin1')
  stamp(block)
}

function stamp(block: Buffer): void {
  block.write(`${FILE_TIME.toString(8).padStart(11, '0')} `, 136, 'latin1')
}
