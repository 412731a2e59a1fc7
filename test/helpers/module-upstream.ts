/**
 * A vendor of modules on loopback that plays mirror.freepbx.org: lists that are made for the box that asks, archives
 * signed by a key that the vendor's masters certified, sounds, single versions, whole sets; GET, HEAD and POST alike; with
 * the faults of `upstream.ts` (`status`, `portal`, `replace`, `truncate`, `flip` once, …) on every path.
 */
import { mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { removeFolder } from './cache.ts'
import { buildModules, makeTgz } from './module-archive.ts'
import { moduleKeys, type ModuleKeys } from './module-keys.ts'
import { listXml, locationOf, tagJson, type IssueSpec, type ListedModule, type ModuleSpec } from './module-list.ts'
import type { Teardown } from './process.ts'
import { soundFiles, soundsXml, type SoundSpec } from './sound-upstream.ts'
import { startUpstream, type SeenRequest, type Upstream } from './upstream.ts'

/** What the vendor has for one major version. */
export interface Catalogue {
  major: number
  modules: readonly ModuleSpec[]
  /** default: two issues that concern nobody */
  issues?: readonly IssueSpec[]
  sounds?: readonly SoundSpec[]
}

export interface ModuleUpstream extends Upstream {
  keys: ModuleKeys
  /** the signer's public key in a file, for `keys:` of the laptop */
  keyFile: string
  /** Another month, or another major beside the first: what it had for this major before is gone, archives too. */
  publish(catalogue: Catalogue): Promise<void>
  /** The served bytes of one version. @throws when there is none */
  bytes(rawname: string, version: string, php?: string): Buffer
  /** path of an archive, as in a URL */
  path(rawname: string, version: string, php?: string): string
  /** the list as this form gets it, without asking over the network */
  list(major: number, form?: Record<string, string>): string
}

interface Stand {
  modules: ListedModule[]
  issues: readonly IssueSpec[]
  sounds: readonly SoundSpec[]
  files: Map<string, Buffer>
}

const HARMLESS: IssueSpec[] = [
  { id: 'SEC-2026-0001', vulnerable: true, fixes: { nosuchmodule: '1.0' } },
  { id: 'SEC-2026-0002' },
]

/** @param t  ends the server and removes its files */
export async function makeModuleUpstream(t: Teardown, catalogue: Catalogue): Promise<ModuleUpstream> {
  const keys = await moduleKeys()
  const folder = mkdtempSync(join(tmpdir(), 'gapferry-vendor-'))
  t.teardown(() => removeFolder(folder))
  const keyFile = join(folder, 'signer.key')
  writeFileSync(keyFile, keys.signer.publicArmored)
  const stands = new Map<number, Stand>()
  const publish = async (next: Catalogue) => void stands.set(next.major, await standOf(next, keys))
  await publish(catalogue)
  const upstream = await startUpstream(t, (request) => answer(stands, request))
  const find = (rawname: string, version: string, php?: string): ListedModule => {
    const all = [...stands.values()].flatMap((stand) => stand.modules)
    const one = all.find((any) => any.spec.rawname === rawname && any.spec.version === version && any.php === php)
    if (one === undefined) throw new Error(`the vendor has no ${rawname} ${version} ${php ?? ''}`)
    return one
  }
  return {
    ...upstream,
    keys,
    keyFile,
    publish,
    bytes: (...which) => find(...which).built.served,
    path: (...which) => `/modules/${find(...which).location}`,
    list: (major, form) => personalList(major, stands.get(major)!, new URLSearchParams(form)),
  }
}

async function standOf(
  { major, modules, issues = HARMLESS, sounds = [] }: Catalogue,
  keys: ModuleKeys,
): Promise<Stand> {
  const orders = modules.flatMap((spec) => {
    const signWith = { vendor: keys.signer, foreign: keys.foreign, no: undefined }[spec.signed ?? 'vendor']
    const sealWith = signWith ?? keys.signer
    return (spec.php ?? [undefined]).map((php) => ({ spec, php, signWith, sealWith }))
  })
  const built = await buildModules(orders)
  const listed = orders.map(({ spec, php }, i): ListedModule => {
    const location = spec.entry?.location ?? locationOf(spec, php)
    return { spec, built: built[i]!, location, ...(php === undefined ? {} : { php }) }
  })
  const there = listed.filter(({ spec }) => spec.absent !== true)
  const archives = there.map(({ location, built: { served } }) => [`/modules/${location}`, served] as const)
  const set = makeTgz({ 'freepbx/README.md': `the whole set of ${major}`, 'freepbx/amp_conf/x': 'x' })
  const wholeSet = [`/modules/packages/freepbx/freepbx-${major}.0-latest.tgz`, set] as const
  return { modules: listed, issues, sounds, files: new Map([...archives, wholeSet, ...soundFiles(sounds)]) }
}

function answer(stands: Map<number, Stand>, request: SeenRequest): Buffer | undefined {
  const { path, body } = request
  const form = new URLSearchParams(body)
  const list = /^\/(all|modules|sounds)-(\d+)\.0\.xml$/.exec(path)
  if (list !== null) {
    const major = Number(list[2])
    const stand = stands.get(major)
    if (stand === undefined) return undefined
    return Buffer.from(list[1] === 'sounds' ? soundsXml(stand.sounds) : personalList(major, stand, form))
  }
  if (/^\/version-[0-9.]+\.html$/.test(path)) return Buffer.from('<p>Thank you for choosing us.</p>')
  if (path === '/mversion.php') return Buffer.from(tagAnswer(stands, form))
  for (const { files } of stands.values()) if (files.has(path)) return files.get(path)
  return undefined
}

/** A request without a form sees no commercial module. */
function personalList(major: number, stand: Stand, form: URLSearchParams): string {
  return listXml(
    major,
    stand.modules.filter((one) => isFor(one, form)),
    stand.issues,
  )
}

function isFor({ spec, php }: ListedModule, form: URLSearchParams): boolean {
  const runs = form.get('phpver') ?? ''
  if (php !== undefined && runs !== php && !runs.startsWith(`${php}.`)) return false
  if (spec.only?.brand !== undefined && form.get('brandid') !== spec.only.brand) return false
  return spec.only?.deployment !== true || (form.get('deploymentid') ?? '') !== ''
}

function tagAnswer(stands: Map<number, Stand>, form: URLSearchParams): string {
  const major = Number.parseInt(form.get('framework') ?? '', 10)
  const one = stands
    .get(major)
    ?.modules.find(
      (any) => any.spec.rawname === form.get('rawname') && any.spec.version === form.get('tag') && isFor(any, form),
    )
  return one === undefined ? 'not found' : tagJson(one)
}
