/**
 * `link` of gapferry.yaml: how this laptop gets to the upstreams.
 */
import * as v from 'valibot'
import { strictObject } from '../manifests/document.ts'
import { GapferryError } from '../manifests/errors.ts'
import { parseSize } from '../manifests/settings.ts'
import type { FetcherOptions } from './fetch.ts'
import type { Proxies } from './ways.ts'

/** With less, a server could not be told from one that holds us. */
const MIN_BYTES_PER_SECOND = 1000
const MAX_RETRIES = 100
const MAX_WAIT_SECONDS = 3600
const Text = v.pipe(v.string(), v.minLength(1), v.maxLength(2048))

export const LinkEntry = strictObject({
  proxy: v.exactOptional(Text),
  noProxy: v.exactOptional(v.pipe(v.array(Text), v.maxLength(1000))),
  rateLimit: v.exactOptional(Text),
  retries: v.exactOptional(v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(MAX_RETRIES))),
  maxWaitSeconds: v.exactOptional(v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(MAX_WAIT_SECONDS))),
})

export interface LinkSettings extends Pick<FetcherOptions, 'retries' | 'maxWaitMs' | 'bytesPerSecond'> {
  /** `none`: whatever the environment says */
  proxy?: string | undefined
  noProxy?: string | undefined
}

/** @throws CONFIG_INVALID */
export function parseLink(entry: v.InferOutput<typeof LinkEntry> | undefined, what: string): LinkSettings {
  const { proxy, noProxy, rateLimit, retries, maxWaitSeconds } = entry ?? {}
  return {
    proxy,
    noProxy: noProxy?.join(','),
    retries,
    maxWaitMs: maxWaitSeconds === undefined ? undefined : maxWaitSeconds * 1000,
    bytesPerSecond: rateLimit === undefined ? undefined : parseRate(rateLimit, `${what}: link.rateLimit`),
  }
}

/** The settings come first, then the environment: small letters first, as curl has it. */
export function proxiesOf({ proxy, noProxy }: LinkSettings, environment: Record<string, string | undefined>): Proxies {
  const of = (name: string): string | undefined => environment[name] ?? environment[name.toUpperCase()]
  const no = noProxy ?? of('no_proxy')
  if (proxy !== undefined) return proxy === 'none' ? {} : { all: proxy, no }
  return { http: of('http_proxy'), https: of('https_proxy'), all: of('all_proxy'), no }
}

/** `500KB/s`, or a size. */
function parseRate(text: string, what: string): number {
  const bytes = parseSize(text.replace(/ ?\/ ?s$/, ''), what)
  if (bytes >= MIN_BYTES_PER_SECOND) return bytes
  throw new GapferryError('CONFIG_INVALID', `${what}: "${text}" is less than 1 KB/s`)
}
