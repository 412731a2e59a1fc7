/**
 * The ways to the upstreams: direct, or through an HTTP or SOCKS5 proxy. Reads no environment: proxies are arguments.
 * User and password of a proxy get into no message.
 */
import { Agent, buildConnector, Pool, ProxyAgent, type Dispatcher } from 'undici'
import { GapferryError } from '../manifests/errors.ts'
import { publicUrl } from './fetch-failure.ts'
import { proxyError, socksConnector } from './socks.ts'

const CONNECT_TIMEOUT_MS = 15_000
/** Node's own 250 ms gives up each address of a host before a modem has answered. */
const ADDRESS_ATTEMPT_MS = 4000
const CONNECTIONS = 8
const MAX_HEADER_BYTES = 16 * 1024
const DEFAULT_PORTS: Record<string, string> = { 'http:': '80', 'https:': '443' }

/** Addresses `http://`, `https://` or `socks5://USER:PASSWORD@HOST:PORT`; without a scheme http, as curl reads it. */
export interface Proxies {
  /** for http addresses; where `https` is absent for those, too */
  http?: string | undefined
  https?: string | undefined
  /** for those that have none of their own */
  all?: string | undefined
  /** hosts that are asked directly: `lan.example:8080, .example.org, *`, with their subdomains */
  no?: string | undefined
}

export interface DispatcherOptions {
  proxy?: Proxies
  /** per upstream host */
  connections?: number
  connectTimeoutMs?: number
  /** PEM: what is shown to upstreams that ask for a certificate, and whom to believe instead of the system's authorities */
  tls?: TlsOptions
}

interface TlsOptions {
  cert?: string | undefined
  key?: string | undefined
  ca?: string | undefined
}

/** What requests are sent through. */
export interface Way {
  dispatch: Dispatcher['dispatch']
  destroy(): Promise<void>
}

/** The caller ends it by `destroy`.
 *  @throws USAGE_INVALID for a proxy that is none of those */
export function makeDispatcher({ proxy = {}, ...options }: DispatcherOptions = {}): Way {
  const direct = new Agent(agentOptions(options))
  const http = proxyAddress(proxy.http) ?? proxyAddress(proxy.all)
  const https = proxyAddress(proxy.https) ?? http
  const ways = new Map([http, https].flatMap((url) => (url === undefined ? [] : [[url.href, through(url, options)]])))
  const wayTo = (origin: URL): Dispatcher => {
    const url = origin.protocol === 'https:' ? https : http
    return url === undefined || isDirect(origin, proxy.no ?? '') ? direct : ways.get(url.href)!
  }
  return {
    dispatch: (request, handler) => wayTo(new URL(String(request.origin))).dispatch(request, handler),
    destroy: async () => void (await Promise.all([direct, ...ways.values()].map((way) => way.destroy()))),
  }
}

/** Whether `noProxy` names the host, or a domain that it is in. */
export function isDirect({ protocol, hostname, port }: URL, noProxy: string): boolean {
  const host = bare(hostname)
  const hostPort = port === '' ? DEFAULT_PORTS[protocol] : port
  return noProxy
    .split(/[\s,]+/)
    .filter((entry) => entry !== '')
    .some((entry) => {
      const [, name = '', onlyPort] = /^(\[[^\]]*\]|[^:]*|.*:.*:.*?)(?::(\d+))?$/.exec(entry) ?? []
      if (onlyPort !== undefined && onlyPort !== hostPort) return false
      const domain = bare(name.replace(/^\*?\./, ''))
      return name === '*' || host === domain || host.endsWith(`.${domain}`)
    })
}

function bare(host: string): string {
  return host.toLowerCase().replace(/^\[|\]$|\.$/g, '')
}

type WayOptions = Omit<DispatcherOptions, 'proxy'>

function agentOptions({ connections = CONNECTIONS, connectTimeoutMs = CONNECT_TIMEOUT_MS, tls = {} }: WayOptions) {
  const autoSelect = { autoSelectFamily: true, autoSelectFamilyAttemptTimeout: ADDRESS_ATTEMPT_MS }
  return {
    connections,
    pipelining: 1,
    allowH2: false,
    maxHeaderSize: MAX_HEADER_BYTES,
    connect: { timeout: connectTimeoutMs, allowH2: false, ...autoSelect, ...given(tls) },
  }
}

function given({ cert, key, ca }: TlsOptions) {
  return {
    ...(cert === undefined ? {} : { cert }),
    ...(key === undefined ? {} : { key }),
    ...(ca === undefined ? {} : { ca }),
  }
}

function through(proxy: URL, options: WayOptions): Dispatcher {
  const common = agentOptions(options)
  const { timeout } = common.connect
  if (proxy.protocol.startsWith('socks')) {
    return new Agent({ ...common, connect: socksConnector(proxy, buildConnector(common.connect), timeout) })
  }
  return new ProxyAgent({
    ...common,
    uri: proxy.href,
    connectTimeout: timeout,
    requestTls: given(options.tls ?? {}),
    // A proxy that never answers CONNECT would otherwise hold us for undici's five minutes.
    clientFactory: (origin, { connect }: { connect: buildConnector.connector }) =>
      new Pool(origin, { connect: named(connect), headersTimeout: timeout }),
    factory: (origin, { connect, ...rest }: Agent.Options & { connect: buildConnector.connector }) =>
      new Pool(origin, { ...rest, ...common, connect: isOrigin(origin, proxy) ? named(connect) : connect }),
  })
}

function isOrigin(origin: string | URL, proxy: URL): boolean {
  return new URL(String(origin)).origin === proxy.origin
}

/** A connection that fails on the way to the proxy is not the upstream's. */
function named(connect: buildConnector.connector): buildConnector.connector {
  return (options, callback) =>
    connect(options, (...[error, socket]: buildConnector.CallbackArgs) => {
      if (error === null) callback(null, socket)
      else callback(proxyError('PROXY_DOWN', error), null)
    })
}

function proxyAddress(text = ''): URL | undefined {
  if (text === '') return undefined
  const address = text.includes('://') ? text : `http://${text}`
  const url = URL.parse(address)
  if (url !== null && url.hostname !== '' && /^(?:https?|socks5?h?):$/.test(url.protocol)) return url
  throw new GapferryError('USAGE_INVALID', `the proxy is not an http or socks5 address: ${publicUrl(address)}`, {
    hint: 'as in http://proxy.lan:3128 or socks5://127.0.0.1:1080',
  })
}
