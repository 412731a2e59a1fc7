/** A signed bundle of the sample files, as `gapferry pack` would be given it, and a mirror that trusts its root. */
import { readFileSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { createSiteKeys } from '../../bundler/keys/create-keys.ts'
import { loadSite, unlockSite } from '../../bundler/keys/keys.ts'
import { signBundle } from '../../bundler/sign.ts'
import { sha256Of, type Sha256 } from '../../manifests/digest.ts'
import { parseTreePath, type TreePath } from '../../manifests/path.ts'
import { serializeSiteFacts } from '../../manifests/site.ts'
import { serializeTree, type TreeEntry } from '../../manifests/tree.ts'
import { mustRun } from '../helpers/process.ts'
import { sampleFiles, type SampleBlob } from './files.ts'

const SITE = 'bench'
const GROUP = 'boxes'
const LAUNCH = resolve(import.meta.dirname, '../../manifests/launch.mjs')
const NUMBER = 1
const REPOSITORY = 'base'
const RUN_MS = 300_000

/** A bundle before it is packed, as JSON; bytes are base64. */
export interface BundleFile {
  site: string
  number: number
  metadata: [name: string, bytes: string][]
  trees: [sha256: Sha256, bytes: string][]
  wanted: [sha256: Sha256, bytes: number][]
  rootFile: string
}

export interface SampleBundle {
  /** a BundleFile */
  file: string
  /** of the BlobStore that has its blobs */
  storeRoot: string
  rootFile: string
  part: string
  /** paths of the origin */
  paths: string[]
}

/** Our programs, started as `npm run` does. */
export function gapferry(...args: string[]): string[] {
  return [process.execPath, LAUNCH, 'bundler/main.ts', ...args]
}
export function gapferryMirror(...args: string[]): string[] {
  return [process.execPath, LAUNCH, 'server/main.ts', ...args]
}

let made: Promise<SampleBundle> | undefined

/** Signed and packed once in a run: signatures expire, so it is not kept from run to run. */
export function sampleBundle(work: string): Promise<SampleBundle> {
  made ??= sampleFiles().then((files) => makeBundle(work, files))
  return made
}

/** The command that packs `bundle` to `toDir`: the call alone, without what planning leaves in memory. */
export function packCommand(bundle: Pick<SampleBundle, 'file' | 'storeRoot'>, toDir: string): string[] {
  return [process.execPath, LAUNCH, 'test/bench/pack-program.ts', bundle.file, bundle.storeRoot, toDir]
}

/** A mirror in `dir` that has pinned the root and imported nothing. */
export async function makeMirror(dir: string, { rootFile }: SampleBundle): Promise<{ config: string }> {
  const config = join(dir, 'mirror.yaml')
  const trust = ['--trust', rootFile, '--yes', '--origin', `${GROUP}=127.0.0.1:0`, '--admin', '127.0.0.1:0']
  await mustRunOwn(gapferryMirror('init', dir, ...trust))
  return { config }
}

export async function mustRunOwn([program, ...args]: string[]): Promise<string> {
  const { stdout } = await mustRun(program!, args, { timeoutMs: RUN_MS, env: { no_proxy: '*' } })
  return stdout
}

/** A signed and packed bundle of other files, with all that belongs to it in `work`. */
export async function makeBundle(
  work: string,
  { root: storeRoot, blobs }: { root: string; blobs: SampleBlob[] },
): Promise<SampleBundle> {
  const keys = { dir: join(work, 'keys'), site: SITE, passphrase: null }
  const { rootFile } = await createSiteKeys({ ...keys, nowMs: Date.now() })
  const { roots } = loadSite(keys.dir, SITE)
  const entries = entriesOf(blobs)
  const documents = new Map([
    [`${GROUP}/current`, treeOf(entries)],
    ['site', factsOf()],
  ])
  const metadata = signBundle({
    site: SITE,
    number: NUMBER,
    roots,
    targets: new Map([...documents].map(([name, bytes]) => [name, { sha256: sha256Of(bytes), bytes: bytes.length }])),
    signer: await unlockSite(keys),
    nowMs: Date.now(),
    bundler: 'gapferry bench',
  })
  const content: BundleFile = {
    site: SITE,
    number: NUMBER,
    metadata: [...metadata].map(([name, bytes]) => [name, bytes.toString('base64')]),
    trees: [...documents.values()].map((bytes) => [sha256Of(bytes), bytes.toString('base64')]),
    wanted: blobs.map(({ sha256, bytes }) => [sha256, bytes]),
    rootFile: readFileSync(rootFile).toString('base64'),
  }
  const file = join(work, 'bundle.json')
  writeFileSync(file, JSON.stringify(content))
  const stick = join(work, 'stick')
  await mustRunOwn(packCommand({ file, storeRoot }, stick))
  const part = join(stick, 'gapferry', SITE, `${SITE}-${NUMBER}.tar`)
  return { file, storeRoot, rootFile, part, paths: [...entries.keys()] }
}

function entriesOf(blobs: readonly SampleBlob[]): Map<TreePath, TreeEntry> {
  return new Map(
    blobs.map(({ sha256, bytes }, i) => {
      const path = parseTreePath(`yum/${REPOSITORY}/Packages/p${String(i).padStart(4, '0')}.rpm`, 'bench')
      return [path, { sha256, bytes, modified: 1_700_000_000, type: 'application/x-rpm', kind: 'immutable' }]
    }),
  )
}

function treeOf(entries: Map<TreePath, TreeEntry>): Buffer {
  const stamps = new Map([[REPOSITORY, 1_700_000_000]])
  return serializeTree({ site: SITE, group: GROUP, role: 'current', number: NUMBER, stamps, entries })
}

function factsOf(): Buffer {
  const createdAt = `${new Date().toISOString().slice(0, 19)}Z`
  const groups = new Map([[GROUP, { origin: 'http://127.0.0.1:8416', yum: [REPOSITORY], files: [] }]])
  return serializeSiteFacts({ site: SITE, number: NUMBER, createdAt, groups })
}
