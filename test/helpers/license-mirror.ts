import { createHash, createHmac, createPublicKey, generateKeyPairSync, X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer, request } from 'node:https'
import type { AddressInfo } from 'node:net'
import type { TLSSocket } from 'node:tls'
import { sealCms } from '../../manifests/cms.ts'
import { sha256Of } from '../../manifests/digest.ts'
import { issueCertificate, pemOf, type Issuer } from '../../server/issue.ts'
import { requestBytes, requestedKey } from '../../server/certificate-request.ts'
import type { Teardown } from './process.ts'

const YEAR_MS = 365 * 86_400_000

/** What is wrong with a mirror; each field a fault of its own. */
export interface MirrorFaults {
  /** its certificates begin here; default a day ago */
  notBeforeMs?: number
  /** names and addresses in its certificate; default 127.0.0.1 */
  hosts?: string[]
  /** what its clock is ahead, in the Date header */
  aheadMs?: number
  /** does to an answer's body what it likes; undefined: as it is */
  spoil?: (what: 'enrol' | 'license', body: Buffer) => Buffer
  /** the license's ETag instead of the right one */
  etag?: string
  /** hands every request on to this mirror, and its answers back */
  relayTo?: string
  /** status instead of the right one */
  status?: number
}

/** The boxes' listener of a mirror that does as it is told, where the real one would never. */
export interface LicenseMirror {
  url: string
  authority: Issuer
  /** one-time codes by name of the box */
  codes: Map<string, string>
  /** the license documents by name of the box */
  licenses: Map<string, Buffer>
  /** DER of the certificates that were issued, by name of the box: the last one */
  boxes: Map<string, Buffer>
  /** "METHOD /path" and headers, of requests in their order */
  requests: { line: string; headers: IncomingMessage['headers'] }[]
  results: Record<string, unknown>[]
  faults: MirrorFaults
}

export function makeAuthority(notBeforeMs = Date.now() - 86_400_000): Issuer {
  const { privateKey: key } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const times = { notBeforeMs, notAfterMs: notBeforeMs + 20 * YEAR_MS }
  return {
    key,
    certificate: new X509Certificate(issueCertificate({ kind: 'authority', site: 'hq', name: 'boxes', key, ...times })),
  }
}

/** @param authority  whose certificates it has; default one of its own */
export async function startLicenseMirror(
  t: Teardown,
  faults: MirrorFaults = {},
  authority = makeAuthority(faults.notBeforeMs),
): Promise<LicenseMirror> {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const notBeforeMs = faults.notBeforeMs ?? Date.now() - 86_400_000
  const own = issueCertificate({
    ...{ kind: 'server', site: 'hq', name: 'boxes', key: createPublicKey(privateKey), issuer: authority },
    ...{ notBeforeMs, notAfterMs: notBeforeMs + YEAR_MS, hosts: faults.hosts ?? ['127.0.0.1'] },
  })
  const mirror: LicenseMirror = {
    ...{
      url: '',
      authority,
      codes: new Map(),
      licenses: new Map(),
      boxes: new Map(),
      requests: [],
      results: [],
      faults,
    },
  }
  const tls = { minVersion: 'TLSv1.2', requestCert: true, rejectUnauthorized: false } as const
  const server = createServer(
    {
      ...tls,
      key: privateKey.export({ type: 'pkcs8', format: 'pem' }),
      cert: pemOf(own),
      ca: pemOf(authority.certificate.raw),
    },
    (req, res) => void answer(mirror, own, req, res),
  )
  server.on('secureConnection', (socket: TLSSocket) => {
    if (!socket.authorized && socket.getPeerX509Certificate() !== undefined) socket.destroy()
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => {
    server.close()
    server.closeAllConnections()
  })
  mirror.url = `https://127.0.0.1:${(server.address() as AddressInfo).port}`
  return mirror
}

async function answer(mirror: LicenseMirror, own: Buffer, req: IncomingMessage, res: ServerResponse): Promise<void> {
  const { url = '', method = '' } = req
  mirror.requests.push({ line: `${method} ${url}`, headers: req.headers })
  const chunks: Buffer[] = []
  for await (const chunk of req) chunks.push(chunk as Buffer)
  const body = Buffer.concat(chunks)
  const { aheadMs = 0, status = 200, relayTo } = mirror.faults
  if (relayTo !== undefined) return relay(`${relayTo}${url}`, method, body, res)
  res.setHeader('Date', new Date(Date.now() + aheadMs).toUTCString())
  const [, name = '', what = url] = /^\/boxes\/([^/]+)\/(.+)$/.exec(url) ?? []
  const reply = what === '/enrol' ? enrol(mirror, own, body) : undefined
  if (reply !== undefined) return void res.writeHead(status).end(spoiled(mirror, 'enrol', reply))
  const caller = (req.socket as TLSSocket).getPeerX509Certificate()?.raw
  if (caller === undefined || mirror.boxes.get(name)?.equals(caller) !== true)
    return void res.writeHead(404).end('404\n')
  if (what === 'result') {
    mirror.results.push(JSON.parse(body.toString()) as Record<string, unknown>)
    return void res.writeHead(204).end()
  }
  const license = mirror.licenses.get(name)
  if (license === undefined) return void res.writeHead(404).end('404\n')
  const etag = mirror.faults.etag ?? `"${sha256Of(license)}"`
  if (req.headers['if-none-match']?.includes(etag)) return void res.writeHead(304, { ETag: etag }).end()
  const sealed = await sealCms(license, [mirror.boxes.get(name)!])
  res.writeHead(status, { ETag: etag }).end(spoiled(mirror, 'license', sealed))
}

function relay(url: string, method: string, body: Buffer, res: ServerResponse): void {
  const onward = request(url, { method, rejectUnauthorized: false }, (answer) => {
    res.writeHead(answer.statusCode!)
    answer.pipe(res)
  })
  onward.end(body)
}

function spoiled({ faults }: LicenseMirror, what: 'enrol' | 'license', body: Buffer): Buffer {
  return faults.spoil?.(what, body) ?? body
}

/** The answer to POST /enrol; undefined where it is refused. */
function enrol(mirror: LicenseMirror, own: Buffer, body: Buffer): Buffer | undefined {
  const { name, request, proof } = JSON.parse(body.toString()) as Record<'name' | 'request' | 'proof', string>
  const code = mirror.codes.get(name)
  const csr = requestBytes(request)
  if (code === undefined || csr === undefined) return undefined
  if (proof !== proofOf(code, 'gapferry-enrol 1', name, digest(csr), digest(own))) return undefined
  mirror.codes.delete(name)
  const { authority } = mirror
  const notBeforeMs = mirror.faults.notBeforeMs ?? Date.now() - 86_400_000
  const certificate = issueCertificate({
    ...{ kind: 'box', site: 'hq', name, key: requestedKey(csr), issuer: authority },
    ...{ notBeforeMs, notAfterMs: notBeforeMs + 20 * YEAR_MS },
  })
  mirror.boxes.set(name, certificate)
  const { raw } = authority.certificate
  const answer = { certificate: pemOf(certificate), authority: pemOf(raw) }
  return Buffer.from(
    JSON.stringify({ ...answer, proof: proofOf(code, 'gapferry-enrolled 1', digest(certificate), digest(raw)) }),
  )
}

function proofOf(code: string, ...lines: string[]): string {
  return createHmac('sha256', code.replaceAll('-', '').toUpperCase()).update(lines.join('\n')).digest('hex')
}

function digest(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex')
}
