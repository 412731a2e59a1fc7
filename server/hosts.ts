/**
 * Which names a listener answers to. A list of allowed names keeps a web page from reading the mirror through a name of
 * its own that points here (DNS rebinding), and keeps one group's boxes from getting another group's answers.
 */
import { isIP } from 'node:net'
import { GapferryError } from '../manifests/errors.ts'

export interface NamedOrigin<T> {
  /** lower-case names; one without a port is also good with the listener's, one with a port only as it is */
  hosts: readonly string[]
  value: T
}

const AUTHORITY = /^(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::\d{1,5})?$/i
const ABSOLUTE_TARGET = /^https?:\/\/([^/?#]*)(.*)$/i
const WILDCARDS = new Set(['0.0.0.0', '::'])
/** No other machine can be meant by these. */
const LOOPBACK_NAMES = ['localhost', '127.0.0.1', '[::1]']

export class HostTable<T> {
  readonly #names = new Map<string, T>()
  readonly #port: number
  /** the one origin that needs no name, and whether it listens on all addresses */
  readonly #only: { value: T; isWildcard: boolean } | undefined

  /** @param listener.host  as configured; where there is one origin it is itself a good name, or in place of a wildcard
   *                        our address that a connection came to
   *  @param listener.port  the real one
   *  @param origins        differ in every one of their hosts (server/config.ts checks) */
  constructor({ host, port }: { host: string; port: number }, origins: readonly NamedOrigin<T>[]) {
    this.#port = port
    const [first] = origins
    if (first !== undefined && origins.length === 1) {
      this.#only = { value: first.value, isWildcard: WILDCARDS.has(host) }
      for (const name of literalNames(host)) this.#allow(name, first.value)
    }
    for (const { hosts, value } of origins) for (const name of hosts) this.#allow(name, value)
  }

  /** @param target      as on the request line
   *  @param connection  where it came in
   *  @returns the origin asked for, and the target in origin form (starts with `/`)
   *  @throws HOST_INVALID for two or a malformed Host, or none where there are several origins; HOST_UNKNOWN for a name
   *          that is not ours, or an absolute target that names another than Host; PATH_INVALID for other targets */
  find(
    target: string,
    { host, hostCount }: { host: string | undefined; hostCount: number },
    connection: { readonly localAddress?: string | undefined },
  ): { value: T; target: string } {
    if (hostCount > 1) throw new GapferryError('HOST_INVALID', 'request: more than one Host header')
    if (target.startsWith('/')) return { value: this.#originOf(host, connection), target }
    const absolute = ABSOLUTE_TARGET.exec(target)
    if (absolute === null) throw new GapferryError('PATH_INVALID', 'request: the target is not a path')
    const [, authority, path] = absolute as unknown as [string, string, string]
    if (host !== undefined && host.toLowerCase() !== authority.toLowerCase()) {
      throw new GapferryError('HOST_UNKNOWN', 'request: target and Host name different servers')
    }
    return { value: this.#originOf(authority, connection), target: path.startsWith('/') ? path : `/${path}` }
  }

  #originOf(authority: string | undefined, connection: { readonly localAddress?: string | undefined }): T {
    if (authority === undefined) {
      // Node itself refuses HTTP/1.1 without Host; some boxes speak HTTP/1.0.
      if (this.#only !== undefined) return this.#only.value
      throw new GapferryError('HOST_INVALID', 'request: no Host header')
    }
    const known = this.#names.get(authority) ?? this.#names.get(authority.toLowerCase())
    if (known !== undefined) return known
    if (!AUTHORITY.test(authority)) throw new GapferryError('HOST_INVALID', 'request: a malformed Host header')
    if (this.#only?.isWildcard === true && this.#isOurs(authority.toLowerCase(), connection.localAddress)) {
      return this.#only.value
    }
    throw new GapferryError('HOST_UNKNOWN', 'request: a name that is not served here')
  }

  #isOurs(authority: string, localAddress: string | undefined): boolean {
    const address = localAddress?.replace(/^::ffff:(?=\d+\.)/, '')
    if (address === undefined) return false
    return literalNames(address).some((name) => authority === name || authority === `${name}:${this.#port}`)
  }

  #allow(name: string, value: T): void {
    this.#names.set(name, value)
    if (!/:\d+$/.test(name)) this.#names.set(`${name}:${this.#port}`, value)
  }
}

/** How an address of ours appears in a Host header. */
function literalNames(host: string): string[] {
  if (WILDCARDS.has(host)) return []
  const literal = isIP(host) === 6 ? `[${host.toLowerCase()}]` : host.toLowerCase()
  const isLoopback = literal === 'localhost' || literal === '[::1]' || (isIP(host) === 4 && host.startsWith('127.'))
  return isLoopback ? [literal, ...LOOPBACK_NAMES] : [literal]
}
