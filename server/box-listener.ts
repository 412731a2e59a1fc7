/**
 * The listener that boxes come to: TLS with certificates of the mirror's own authority. A client without one may enrol; one
 * with another one, or one that is not valid, is not spoken to. There are four answers that say something; everything else,
 * whatever it is and for whatever reason, is one and the same 404, a fixed time after its request had come.
 */
import { constants, generateKeyPairSync } from 'node:crypto'
import { once } from 'node:events'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer, type Server } from 'node:https'
import { isIP, type AddressInfo, type Socket } from 'node:net'
import type { TLSSocket } from 'node:tls'
import type { Logger } from 'pino'
import { isIssuedBy } from '../manifests/certificate.ts'
import { GapferryError } from '../manifests/errors.ts'
import { systemCode } from '../storage/durable.ts'
import { Once } from './allowance.ts'
import type { BoxAccess, Caller } from './box-access.ts'
import { formatListen, isAnyAddress, listenerUrl, type Listener } from './config.ts'
import { lifeOf } from './identity.ts'
import { issueCertificate, pemOf, type Issuer } from './issue.ts'
import { ConnectionLimit, IDLE_MS, LIMITS } from './listener.ts'
import { errorFields } from './send.ts'

export interface BoxListenerArgs {
  listener: Listener
  site: string
  authority: Issuer
  access: Pick<BoxAccess, 'enrol' | 'license' | 'inventory' | 'result' | 'mayAsk'>
  log: Logger
  /** between the end of a request and its refusal; all that is looked at takes less */
  refusalMs?: number
}

export interface BoxListener {
  /** @throws LISTEN_FAILED */
  listen(): Promise<void>
  close(): Promise<void>
  /** with the real port once it listens */
  readonly url: string
}

const REFUSAL_MS = 250
const HANDSHAKE_MS = 5_000
/** for a whole request: an inventory, over a slow line */
const REQUEST_MS = 60_000
const CLOSE_GRACE_MS = 2_000
const MAX_ENROLMENT_BYTES = 32 * 1024
const MAX_INVENTORY_BYTES = 4 * 1024 * 1024
const MAX_RESULT_BYTES = 64 * 1024
/** bodies of one box at a time: one that lost its line may begin anew before that shows here */
const MAX_SENDING = 3
/** A machine has some; somebody who connects to ever more of them shall not make the certificate grow. */
const MAX_ADDRESSES = 32
const LOG_MS = 60_000
const PATH = /^\/boxes\/([A-Za-z0-9._-]{1,64})\/(license|inventory|result)$/
/** AES-GCM with an ephemeral key only; the names of TLS 1.3 first. */
const CIPHERS = [
  'TLS_AES_256_GCM_SHA384',
  'TLS_AES_128_GCM_SHA256',
  'ECDHE-ECDSA-AES256-GCM-SHA384',
  'ECDHE-ECDSA-AES128-GCM-SHA256',
].join(':')

/** Not listening yet. */
export function boxListener(args: BoxListenerArgs): BoxListener {
  const { listener, log } = args
  const limit = new ConnectionLimit()
  const certificate = new ServerCertificate(args)
  const server = createServer(
    {
      ...LIMITS,
      requestTimeout: REQUEST_MS,
      handshakeTimeout: HANDSHAKE_MS,
      requireHostHeader: false,
      ...certificate.options(),
    },
    (req, res) => void answer(req, res, args),
  )
  server.maxHeadersCount = 0
  server.setTimeout(IDLE_MS)
  // Before the handshake begins, which takes the certificate that is set then.
  server.prependListener('connection', (socket: Socket) => {
    if (certificate.learn(socket.localAddress)) server.setSecureContext(certificate.options())
  })
  server.on('connection', (socket: Socket) => limit.admit(socket))
  const notices = new Notices(args)
  server.prependListener('secureConnection', (socket) => {
    if (isStranger(socket)) {
      notices.stranger(socket)
      socket.destroy()
    }
  })
  server.on('tlsClientError', (error, socket) => notices.failed(error, socket))
  server.on('clientError', (_, socket) => socket.destroy())
  server.on('checkExpectation', (req: IncomingMessage, res: ServerResponse) => void answer(req, res, args))
  return {
    async listen() {
      await open(server, listener)
      log.info({ url: this.url }, 'boxes')
    },
    close: () => close(server),
    get url() {
      const port = (server.address() as AddressInfo | null)?.port ?? listener.port
      return listenerUrl({ ...listener, port }).replace('http:', 'https:')
    },
  }
}

/** The listener's own certificate: its key is only here, and lives as long as this process. */
class ServerCertificate {
  readonly #args: Pick<BoxListenerArgs, 'site' | 'authority'>
  readonly #key = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey
  readonly #hosts: Set<string>

