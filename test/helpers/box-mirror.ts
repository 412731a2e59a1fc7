/** A mirror with a listener for boxes, and boxes that come to it. */
import { createHash, createPublicKey, generateKeyPairSync, sign, type KeyObject } from 'node:crypto'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { connect, type ConnectionOptions, type TLSSocket } from 'node:tls'
import { pino } from 'pino'
import type { Test } from 'tap'
import { sealCms } from '../../manifests/cms.ts'
import { bitString, der, integer, oid, sequence } from '../../manifests/der.ts'
import { sha256Of } from '../../manifests/digest.ts'
import { GapferryError } from '../../manifests/errors.ts'
import { BoxAccess, type BoxAccessArgs } from '../../server/box-access.ts'
import { boxListener, type BoxListener } from '../../server/box-listener.ts'
import { newCode, proofOf, sealCode } from '../../server/enrol-code.ts'
import { deploymentHmac, ensureIdentity, type Identity } from '../../server/identity.ts'
import type { SealedLicense } from '../../server/license-source.ts'
import { openStore, type MirrorStore } from '../../server/store.ts'
import { makeStore } from './mirror.ts'
import { sampleRoot } from './part.ts'

const HOUR_MS = 3_600_000

export interface TestBox {
  name: string
  key: KeyObject
  /** PEM */
  certificate: string
}

export interface Answer {
  status: number
  headers: Map<string, string>
  body: Buffer
  /** all that came, but for what Date says */
  plain: string
}

export interface BoxMirror {
  dir: string
  store: MirrorStore
  identity: Identity
  access: BoxAccess
  listener: BoxListener
  /** what the mirror logged */
  log: string[]
  inventories: { box: string; bytes: Buffer }[]
  /** moves the mirror's clock */
  later: (ms: number) => void
  /** lets `name` enrol; a code with dashes */
  offer: (name: string, deployment?: string) => string
  /** puts a license there, sealed for the mirror. @returns the digest of its content */
  license: (deployment: string, content: string) => Promise<string>
  licenses: Map<string, SealedLicense>
  enrol: (name: string, how?: { code?: string; deployment?: string; key?: KeyObject }) => Promise<TestBox>
  /** sends exact bytes, with the certificate of `box` */
  send: (bytes: string | Buffer, box?: TestBox, options?: ConnectionOptions) => Promise<Answer | undefined>
  get: (path: string, box?: TestBox, headers?: Record<string, string>) => Promise<Answer>
  put: (path: string, body: string | Buffer, box?: TestBox) => Promise<Answer>
  rows: () => { command: string | undefined; who: string; result: string; reason: string | undefined }[]
}

