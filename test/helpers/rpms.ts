import { createHash } from 'node:crypto'
import { copyFileSync, mkdirSync, readFileSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { zstdCompressSync, gunzipSync } from 'node:zlib'
import { FILE_TIME, fromCache, intoCache, withFolder } from './cache.ts'
import { signDetached, withGpgHome } from './gpg.ts'
import type { GpgKey } from './gpg.ts'
import { mustRun } from './process.ts'
import { archOf, nevra, payloadOf, rpmFileName, specDigest, specText } from './rpm-spec.ts'
import type { PackageSpec } from './rpm-spec.ts'

/** A package that rpmbuild made. `file` lies in the cache: copy it before changing anything. */
export interface BuiltRpm {
  spec: PackageSpec
  nevra: string
  /** The usual file name, `name-version-release.arch.rpm`. */
  fileName: string
  file: string
  bytes: number
  sha256: string
}

/** How a repository is made. */
export interface RepositoryOptions {
  /** Of primary, filelists and other; createrepo_c 0.17 makes gz, xz and bz2, zstd is put in place afterwards. */
  compression?: 'gz' | 'xz' | 'bz2' | 'zstd'
  /** Of packages and metadata, in createrepo's words. Default sha256. */
  checksum?: 'md5' | 'sha1' | 'sha256' | 'sha384' | 'sha512'
  /** Adds the sqlite databases that vendors publish beside the XML. */
  databases?: boolean
  /** Revision, and every timestamp in repomd.xml (seconds). Default now, as createrepo does. */
  timestamp?: number
  /** Where a package lies below the repository. Default: its file name, at the top. */
  href?: (rpm: BuiltRpm) => string
  /** Signs repomd.xml (repomd.xml.asc beside it). */
  signWith?: GpgKey
}

const PARALLEL = 2
const COMMON_DEFINES = {
  debug_package: '%{nil}',
  _build_id_links: 'none',
  __os_install_post: '%{nil}',
  // what an EL7 rpm can read
  _binary_payload: 'w6.gzdio',
  _binary_filedigest_algorithm: '8',
  // the same spec gives the same bytes on every machine and day
  _buildhost: 'lab.example.invalid',
  use_source_date_epoch_as_buildtime: '1',
  clamp_mtime_to_source_date_epoch: '1',
  source_date_epoch_from_changelog: '0',
}

/** Builds the packages with rpmbuild, two at a time, and returns them in the order asked for. Each is built once and then
 *  comes from the cache (by a digest over its spec, payload and the version of rpm).
 *  @param options.signWith  packages signed with this key (rpmsign); without it they bear no signature at all */
export async function buildRpms(
  specs: readonly PackageSpec[],
  options: { signWith?: GpgKey | undefined } = {},
): Promise<BuiltRpm[]> {
  const tool = await rpmVersion()
  const wanted = specs.map((spec) => ({ spec, digest: specDigest(spec, tool) }))
  await build(wanted.filter((rpm) => fromCache(`${rpm.digest}.rpm`) === undefined))
  const suffix = options.signWith === undefined ? '.rpm' : `-${options.signWith.fingerprint.slice(-16)}.rpm`
  if (options.signWith !== undefined) {
    const unsigned = wanted.map((rpm) => rpm.digest).filter((digest) => fromCache(digest + suffix) === undefined)
    await sign([...new Set(unsigned)], suffix, options.signWith)
  }
  return wanted.map(({ spec, digest }) => describe(spec, fromCache(digest + suffix)!))
}

/** Makes `dir` a repository of these packages with createrepo_c; what stood there under repodata/ is replaced, package
 *  files already there stay on disk and are part of the metadata only when named again. */
export async function makeRepository(
  dir: string,
  rpms: readonly BuiltRpm[],
  options: RepositoryOptions = {},
): Promise<void> {
  const hrefs = rpms.map(options.href ?? ((rpm: BuiltRpm) => rpm.fileName))
  rmSync(join(dir, 'repodata'), { recursive: true, force: true })
  for (const [i, rpm] of rpms.entries()) {
    const target = join(dir, hrefs[i]!)
    mkdirSync(dirname(target), { recursive: true })
    copyFileSync(rpm.file, target)
    utimesSync(target, FILE_TIME, FILE_TIME)
  }
  mkdirSync(dir, { recursive: true })
  await withFolder(async (work) => {
    const list = join(work, 'packages')
    writeFileSync(list, hrefs.map((href) => `${href}\n`).join(''))
    await mustRun('createrepo_c', [...createrepoArgs(options), '--pkglist', list, '.'], { cwd: dir })
  })
  if (options.compression === 'zstd') recompress(dir)
  if (options.signWith !== undefined) await signRepository(dir, options.signWith)
}

/** Signs the repository's repomd.xml as it is now: `repodata/repomd.xml.asc`. */
export async function signRepository(dir: string, key: GpgKey): Promise<void> {
  const repomd = join(dir, 'repodata/repomd.xml')
  writeFileSync(`${repomd}.asc`, await signDetached(key, repomd))
}

async function rpmVersion(): Promise<string> {
  return (await mustRun('rpm', ['--version'])).stdout.trim()
}

async function build(rpms: readonly { spec: PackageSpec; digest: string }[]): Promise<void> {
  const byArch = Map.groupBy(new Map(rpms.map((rpm) => [rpm.digest, rpm])).values(), (rpm) => archOf(rpm.spec))
  const batches = [...byArch].flatMap(([arch, all]) => halves(all).map((batch) => ({ arch, batch })))
  const next = batches.values()
  await Promise.all(
    Array.from({ length: PARALLEL }, async () => {
      for (const { arch, batch } of next) await buildBatch(arch, batch)
    }),
  )
}

function halves<T>(items: T[]): T[][] {
  const middle = Math.ceil(items.length / PARALLEL)
  return [items.slice(0, middle), items.slice(middle)].filter((half) => half.length > 0)
}

async function buildBatch(arch: string, rpms: readonly { spec: PackageSpec; digest: string }[]): Promise<void> {
  await withFolder(async (top) => {
    const specFiles = rpms.map(({ spec, digest }) => {
      const payloadDir = join(top, 'payload', digest)
      for (const [path, bytes] of payloadOf(spec)) {
        mkdirSync(dirname(join(payloadDir, path)), { recursive: true })
        writeFileSync(join(payloadDir, path), bytes, { mode: path.includes('bin/') ? 0o755 : 0o644 })
      }
      const specFile = join(top, `${digest}.spec`)
      writeFileSync(specFile, specText(spec, { payloadDir, fileName: `${digest}.rpm` }))
      return specFile
    })
    const defines = { ...COMMON_DEFINES, _topdir: top, _rpmdir: top }
    const args = Object.entries(defines).flatMap(([name, value]) => ['--define', `${name} ${value}`])
    const env = { HOME: top, SOURCE_DATE_EPOCH: String(FILE_TIME) }
    await mustRun('rpmbuild', ['-bb', '--quiet', '--target', `${arch}-linux`, ...args, ...specFiles], { cwd: top, env })
    for (const { digest } of rpms) intoCache(join(top, `${digest}.rpm`), `${digest}.rpm`)
  })
}

async function sign(digests: readonly string[], suffix: string, key: GpgKey): Promise<void> {
  if (digests.length === 0) return
  await withGpgHome([key], async (_gpg, home) => {
    const files = digests.map((digest) => join(home, digest + suffix))
    for (const [i, digest] of digests.entries()) copyFileSync(fromCache(`${digest}.rpm`)!, files[i]!)
    // Debian's macro names a gpg2 that is not there
    const defines = { _gpg_name: key.fingerprint, _gpg_path: home, __gpg: '/usr/bin/gpg' }
    const args = Object.entries(defines).flatMap(([name, value]) => ['--define', `${name} ${value}`])
    await mustRun('rpmsign', [...args, '--addsign', ...files], { env: { HOME: home, GNUPGHOME: home } })
    for (const [i, digest] of digests.entries()) intoCache(files[i]!, digest + suffix)
  })
}

function describe(spec: PackageSpec, file: string): BuiltRpm {
  const bytes = readFileSync(file)
  const sha256 = createHash('sha256').update(bytes).digest('hex')
  return { spec, nevra: nevra(spec), fileName: rpmFileName(spec), file, bytes: bytes.length, sha256 }
}

function createrepoArgs(options: RepositoryOptions): string[] {
  const { compression = 'gz', checksum = 'sha256', timestamp } = options
  return [
    '--quiet',
    `--checksum=${checksum}`,
    `--repomd-checksum=${checksum}`,
    `--general-compress-type=${compression === 'zstd' ? 'gz' : compression}`,
    options.databases === true ? '--database' : '--no-database',
    ...(timestamp === undefined ? [] : [`--revision=${timestamp}`, '--set-timestamp-to-revision']),
  ]
}

/** Debian 12's createrepo_c knows no zstd; later ones make it by default, in just this form. */
function recompress(dir: string): void {
  const repomd = join(dir, 'repodata/repomd.xml')
  const algorithm = /<checksum type="([^"]+)"/.exec(readFileSync(repomd, 'utf8'))![1]!
  const text = readFileSync(repomd, 'utf8').replace(/<data type="[^"]+">.*?<\/data>/gs, (data) => {
    const href = /href="([^"]+\.xml\.gz)"/.exec(data)?.[1]
    if (href === undefined) return data
    const bytes = zstdCompressSync(gunzipSync(readFileSync(join(dir, href))))
    const digest = createHash(algorithm === 'sha' ? 'sha1' : algorithm)
      .update(bytes)
      .digest('hex')
    const renamed = `repodata/${digest}-${href.replace(/^.*-/, '').replace(/gz$/, 'zst')}`
    rmSync(join(dir, href))
    writeFileSync(join(dir, renamed), bytes)
    return data
      .replace(/(<checksum type="[^"]+">)[0-9a-f]+/, `$1${digest}`)
      .replace(href, renamed)
      .replace(/<size>\d+/, `<size>${statSync(join(dir, renamed)).size}`)
  })
  writeFileSync(repomd, text)
}