  constructor({ listener, ...args }: BoxListenerArgs) {
    this.#args = args
    const names = listener.hosts.map((host) => host.replace(/:\d+$/, '').replace(/^\[(.*)\]$/, '$1'))
    this.#hosts = new Set([...names, ...(isAnyAddress(listener.host) ? [] : [listener.host])])
  }

  /** An address of ours that a client came to. @returns whether it was new */
  learn(localAddress: string | undefined): boolean {
    const address = plainAddress(localAddress)
    if (isIP(address) === 0 || this.#hosts.has(address) || this.#hosts.size >= MAX_ADDRESSES) return false
    this.#hosts.add(address)
    return true
  }

  options() {
    const { site, authority } = this.#args
    const own = issueCertificate({
      kind: 'server',
      site,
      name: 'boxes',
      key: this.#key,
      issuer: authority,
      ...lifeOf(authority),
      hosts: [...this.#hosts],
    })
    const issuer = pemOf(authority.certificate.raw)
    return {
      key: this.#key.export({ type: 'pkcs8', format: 'pem' }),
      cert: pemOf(own) + issuer,
      ca: issuer,
      requestCert: true,
      rejectUnauthorized: false, // or nobody could enrol
      minVersion: 'TLSv1.2' as const,
      ciphers: CIPHERS,
      honorCipherOrder: true,
      // A resumed session would bring a certificate that was judged at another time.
      secureOptions: constants.SSL_OP_NO_TICKET | constants.SSL_OP_NO_RENEGOTIATION,
    }
  }
}

/** Who has a certificate that is none of ours, or not now. */
function isStranger(socket: TLSSocket): boolean {
  return !socket.authorized && socket.getPeerX509Certificate() !== undefined
}

async function answer(req: IncomingMessage, res: ServerResponse, args: BoxListenerArgs): Promise<void> {
  const heard = { atMs: performance.now() }
  try {
    if (!(await tryAnswer(req, res, args, heard))) refuse(res, args, heard)
  } catch (error) {
    args.log.error(errorFields(error), 'a request of a box failed')
    refuse(res, args, heard)
  }
}

/** @param heard  when the request had come, with its body
 *  @returns whether there is an answer */
async function tryAnswer(
  req: IncomingMessage,
  res: ServerResponse,
  { access }: BoxListenerArgs,
  heard: { atMs: number },
): Promise<boolean> {
  const readWhole = async (maxBytes: number): Promise<Buffer | undefined> => {
    const body = await readBody(req, maxBytes)
    heard.atMs = performance.now()
    return body
  }
  const caller = callerOf(req.socket as TLSSocket)
  const { method, url = '' } = req
  if (url === '/enrol' && method === 'POST') {
    const body = await readWhole(MAX_ENROLMENT_BYTES)
    const server = (req.socket as TLSSocket).getX509Certificate()?.raw
    const made = body === undefined || server === undefined ? undefined : access.enrol(body, server, caller)
    return made !== undefined && send(res, 200, { 'Content-Type': 'application/json' }, made)
  }
  const [, name = '', what] = PATH.exec(url) ?? []
  if (what === 'license' && method === 'GET') return sendLicense(req, res, { name, caller, access })
  if (method !== 'PUT' || (what !== 'inventory' && what !== 'result') || !access.mayAsk(name, caller)) return false
  const maxBytes = what === 'inventory' ? MAX_INVENTORY_BYTES : MAX_RESULT_BYTES
  const body = await sending.within(caller.certificate!, () => readWhole(maxBytes))
  if (body === undefined) return false
  const isKept = what === 'result' ? access.result(body, name, caller) : access.inventory(body, name, caller)
  return isKept && send(res, 204, {})
}

/** How many bodies each box is sending: so much of each may lie in memory. */
class Sending {
  readonly #counts = new Map<string, number>()

  /** @returns undefined, and `read` is not called, where it sends MAX_SENDING already */
  async within(certificate: string, read: () => Promise<Buffer | undefined>): Promise<Buffer | undefined> {
    const count = this.#counts.get(certificate) ?? 0
    if (count >= MAX_SENDING) return undefined
    this.#counts.set(certificate, count + 1)
    try {
      return await read()
    } finally {
      const left = this.#counts.get(certificate)! - 1
      if (left === 0) this.#counts.delete(certificate)
      else this.#counts.set(certificate, left)
    }
  }
}

const sending = new Sending()

async function sendLicense(
  req: IncomingMessage,
  res: ServerResponse,
  { name, caller, access }: { name: string; caller: Caller; access: BoxListenerArgs['access'] },
): Promise<boolean> {
  const header = req.headers['gapferry-deployment']
  const deployment = typeof header === 'string' ? header : undefined
  const has = [...(req.headers['if-none-match'] ?? '').matchAll(/"([0-9a-f]{64})"/g)].map(([, digest]) => digest!)
  const license = await access.license({ name, deployment, has }, caller)
  if (license === undefined) return false
  const headers = { ETag: `"${license.content}"` }
  if (license.cms === undefined) return send(res, 304, headers)
  return send(res, 200, { ...headers, 'Content-Type': 'application/pkcs7-mime' }, license.cms)
}

function send(res: ServerResponse, status: number, headers: Record<string, string>, body?: Buffer): true {
  const length = body === undefined ? {} : { 'Content-Length': body.length }
  res.writeHead(status, { ...headers, ...length, 'Cache-Control': 'no-store' }).end(body)
  return true
}

const NOT_FOUND = '404\n'

/** The one answer to everything that is not allowed, unknown, foreign, revoked, too long or too often. */
function refuse(res: ServerResponse, { refusalMs = REFUSAL_MS }: BoxListenerArgs, heard: { atMs: number }): void {
  // Not so long after the judgement: how long that took is what nobody shall know.
  setTimeout(
    () => {
      if (res.headersSent) {
        res.destroy()
        return
      }
      const headers = { 'Content-Type': 'text/plain; charset=utf-8', 'Content-Length': NOT_FOUND.length }
      res.writeHead(404, { ...headers, 'Cache-Control': 'no-store', Connection: 'close' }).end(NOT_FOUND)
    },
    Math.max(0, heard.atMs + refusalMs - performance.now()),
  )
}

function callerOf(socket: TLSSocket): Caller {
  const certificate = socket.authorized ? socket.getPeerX509Certificate() : undefined
  return {
    address: plainAddress(socket.remoteAddress),
    certificate: certificate?.fingerprint256.replaceAll(':', '').toLowerCase(),
  }
}

/** @returns undefined where it is longer, or the client went away */
function readBody(req: IncomingMessage, maxBytes: number): Promise<Buffer | undefined> {
  return new Promise((done) => {
    if (Number(req.headers['content-length'] ?? 0) > maxBytes) {
      done(undefined)
      return
    }
    const chunks: Buffer[] = []
    let bytes = 0
    const take = (chunk: Buffer): void => {
      bytes += chunk.length
      if (bytes <= maxBytes) {
        chunks.push(chunk)
        return
      }
      req.off('data', take).pause()
      done(undefined)
    }
    req.on('data', take)
    req.once('end', () => done(Buffer.concat(chunks)))
    req.once('close', () => done(undefined))
    req.once('error', () => done(undefined))
  })
}

/** What an operator has to hear of clients that never come to a request. */
class Notices {
  readonly #args: Pick<BoxListenerArgs, 'authority' | 'log'>
  readonly #once = new Once(LOG_MS)

  constructor(args: BoxListenerArgs) {
    this.#args = args
  }

  stranger(socket: TLSSocket): void {
    const certificate = socket.getPeerX509Certificate()!
    const address = plainAddress(socket.remoteAddress)
    const why = String(socket.authorizationError)
    if (!this.#once.isFirst(`${address} ${why}`, performance.now())) return
    const { log, authority } = this.#args
    if (!isIssuedBy(certificate, authority.certificate)) {
      log.warn({ address, why }, 'closed: its certificate is not of this mirror’s authority')
      return
    }
    const { subject, validFrom, validTo } = certificate
    const from = { subject: subject.split('\n').join(', '), validFrom, validTo }
    log.warn({ address, why, ...from }, 'closed: a box’s certificate is not valid by this machine’s clock')
  }

  failed(error: Error & { code?: string }, socket: TLSSocket): void {
    const address = plainAddress(socket.remoteAddress)
    const why = error.code ?? 'unknown'
    if (why === 'ECONNRESET' || !this.#once.isFirst(`${address} ${why}`, performance.now())) return
    this.#args.log.info({ address, why }, 'closed: no TLS connection came about')
  }
}

async function open(server: Server, { host, port }: Listener): Promise<void> {
  try {
    server.listen({ host, port })
    await once(server, 'listening')
  } catch (cause) {
    const why = systemCode(cause) === 'EADDRINUSE' ? 'another program has this port' : systemCode(cause)
    throw new GapferryError('LISTEN_FAILED', `boxes: cannot listen at ${formatListen({ host, port })}: ${why}`, {
      hint: 'end the program that has it, or choose another listen address in mirror.yaml',
      cause,
    })
  }
}

async function close(server: Server): Promise<void> {
  if (!server.listening) return
  const closed = once(server, 'close')
  server.close()
  server.closeIdleConnections()
  const cut = setTimeout(() => server.closeAllConnections(), CLOSE_GRACE_MS)
  await closed
  clearTimeout(cut)
}

function plainAddress(address: string | undefined): string {
  return (address ?? '').replace(/^::ffff:(?=\d+\.)/, '')
}
