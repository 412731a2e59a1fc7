/**
 * Licenses from the HTTP source of a site, one request for each deployment that an inventory names. What is asked for says whose
 * license it is: no address of it is kept, logged or shown.
 */
import { GapferryError, isGapferryError, type ErrorCode } from '../../manifests/errors.ts'
import { isCapture, MAX_CAPTURE_BYTES } from '../../manifests/license-capture.ts'
import type { Laptop } from '../carry.ts'
import { Fetcher } from '../fetch.ts'
import { proxiesOf } from '../link-settings.ts'
import { makeDispatcher, type Way } from '../ways.ts'
import { fromCapture, plainFile, type BroughtLicense } from './license-files.ts'
import { PLACEHOLDER, secretOf, type LicenseUpstream } from './license-settings.ts'

const CONNECTIONS = 2

type Environment = Record<string, string | undefined>

/** A box that a license is asked for. */
export interface Asking {
  /** its name, for messages */
  box: string
  deploymentId: string
}

/** What came for a box: a license, or why none. */
export interface Answered {
  box: string
  brought?: BroughtLicense
  failure?: GapferryError
}

/** No license, and no trouble either. */
const NONE: ErrorCode = 'FETCH_STATUS'

/** Asks for each of them, as far as the budget goes.
 *  @throws CONFIG_INVALID where a secret is not there; BUDGET_EXCEEDED; the signal's reason */
export async function askForLicenses(
  laptop: Laptop,
  environment: Environment,
  upstream: LicenseUpstream,
  boxes: readonly Asking[],
): Promise<Answered[]> {
  const dispatcher = wayTo(laptop, environment, upstream)
  const { retries, maxWaitMs, bytesPerSecond } = laptop.fleet.link
  const { wire } = laptop.fetcher
  const fetcher = new Fetcher({ dispatcher, userAgent: 'gapferry', retries, maxWaitMs, bytesPerSecond, wire })
  try {
    return await fetcher.all(boxes, (box, signal) => askOne(fetcher, upstream, box, signal), laptop.signal)
  } finally {
    await dispatcher.destroy()
  }
}

async function askOne(
  fetcher: Fetcher,
  { url, as }: LicenseUpstream,
  { box, deploymentId }: Asking,
  signal: AbortSignal,
): Promise<Answered> {
  const what = `license of ${box}`
  const file = {
    urls: [url.replaceAll(PLACEHOLDER, encodeURIComponent(deploymentId))],
    maxBytes: MAX_CAPTURE_BYTES,
    what,
  }
  try {
    const { bytes } = await fetcher.get(file, signal)
    if (isCapture(bytes)) return { box, brought: fromCapture(bytes, what) }
    return {
      box,
      brought: { files: [plainFile(as, bytes)], source: 'http', deploymentId, capturedAt: null, machine: null },
    }
  } catch (error) {
    if (!isGapferryError(error) || error.code === 'BUDGET_EXCEEDED') throw error
    return { box, failure: withoutId(error, deploymentId, what) }
  }
}

/** The cause would tell it, too. */
function withoutId(error: GapferryError, deploymentId: string, what: string): GapferryError {
  const text = error.message.replaceAll(deploymentId, '***')
  const hint = error.code === NONE ? 'gapferry license add FILE, where it comes from elsewhere' : error.hint
  return new GapferryError(
    error.code,
    text.startsWith(what) ? text : `${what}: ${text}`,
    hint === undefined ? {} : { hint },
  )
}

/** Headers and client certificate go to the source's own origin, and nowhere that it redirects to. */
function wayTo({ fleet }: Laptop, environment: Environment, upstream: LicenseUpstream): Way {
  const what = `${fleet.file}: licenses`
  const { origin } = new URL(upstream.url.replaceAll(PLACEHOLDER, 'x'))
  const secret = (text: string): string => secretOf(text, environment, what)
  const pem = (file: string | undefined): string | undefined =>
    file === undefined ? undefined : secret(file.startsWith('env:') ? file : `file:${file}`)
  const { certificate, key, ca } = upstream
  const proxy = proxiesOf(fleet.link, environment)
  const tls = { cert: pem(certificate), key: pem(key), ca: pem(ca) }
  const headers = Object.entries(upstream.headers).map(([name, text]) => [name.toLowerCase(), secret(text)] as const)
  const own = makeDispatcher({ connections: CONNECTIONS, proxy, tls })
  const elsewhere = makeDispatcher({ connections: CONNECTIONS, proxy })
  return {
    dispatch: (request, handler) => {
      if (new URL(String(request.origin)).origin !== origin) return elsewhere.dispatch(request, handler)
      const all = { ...(request.headers as Record<string, string>), ...Object.fromEntries(headers) }
      return own.dispatch({ ...request, headers: all }, handler)
    },
    destroy: async () => void (await Promise.all([own.destroy(), elsewhere.destroy()])),
  }
}