/** @param options.refusalMs  as in the listener; short, where a test does not look at it */
export async function boxMirror(t: Test, options: { refusalMs?: number } = {}): Promise<BoxMirror> {
  const dir = t.testdir()
  const made = makeStore(dir)
  made.catalog.pin({ site: 'hq', root: sampleRoot, nowMs: Date.now() })
  made.catalog.close()
  const store = openStore(made.root)
  const identity = ensureIdentity(store, Date.now())
  const log: string[] = []
  const inventories: BoxMirror['inventories'] = []
  const licenses = new Map<string, SealedLicense>()
  let aheadMs = 0
  const nowMs = (): number => Date.now() + aheadMs
  const args: BoxAccessArgs = {
    ...{ store, identity },
    licenses: { licenseFor: (deployment) => Promise.resolve(licenses.get(deployment)) },
    keepInventory: ({ box, bytes }) => {
      if (bytes.toString().startsWith('refuse')) throw new GapferryError('INVENTORY_INVALID', bytes.toString())
      inventories.push({ box, bytes })
    },
    around: { nowMs, user: 'test', signal: new AbortController().signal, stderr: process.stderr },
    log: pino({ base: null }, { write: (line: string) => void log.push(line) }),
  }
  const access = new BoxAccess(args)
  const listener = boxListener({
    listener: { host: '127.0.0.1', port: 0, hosts: ['localhost'] },
    ...{ site: 'hq', authority: identity.authority, access, log: args.log, refusalMs: options.refusalMs ?? 1 },
  })
  await listener.listen()
  t.teardown(async () => {
    await listener.close()
    store.close()
  })
  const port = Number(new URL(listener.url).port)
  const mirror: BoxMirror = {
    ...{ dir, store, identity, access, listener, log, inventories, licenses },
    later: (ms) => void (aheadMs += ms),
    offer(name, deployment) {
      const code = newCode()
      const sealed = sealCode(code, name, { key: identity.key, site: 'hq' })
      const bound = deployment === undefined ? null : deploymentHmac(identity, 'hq', deployment)
      store.catalog.write(() =>
        store.catalog.enrolments.putCode({
          ...{ name, code: sealed, deployment: bound },
          nowMs: nowMs(),
          endsAtMs: nowMs() + 24 * HOUR_MS,
        }),
      )
      return code
    },
    async license(deployment, content) {
      const cms = await sealCms(Buffer.from(content), [identity.delivery.certificate.raw])
      const digest = sha256Of(Buffer.from(content))
      licenses.set(deploymentHmac(identity, 'hq', deployment), { cms, recipient: 'mirror', content: digest })
      return digest
    },
    async enrol(name, how = {}) {
      const code = how.code ?? mirror.offer(name, how.deployment)
      const key = how.key ?? generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey
      const answer = await enrolWith(port, { name, code, request: requestFor(key) })
      if (answer.status !== 200) throw new Error(`enrolment of ${name}: ${answer.status}`)
      const { certificate } = JSON.parse(answer.body.toString()) as { certificate: string }
      return { name, key, certificate }
    },
    send: (bytes, box, more) => exchange(port, bytes, { ...ofBox(box), ...more }),
    get: (path, box, headers = {}) => ask(port, head('GET', path, headers), box),
    put: (path, body, box) => {
      const length = { 'Content-Length': String(Buffer.byteLength(body)) }
      return ask(port, Buffer.concat([Buffer.from(head('PUT', path, length)), Buffer.from(body)]), box)
    },
    rows: () => {
      store.catalog.audit.verify()
      return store.catalog.audit
        .rows()
        .map(({ what, who, result }) => ({ command: what?.command, who, result, reason: what?.reason }))
    },
  }
  return mirror
}

/** The body of an enrolment, as a box makes it that saw `server`. */
export function enrolment(args: { name: string; code: string; request: Buffer; server: Buffer }): string {
  const { name, code, request, server } = args
  const proof = proofOf(code, 'gapferry-enrol 1', name, hex(request), hex(server))
  return JSON.stringify({ name, request: pem(request), proof })
}

export function post(path: string, body: string | Buffer, headers: Record<string, string> = {}): Buffer {
  const length = { 'Content-Length': String(Buffer.byteLength(body)), ...headers }
  return Buffer.concat([Buffer.from(head('POST', path, length)), Buffer.from(body)])
}

/** Enrols over one connection: the proof is over the certificate that is seen there. */
export async function enrolWith(
  port: number,
  asked: { name: string; code: string; request: Buffer },
  change: (body: string) => string = (body) => body,
): Promise<Answer> {
  const answer = await exchange(port, (socket) => {
    const server = socket.getPeerX509Certificate()!.raw
    return post('/enrol', change(enrolment({ ...asked, server })))
  })
  if (answer === undefined) throw new Error('no answer')
  return answer
}

