/**
 * What a person is told when an upstream does not give a file: what was expected, what came, what to do next.
 */
import type { ErrorCode } from '../manifests/errors.ts'

/** As much of a page as its title needs. */
export const EXCERPT_BYTES = 4096
const EXCERPT_CHARACTERS = 60
const TRANSIENT_STATUS = new Set([408, 425, 429, 500, 502, 503, 504])
const SECRET_PARAMETER = /token|sig|secret|pass|auth|key|credential/i
// A page, however it is labelled: scripts send lists and XML as text/html too, so the label proves nothing.
const PAGE_START =
  /^\uFEFF?\s*(?:<\?xml[^>]*>\s*)?(?:<!--(?:(?!-->)[^])*-->\s*)*<(?:!doctype\s+html|html|head|body|meta|script|style|title|div|center|h1|p|iframe)\b/i

/** What came before the body. `url` is where the last redirect led. */
export interface Answer {
  url: URL
  /** `url` as it may be shown */
  place: string
  status: number
  /** names in lower case; repeated ones joined by a comma */
  headers: Record<string, string>
  /** of an answer other than 200: the title or the first words of its body; '' where a form was sent */
  excerpt: string
}

interface FailureOptions {
  isTransient?: boolean
  isNoWay?: boolean
  retryAfterMs?: number | undefined
  hint?: string | undefined
  cause?: unknown
}

/** Why one address did not give a file: `message` says what was expected and what came, fetch.ts names item and address. */
export class FetchFailure extends Error {
  readonly code: ErrorCode
  /** the same address may well answer in a moment */
  readonly isTransient: boolean
  /** there is no way to the host at all; worth another try only where there was one a moment ago */
  readonly isNoWay: boolean
  /** how long the server asked us to wait */
  readonly retryAfterMs: number | undefined
  readonly hint: string | undefined

  constructor(code: ErrorCode, message: string, options: FailureOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.name = 'FetchFailure'
    this.code = code
    this.isTransient = options.isTransient ?? false
    this.isNoWay = options.isNoWay ?? false
    this.retryAfterMs = options.retryAfterMs
    this.hint = options.hint
  }
}

/** `url` as it may be shown and kept: without user and password, the values of secret-looking parameters masked. */
export function publicUrl(url: string): string {
  const parsed = URL.parse(url)
  if (parsed === null) return url.replace(/^([a-z][a-z0-9+.-]*:\/\/).*@/i, '$1')
  parsed.username = ''
  parsed.password = ''
  for (const name of new Set(parsed.searchParams.keys())) {
    if (SECRET_PARAMETER.test(name)) parsed.searchParams.set(name, '***')
  }
  return parsed.href
}

/** Where an answer came from, as it may be shown. Where a form was sent, a server may have put what it got into the address. */
export function placeOf(url: URL, isFormSent: boolean): string {
  return isFormSent ? url.origin : publicUrl(url.href)
}

/** `text` without the values of a form, however they are written there. Values of a letter or three are no secrets. */
export function withoutForm(text: string, form: string): string {
  const values = [
    ...new URLSearchParams(form).values(),
    ...form.split('&').map((pair) => pair.slice(pair.indexOf('=') + 1)),
  ]
  const secrets = new Set(values.flatMap((value) => [value, encodeURIComponent(value)]))
  return [...secrets]
    .filter((value) => value.length > 3)
    .toSorted((a, b) => b.length - a.length)
    .reduce((shown, value) => shown.replaceAll(value, '***'), text)
}

/** True for the start of an HTML page, where a package or a list was expected. */
export function looksLikePage(head: Buffer): boolean {
  return PAGE_START.test(head.subarray(0, EXCERPT_BYTES).toString('utf8'))
}

/** The title of a page, else its first words; at most 60 characters. */
export function excerptOf(head: Buffer): string {
  const text = head.subarray(0, EXCERPT_BYTES).toString('utf8')
  const title = /<title[^>]*>([^<]*[^<\s][^<]*)/i.exec(text)?.[1]
  const plain =
    title ??
    text.replace(/<(?:script|style)\b[^]*?(?:<\/(?:script|style)[^>]*>|$)/gi, ' ').replace(/<[^>]*(?:>|$)/g, ' ')
  return plain.replace(/\s+/g, ' ').trim().slice(0, EXCERPT_CHARACTERS)
}

/** @returns the failure of an answer that is neither 200 nor a redirect */
export function statusFailure({ status, excerpt, place, headers }: Answer): FetchFailure {
  const found = `expected 200, found ${status}${excerpt === '' ? '' : ` "${excerpt}"`}`
  if (status === 511) return new FetchFailure('FETCH_CAPTIVE', found, { hint: signInHint(place) })
  return new FetchFailure('FETCH_STATUS', found, {
    isTransient: TRANSIENT_STATUS.has(status),
    retryAfterMs: TRANSIENT_STATUS.has(status) ? retryAfterMs(headers) : undefined,
    hint:
      status === 401 || status === 403
        ? 'check user, password and rights at the upstream, then run the command again'
        : status === 404 || status === 410
          ? 'check the address in gapferry.yaml, then run: gapferry plan'
          : 'run the command again later; what is in the store is not fetched again',
  })
}

/** A date counts from the server's own: who knows what the laptop's clock says. */
function retryAfterMs({ 'retry-after': text = '', date = '' }: Record<string, string>): number | undefined {
  if (/^\d{1,9}$/.test(text.trim())) return Number(text) * 1000
  const waitMs = Date.parse(text) - Date.parse(date)
  return Number.isNaN(waitMs) ? undefined : Math.max(0, waitMs)
}

