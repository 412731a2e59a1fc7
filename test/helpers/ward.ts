/** What the doctor's tests need: a real mirror with packages and modules, what stands before it, and the doctor. */
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { readFileSync, writeFileSync } from 'node:fs'
import { createServer, request, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import { createServer as createPort, type AddressInfo } from 'node:net'
import { join } from 'node:path'
import type { Test } from 'tap'
import { sha256Of } from '../../manifests/digest.ts'
import type { TreePath } from '../../manifests/path.ts'
import { makeProgress } from '../../manifests/progress.ts'
import { writeRepomd } from '../../manifests/repomd.ts'
import { serializeTree, type Tree, type TreeEntry } from '../../manifests/tree.ts'
import { isVendorName } from '../../manifests/vendor-names.ts'
import { buildMirror } from '../../server/app.ts'
import { loadMirrorConfig } from '../../server/config.ts'
import { examine, type Doctor, type Patient } from '../../server/doctor/examine.ts'
import type { Sheet } from '../../server/doctor/sheet.ts'
import { runMirror } from '../../server/program.ts'
import { openStore } from '../../server/store.ts'
import { silent } from './content.ts'
import { inside } from './inside.ts'
import { signContent, writeParts, type TestContent } from './mirror.ts'
import { listXml, locationOf, type IssueSpec, type ModuleSpec } from './module-list.ts'
import { sampleKeys } from './part.ts'
import type { Outcome } from './process.ts'
import { DAY, makeRoot } from './site.ts'
import { soundsXml, soundFiles, type SoundSpec } from './sound-upstream.ts'

/** What a mirror serves. */
export interface WardFiles {
  modules?: ModuleSpec[]
  issues?: IssueSpec[]
  sounds?: SoundSpec[]
  /** path → bytes; undefined leaves out what would be there */
  files?: Record<string, string | undefined>
}

/** @returns true where it answered itself */
type Front = (req: IncomingMessage, res: ServerResponse) => boolean

export interface WardArgs extends WardFiles {
  /** default 127.0.0.1 */
  name?: string
  /** under `hosts` in mirror.yaml */
  hosts?: string[]
  /** something stands between the boxes and the mirror */
  front?: Front
  /** the front speaks https with this certificate */
  tls?: { key: string; cert: string }
  expiresAtMs?: number
  /** the origin answers under the vendor's names, too */
  vendorNames?: boolean
  /** default true */
  isListening?: boolean
}

export interface Ward {
  dir: string
  origin: string
  port: number
  /** `gapferry-mirror …` in the mirror's folder */
  run: (...args: string[]) => Promise<Outcome>
  /** the round with something else before the mirror; needs a front */
  behind: (front: Front, doctor?: Partial<Doctor>) => Promise<Sheet>
  /** the doctor's round with other surroundings than a person has */
  examine: (patient?: Partial<Patient>, doctor?: Partial<Doctor>) => Promise<Sheet>
}

const PACKAGE = 'a package'
const ISSUES: IssueSpec[] = [{ id: 'SEC-1' }, { id: 'SEC-2' }]
export const MODULES: ModuleSpec[] = [
  { rawname: 'framework', version: '16.0.40.11' },
  { rawname: 'core', version: '16.0.68', depends: { module: 'framework ge 16.0.40' } },
  { rawname: 'labmod', version: '16.0.2', signed: 'no', depends: { module: ['core', 'framework'] } },
]

/** A mirror of group `pbx`, released and listening. */
export async function makeWard(t: Test, args: WardArgs = {}): Promise<Ward> {
  const { name = '127.0.0.1', hosts = [], isListening = true } = args
  const front = args.front === undefined ? undefined : await startFront(t, args.front, args.tls)
  const inner = await freePort()
  const port = front?.port ?? inner
  const origin = `${args.tls === undefined ? 'http' : 'https'}://${name}:${port}`
  const root = makeRoot(sampleKeys, { expiresAtMs: Date.now() + 1826 * DAY })
  const dir = t.testdir({ 'root.json': root })
  const run: Ward['run'] = (...words) => inside(runMirror, join(dir, 'mir'), words)
  const must = async (...words: string[]): Promise<void> => {
    const outcome = await inside(runMirror, dir, words)
    if (outcome.status !== 0) throw new Error(outcome.stderr)
  }
  const named = hosts.flatMap((host) => ['--host', host])
  await must(
    ...['init', 'mir', '--trust', 'root.json', '--yes', '--origin', `pbx=127.0.0.1:${inner}`, ...named],
    ...['--admin', '127.0.0.1:0'],
  )
  if (args.vendorNames === true) nameIt(join(dir, 'mir/mirror.yaml'))
  const { expiresAtMs } = args
  const signed = signContent(wardContent(args), {
    roots: [root],
    origin,
    createdAtMs: Date.now() - DAY,
    ...(expiresAtMs === undefined ? {} : { expiresAtMs }),
  })
  const isOver = expiresAtMs !== undefined && expiresAtMs <= Date.now()
  const over = isOver ? ['--accept-expired', '--reason', 'a test'] : []
  await must('import', '--release', ...over, ...writeParts(join(dir, 'stick'), signed), '--config', 'mir/mirror.yaml')
  if (isListening) {
    await startMirror(t, dir)
    front?.lead(inner)
  }
  return {
    ...{ dir, origin, port, run },
    examine: (patient, doctor) => round(dir, { origin, ...patient }, doctor),
    behind: async (next, doctor) => {
      front!.change(next)
      return round(dir, { origin }, doctor)
    },
  }
}

function nameIt(file: string): void {
  writeFileSync(file, readFileSync(file, 'utf8').replace(/^( +)hosts: /m, '$1vendorNames: true\n$&'))
}

/** The doctor's round over group `pbx` of the mirror in `dir`. */
async function round(dir: string, patient: Partial<Patient>, doctor: Partial<Doctor> = {}): Promise<Sheet> {
  const config = loadMirrorConfig(join(dir, 'mir/mirror.yaml'))
  const store = openStore(config.storeDir)
  try {
    const released = store.releases.served(Number.MAX_SAFE_INTEGER).get('pbx')!.released
    return await examine(
      {
        ...{ group: 'pbx', origin: undefined, listener: config.origins[0], released, box: undefined },
        ...{ moduleRepos: [], contacts: [], expiresAtMs: undefined, ...patient },
      },
      {
        configFile: 'mirror.yaml',
        network: { lookup: async () => ['127.0.0.1'], addresses: () => ['192.0.2.9', '127.0.0.1'] },
        progress: makeProgress({ stderr: { write: () => true } as unknown as NodeJS.WritableStream, nowMs: Date.now }),
        ...{ nowMs: Date.now, clockFault: undefined, signal: new AbortController().signal, ...doctor },
      },
    )
  } finally {
    store.close()
  }
}

/** One tree with a yum repository, a module list, and what both name. */
function wardContent({ modules = MODULES, issues = ISSUES, sounds = [], files = {} }: WardFiles): TestContent {
  const entries = new Map<TreePath, TreeEntry>()
  const blobs: TestContent['blobs'] = new Map()
  const add = (path: string, text: string | Buffer, kind: TreeEntry['kind'], of?: string): void => {
    const own = path in files ? files[path] : text
    if (own === undefined) return
    const bytes = Buffer.from(own)
    blobs.set(sha256Of(bytes), bytes)
    const entry = { sha256: sha256Of(bytes), bytes: bytes.length, modified: 1_700_000_000, type: 'text/plain', kind }
    entries.set(path as TreePath, of === undefined ? entry : { ...entry, of: of as TreePath })
  }
  const repomd = 'yum/base/repodata/repomd.xml'
  add('gapferry-pbx.repo', '[base]\n', 'pointer')
  add(repomd, repomdOf('<metadata/>'), 'pointer')
  add(`${repomd}.asc`, '-----BEGIN PGP SIGNATURE-----\n', 'companion', repomd)
  add('yum/base/repodata/primary.xml.gz', '<metadata/>', 'immutable')
  add('yum/base/a.rpm', PACKAGE, 'immutable')
  if (modules.length > 0) addModules(add, modules, issues)
  add('sounds-16.0.xml', soundsXml(sounds), 'pointer')
  for (const [path, bytes] of soundFiles(sounds)) add(path.slice(1), bytes, 'immutable')
  for (const [path, text] of Object.entries(files)) if (text !== undefined) add(path, text, 'pointer')
  const sorted = new Map([...entries].sort(([a], [b]) => (a < b ? -1 : 1)))
  const tree: Tree = {
    site: 'hq',
    group: 'pbx',
    role: 'current',
    number: 1,
    stamps: new Map([['base', 1]]),
    entries: sorted,
  }
  const bytes = serializeTree(tree)
  const target = { sha256: sha256Of(bytes), bytes: bytes.length }
  return { number: 1, targets: new Map([['pbx/current', target]]), trees: new Map([[target.sha256, bytes]]), blobs }
}

type Add = (path: string, text: string | Buffer, kind: TreeEntry['kind'], of?: string) => void

function addModules(add: Add, modules: ModuleSpec[], issues: IssueSpec[]): void {
  const listed = modules.map((spec) => {
    const isSigned = spec.signed !== 'no'
    const tgz = Buffer.from(`archive of ${spec.rawname} ${spec.version}`)
    const served = isSigned ? Buffer.concat([Buffer.from('signed '), tgz]) : tgz
    return { spec, built: { tgz, served, isSigned }, location: spec.entry?.location ?? locationOf(spec) }
  })
  add('all-16.0.xml', listXml(16, listed, issues), 'pointer')
  for (const { spec, location, built } of listed) {
    if (spec.absent !== true && /^[a-z]/.test(location)) add(`modules/${location}`, built.served, 'immutable')
    const answer = { rawname: spec.rawname, version: spec.version, location }
    add(`gapferry/modules/${spec.rawname}-${spec.version}.json`, JSON.stringify(answer), 'pointer')
    if (spec.rawname === 'framework') add(`version-${spec.version}.html`, '', 'pointer')
  }
}

function repomdOf(primary: string): Buffer {
  const checksum = { algorithm: 'sha256', hex: createHash('sha256').update(primary).digest('hex') } as const
  const data = { type: 'primary', checksum, href: 'repodata/primary.xml.gz', timestamp: 1, bytes: primary.length }
  return writeRepomd({ revision: '1', data: [data] })
}

async function startMirror(t: Test, dir: string): Promise<void> {
  const config = loadMirrorConfig(join(dir, 'mir/mirror.yaml'))
  const store = openStore(config.storeDir)
  const mirror = buildMirror({
    ...{ config, releases: store.releases, blobs: store.blobs, clock: Date.now, log: silent },
    status: () => ({ site: 'hq', createdAtMs: null, store: { path: store.dir } }),
  })
  await mirror.listen()
  t.teardown(async () => {
    await mirror.close()
    store.close()
  })
}

async function startFront(t: Test, first: Front, tls: WardArgs['tls']) {
  let inner = 0
  let front = first
  const handle = (req: IncomingMessage, res: ServerResponse): void => {
    if (front(req, res)) return
    const { host = '' } = req.headers
    const headers = { ...req.headers, host: isVendorName(host) ? host.split(':')[0] : `127.0.0.1:${inner}` }
    const { method, url: path } = req
    const outgoing = request({ host: '127.0.0.1', port: inner, method, path, headers, agent: false }, (answer) => {
      res.writeHead(answer.statusCode!, answer.rawHeaders)
      answer.pipe(res)
    })
    outgoing.on('error', () => res.destroy())
    req.pipe(outgoing)
  }
  const server: Server = tls === undefined ? createServer(handle) : createTlsServer(tls, handle)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => {
    server.close()
    server.closeAllConnections()
  })
  return {
    port: (server.address() as AddressInfo).port,
    lead: (port: number) => (inner = port),
    change: (next: Front) => (front = next),
  }
}

async function freePort(): Promise<number> {
  const server = createPort().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}

/** Every finding as `check: what was seen`. */
function findings(sheet: Sheet): string[] {
  return sheet.findings.map(({ check, text }) => `${check}: ${text}`)
}

/** One finding under this name, complete; others may be there. */
export function hasFinding(t: Test, sheet: Sheet, check: string, text: RegExp): void {
  const found = sheet.findings.find((one) => one.check === check && text.test(one.text))
  if (!t.ok(found, `${check} ${String(text)}`)) t.comment(findings(sheet).join('\n'))
  for (const part of ['asked', 'effect', 'remedy'] as const) t.ok((found?.[part] ?? '').length > 10, part)
}

export const pass: Front = () => false

/** A front that answers `path` itself. */
export const answering =
  (path: string, answer: (res: ServerResponse, req: IncomingMessage) => void): Front =>
  (req, res) => {
    if (req.url!.split('?')[0] !== path || req.method === 'HEAD') return false
    req.resume()
    answer(res, req)
    return true
  }
