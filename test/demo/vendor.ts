/**
 * The sample vendor's modules: made and signed at the first start, with a key made then, and found by a second one. They
 * have the names of real ones and nothing of them inside.
 */
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { join } from 'node:path'
import { createMessage, generateKey, readPrivateKey, sign, type PrivateKey } from 'openpgp'
import { makeTgz, moduleXml } from '../helpers/module-archive.ts'
import {
  listXml,
  locationOf,
  tagJson,
  type IssueSpec,
  type ListedModule,
  type ModuleSpec,
} from '../helpers/module-list.ts'
import type { Route } from '../helpers/static-server.ts'

export interface Vendor {
  /** its public key, as its boxes have it beside their framework */
  keyFile: string
  /** answers what boxes ask for modules */
  route: Route
}

const MODULES: ModuleSpec[] = [
  { rawname: 'framework', version: '16.0.40.11', payloadBytes: 160_000 },
  { rawname: 'core', version: '16.0.68.30', payloadBytes: 90_000, depends: { module: 'framework ge 16.0.40' } },
  { rawname: 'sipsettings', version: '16.0.20.5', payloadBytes: 12_000, depends: { module: 'core' } },
  { rawname: 'voicemail', version: '16.0.38', payloadBytes: 18_000, depends: { module: 'core ge 16.0.60' } },
  { rawname: 'backup', version: '16.0.64.9', payloadBytes: 30_000, depends: { module: 'core' } },
  { rawname: 'dashboard', version: '16.0.18.2', payloadBytes: 15_000 },
  {
    ...{ rawname: 'endpoint', version: '16.0.60.12', payloadBytes: 400_000, php: ['7.4'], repo: 'commercial' },
    depends: { module: ['restapps ge 16.0.20', 'core'], phpversion: '7.4' },
  },
  { rawname: 'restapps', version: '16.0.24.3', payloadBytes: 60_000, php: ['7.4'], repo: 'commercial' },
  ...['fax', 'ivr', 'queues', 'ringgroups'].map((rawname) => ({ rawname, version: '16.0.12', payloadBytes: 40_000 })),
]
const ISSUES: IssueSpec[] = [
  { id: 'SEC-2026-0001', vulnerable: true, fixes: { framework: '16.0.40.7' } },
  { id: 'SEC-2026-0002' },
]
const RSA_BITS = 3072

/** @param dir  holds what is made */
export async function makeVendor(dir: string): Promise<Vendor> {
  mkdirSync(dir, { recursive: true })
  const keyFile = join(dir, 'vendor.asc')
  const key = await vendorKey(dir, keyFile)
  const listed = await Promise.all(MODULES.map((spec) => publish(dir, spec, key)))
  return { keyFile, route: (request, response) => answer(listed, request, response) }
}

async function vendorKey(dir: string, publicFile: string): Promise<PrivateKey> {
  const file = join(dir, 'vendor.secret.asc')
  if (!existsSync(file) || !existsSync(publicFile)) {
    const userIDs = [{ name: 'The demo’s sample vendor' }]
    const made = await generateKey({ type: 'rsa', rsaBits: RSA_BITS, userIDs, format: 'armored' })
    writeFileSync(publicFile, made.publicKey)
    writeFileSync(file, made.privateKey, { mode: 0o600 })
  }
  return readPrivateKey({ armoredKey: readFileSync(file, 'utf8') })
}

async function publish(dir: string, spec: ModuleSpec, key: PrivateKey): Promise<ListedModule> {
  const location = locationOf(spec, spec.php?.[0])
  const file = join(dir, location.replaceAll('/', '-'))
  const top = spec.rawname
  const tgz = makeTgz({
    [`${top}/module.xml`]: moduleXml(spec),
    [`${top}/page.${top}.php`]: `<?php // ${top} ${spec.version}\n`,
    [`${top}/assets/noise.bin`]: noise(spec),
  })
  if (!existsSync(file)) {
    const message = await createMessage({ binary: new Uint8Array(tgz) })
    writeFileSync(`${file}.new`, await sign({ message, signingKeys: key, format: 'binary' }))
    renameSync(`${file}.new`, file)
  }
  const php = spec.php?.[0]
  return {
    spec,
    built: { tgz, served: readFileSync(file), isSigned: true },
    location,
    ...(php === undefined ? {} : { php }),
  }
}

/** Bytes that do not shrink, so that modules have a size. */
function noise({ rawname, version, payloadBytes = 600 }: ModuleSpec): Buffer {
  return createHash('shake256', { outputLength: payloadBytes }).update(`${rawname} ${version}`).digest()
}

function answer(listed: ListedModule[], request: IncomingMessage, response: ServerResponse): boolean {
  const path = (request.url ?? '').split('?')[0]!
  if (!/^\/(?:(?:all|modules|sounds)-16\.0\.xml|mversion\.php|version-[0-9.]+\.html|modules\/.*)$/.test(path))
    return false
  void respond(listed, path, request, response)
  return true
}

async function respond(listed: ListedModule[], path: string, request: IncomingMessage, response: ServerResponse) {
  const form = await readForm(request)
  const body = listed.find(({ location }) => path === `/modules/${location}`)?.built.served ?? made(listed, path, form)
  response.writeHead(body === undefined ? 404 : 200, { 'content-length': body?.length ?? 0 })
  response.end(request.method === 'HEAD' ? undefined : body)
}

function made(listed: ListedModule[], path: string, form: URLSearchParams): Buffer | undefined {
  if (path === '/mversion.php') {
    const one = listed.find(({ spec }) => spec.rawname === form.get('rawname') && spec.version === form.get('tag'))
    return Buffer.from(one === undefined ? '' : tagJson(one))
  }
  if (path.startsWith('/version-')) return Buffer.alloc(0)
  if (path === '/sounds-16.0.xml') return Buffer.from('<xml><sounds/></xml>')
  const phpver = form.get('phpver') ?? ''
  // As at a real vendor's: the list is made for the box that asks.
  const fitting = listed.filter(({ php }) => php === undefined || phpver.startsWith(`${php}.`))
  return path.startsWith('/modules/') ? undefined : Buffer.from(listXml(16, fitting, ISSUES))
}

async function readForm(request: IncomingMessage): Promise<URLSearchParams> {
  const pieces: Buffer[] = []
  for await (const piece of request as AsyncIterable<Buffer>) pieces.push(piece)
  return new URLSearchParams(Buffer.concat(pieces).toString())
}