/** @returns the next step when a login page stands between the laptop and the upstream */
export function signInHint(place: string): string {
  return `open ${place} in a browser on this laptop, sign in to the network, then run the command again`
}

/** The same failure, saying where a redirect had led. */
export function ledTo(place: string, error: unknown): unknown {
  if (!(error instanceof FetchFailure)) return error
  return new FetchFailure(error.code, `${error.message} at ${place}`, error)
}

/** @returns the failure of something that took too long */
export function timeoutFailure(expected: string, found: string, cause?: unknown): FetchFailure {
  return new FetchFailure('FETCH_TIMEOUT', `expected ${expected}, found ${found}`, {
    isTransient: true,
    cause,
    hint: 'check the link, then run the command again; what is in the store is not fetched again',
  })
}

const CHECK_PROXY = 'check link.proxy in gapferry.yaml, or http_proxy, https_proxy and all_proxy of the environment'
const CHECK_LINK = 'check that this laptop is online, then run the command again'
const CHECK_CERTIFICATE =
  'check the clock of this laptop and that no login page or proxy stands in between, then run again'
/** What a person makes of an error code of the network: words, and what to do. Codes that are missing here are shown as they are. */
const NETWORK: Record<string, [string, string?]> = {
  ENOTFOUND: ['the host name is not known', 'check the address in gapferry.yaml and that this laptop is online'],
  EAI_AGAIN: ['no name server answered', CHECK_LINK],
  ECONNREFUSED: ['the connection was refused', 'check the address in gapferry.yaml, then run: gapferry plan'],
  ECONNRESET: ['the connection was cut', CHECK_LINK],
  EPIPE: ['the connection was cut', CHECK_LINK],
  UND_ERR_SOCKET: ['the connection was cut', CHECK_LINK],
  UND_ERR_RES_CONTENT_LENGTH_MISMATCH: ['the connection was cut', CHECK_LINK],
  ENETUNREACH: ['no way to that network', CHECK_LINK],
  EHOSTUNREACH: ['no way to that host', CHECK_LINK],
  PROXY_DOWN: ['no connection to the proxy', CHECK_PROXY],
  PROXY_FAILED: ['the proxy got no connection', CHECK_LINK],
  PROXY_REFUSED: ['the proxy refused', CHECK_PROXY],
  PROXY_AUTH: ['the proxy wants a user and password, or others', CHECK_PROXY],
  PROXY_INVALID: ['something that is no SOCKS5 proxy', CHECK_PROXY],
  CERT_HAS_EXPIRED: ['a certificate that has expired', CHECK_CERTIFICATE],
  CERT_NOT_YET_VALID: ['a certificate that is not valid yet', CHECK_CERTIFICATE],
  DEPTH_ZERO_SELF_SIGNED_CERT: ['a self-signed certificate', CHECK_CERTIFICATE],
  SELF_SIGNED_CERT_IN_CHAIN: ['a self-signed certificate', CHECK_CERTIFICATE],
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: ['a certificate of an unknown authority', CHECK_CERTIFICATE],
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: ['a certificate of an unknown authority', CHECK_CERTIFICATE],
  ERR_TLS_CERT_ALTNAME_INVALID: ['a certificate for another host', CHECK_CERTIFICATE],
}
const NO_WAY = new Set([
  'PROXY_DOWN',
  'PROXY_FAILED',
  'ENOTFOUND',
  'ECONNREFUSED',
  'ENETUNREACH',
  'ENETDOWN',
  'EHOSTUNREACH',
  'EADDRNOTAVAIL',
])
const TRANSIENT_NETWORK = new Set([
  'EAI_AGAIN',
  'ECONNRESET',
  'EPIPE',
  'UND_ERR_SOCKET',
  'UND_ERR_RES_CONTENT_LENGTH_MISMATCH',
])

/** undici says only in words what an HTTP proxy answered. */
function networkCode(error: unknown): string {
  const { code = '', message = '' } = error as { code?: string; message?: string }
  const status = /^Proxy (?:response|Authentication Required) \((\d{3})\)/.exec(message)?.[1]
  if (status === undefined) return code
  if (status === '407') return 'PROXY_AUTH'
  return status.startsWith('5') ? 'PROXY_FAILED' : 'PROXY_REFUSED'
}

/** @param error  what undici or Node threw
 *  @param where  how far the answer had come: ` after 10 of 20 bytes` */
export function networkFailure(error: unknown, where: string): FetchFailure {
  const { message = '' } = error as { message?: string }
  const code = networkCode(error)
  // undici's own clock for headers runs only while a proxy is asked for a tunnel.
  if (code === 'UND_ERR_HEADERS_TIMEOUT') return timeoutFailure('an answer of the proxy', 'none', error)
  if (code === 'UND_ERR_CONNECT_TIMEOUT' || code === 'ETIMEDOUT') return timeoutFailure('a connection', 'none', error)
  const [words = message, hint = CHECK_LINK] = NETWORK[code] ?? []
  return new FetchFailure(
    'FETCH_FAILED',
    `expected an answer, found: ${words}${where}${code === '' ? '' : ` (${code})`}`,
    {
      isTransient: TRANSIENT_NETWORK.has(code),
      isNoWay: NO_WAY.has(code),
      hint,
      cause: error,
    },
  )
}