/** PKCS #10, as `openssl req -new -sha256` makes it. */
export function requestFor(key: KeyObject, options: { signer?: KeyObject; hash?: 'sha256' | 'sha384' } = {}): Buffer {
  const { signer = key, hash = 'sha256' } = options
  const spki = spkiOf(key)
  const info = sequence(integer(Buffer.of(0)), sequence(), spki, der(0xa0))
  const isEc = signer.asymmetricKeyType === 'ec'
  const ecdsa = { sha256: '1.2.840.10045.4.3.2', sha384: '1.2.840.10045.4.3.3' }[hash]
  const algorithm = isEc ? sequence(oid(ecdsa)) : sequence(oid('1.2.840.113549.1.1.11'), Buffer.of(5, 0))
  return sequence(info, algorithm, bitString(sign(hash, info, signer)))
}

export function pem(request: Buffer, label = 'CERTIFICATE REQUEST'): string {
  return `-----BEGIN ${label}-----\n${request.toString('base64').replace(/.{64}/g, '$&\n')}\n-----END ${label}-----\n`
}

/** Writes a box's files as `gapferry-box` has them. */
export function writeBox(dir: string, box: TestBox, identity: Identity): void {
  mkdirSync(dir, { recursive: true })
  writeFileSync(join(dir, 'box.key'), box.key.export({ type: 'pkcs8', format: 'pem' }))
  writeFileSync(join(dir, 'box.pem'), box.certificate)
  writeFileSync(join(dir, 'authority.pem'), identity.authority.certificate.toString())
}

export function head(method: string, path: string, headers: Record<string, string> = {}): string {
  const fields = Object.entries({ Host: 'x', ...headers }).map(([name, value]) => `${name}: ${value}\r\n`)
  return `${method} ${path} HTTP/1.1\r\n${fields.join('')}\r\n`
}

/** What a server sends until it closes, or until one answer is whole. undefined: it closed without a word of HTTP. */
export function exchange(
  port: number,
  bytes: string | Buffer | ((socket: TLSSocket) => string | Buffer),
  options: ConnectionOptions = {},
): Promise<Answer | undefined> {
  return new Promise((done) => {
    const chunks: Buffer[] = []
    const socket = connect({ host: '127.0.0.1', port, rejectUnauthorized: false, ...options })
    const finish = (): void => {
      socket.destroy()
      done(parseAnswer(Buffer.concat(chunks)))
    }
    socket.on('secureConnect', () => socket.write(typeof bytes === 'function' ? bytes(socket) : bytes))
    socket.on('data', (chunk: Buffer) => {
      chunks.push(chunk)
      const answer = parseAnswer(Buffer.concat(chunks))
      if (answer !== undefined && isWhole(answer)) finish()
    })
    socket.on('error', finish)
    socket.on('close', finish)
  })
}

function ask(port: number, bytes: string | Buffer, box: TestBox | undefined): Promise<Answer> {
  return exchange(port, bytes, ofBox(box)).then((answer) => {
    if (answer === undefined) throw new Error('no answer')
    return answer
  })
}

/** What a box connects with. */
export function ofBox(box: TestBox | undefined): ConnectionOptions {
  return box === undefined ? {} : { key: box.key.export({ type: 'pkcs8', format: 'pem' }), cert: box.certificate }
}

function isWhole({ status, headers, body }: Answer): boolean {
  return status === 304 || status === 204 || body.length >= Number(headers.get('content-length') ?? Infinity)
}

function parseAnswer(bytes: Buffer): Answer | undefined {
  const end = bytes.indexOf('\r\n\r\n')
  if (end < 0) return undefined
  const [first = '', ...lines] = bytes.subarray(0, end).toString('latin1').split('\r\n')
  const headers = new Map(
    lines.map((line) => [line.slice(0, line.indexOf(':')).toLowerCase(), line.slice(line.indexOf(':') + 2)] as const),
  )
  const plain = bytes.toString('latin1').replace(/^Date: .*$/m, 'Date: -')
  return { status: Number(first.split(' ')[1]), headers, body: bytes.subarray(end + 4), plain }
}

function spkiOf(key: KeyObject): Buffer {
  return createPublicKey(key).export({ type: 'spki', format: 'der' })
}

function hex(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex')
}
