/**
 * One request to an upstream, with every limit that keeps a hostile or broken server from holding the laptop: time to the
 * headers, idle time and a minimum rate in the body, few redirects and only to http(s). Sizes and digests: fetch.ts.
 */
import type { Dispatcher } from 'undici'
import {
  type Answer,
  EXCERPT_BYTES,
  excerptOf,
  FetchFailure,
  ledTo,
  networkFailure,
  placeOf,
  statusFailure,
  timeoutFailure,
} from './fetch-failure.ts'
import type { Wire, WireCall } from './wire.ts'

/** From the request being sent to the end of the headers. */
const HEADERS_TIMEOUT_MS = 30_000
/** Without a single byte of the body. */
const BODY_TIMEOUT_MS = 30_000
/** Less than this over a whole window is a server that holds us, or a link on which nothing will get done. */
export const MIN_BYTES_PER_SECOND = 256
export const RATE_WINDOW_MS = 60_000
const MAX_REDIRECTS = 5
/** The body of an answer that is not wanted is read this far, so that its connection can be used again. */
const MAX_UNWANTED_BYTES = 64 * 1024
const REDIRECTS = new Set([301, 302, 303, 307, 308])
/** Time limits of a request; the constants above where left out. */
export interface TimeLimits {
  headersTimeoutMs?: number | undefined
  bodyTimeoutMs?: number | undefined
  minBytesPerSecond?: number | undefined
  rateWindowMs?: number | undefined
  /** told of bytes that came; says for how long (ms) no more shall come on this connection */
  throttle?: ((bytes: number) => number) | undefined
  /** counts everything, and says when it is enough */
  wire?: Wire | undefined
}

/** Takes the body of an answer that was asked for. What it throws ends the request and is thrown to the caller. */
export interface Receiver {
  begin(answer: Answer): void
  data(chunk: Buffer): void
}

export interface Order {
  dispatcher: Pick<Dispatcher, 'dispatch'>
  method: 'GET' | 'HEAD' | 'POST'
  url: string
  /** sent with POST, and never shown */
  form?: string | undefined
  headers: Record<string, string>
  /** statuses that are an answer */
  accepts: readonly number[]
  limits: TimeLimits
  receiver: Receiver
  signal: AbortSignal
}

/** Sends one request, follows redirects, hands the body of the final answer to the receiver.
 *  User and password in the URL go to its own origin only. A form is sent again where a redirect leads, as FreePBX does it:
 *  not after 303, and never from https to http.
 *  @throws FetchFailure; the signal's reason; what the receiver throws */
export async function request(order: Order): Promise<Answer> {
  const start = parseAddress(order.url)
  const authorization = basicAuthorization(start)
  let url = start
  let { method, form } = order
  for (let redirects = 0; ; redirects++) {
    const headers = {
      ...order.headers,
      ...(url.origin === start.origin ? authorization : {}),
      ...(form === undefined ? {} : { 'content-type': 'application/x-www-form-urlencoded' }),
    }
    const place = placeOf(url, order.form !== undefined)
    const answer = await exchange({ ...order, method, form, headers }, url, place).catch((error: unknown) => {
      throw redirects === 0 ? error : ledTo(place, error)
    })
    if (order.accepts.includes(answer.status)) return answer
    if (order.form !== undefined) answer.excerpt = ''
    if (!REDIRECTS.has(answer.status))
      throw redirects === 0 ? statusFailure(answer) : ledTo(place, statusFailure(answer))
    if (redirects === MAX_REDIRECTS) {
      throw new FetchFailure('FETCH_FAILED', `expected at most ${MAX_REDIRECTS} redirects, found more`)
    }
    url = redirectTarget(answer)
    if (answer.status === 303 && form !== undefined) [method, form] = ['GET', undefined]
    if (form !== undefined && answer.url.protocol === 'https:' && url.protocol === 'http:') {
      throw new FetchFailure('FETCH_FAILED', 'expected a redirect to https for what the form says, found one to http')
    }
  }
}

function parseAddress(text: string): URL {
  const url = URL.parse(text)
  if (url === null) throw new FetchFailure('FETCH_FAILED', 'expected an http or https address')
  if (url.protocol !== 'http:' && url.protocol !== 'https:') {
    throw new FetchFailure('FETCH_FAILED', `expected an http or https address, found ${url.protocol}`)
  }
  return url
}

function basicAuthorization(url: URL): Record<string, string> {
  if (url.username === '' && url.password === '') return {}
  const pair = `${decoded(url.username)}:${decoded(url.password)}`
  return { authorization: `Basic ${Buffer.from(pair).toString('base64')}` }
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}

function redirectTarget(answer: Answer): URL {
  const { location } = answer.headers
  const url = location === undefined ? null : URL.parse(location, answer.url.href)
  if (url === null)
    throw new FetchFailure('FETCH_FAILED', `expected an address to go to, found ${answer.status} without`)
  if (url.protocol !== 'http:' && url.protocol !== 'https:') {
    throw new FetchFailure('FETCH_FAILED', `expected a redirect to http or https, found ${url.protocol}`)
  }
  return url
}

function exchange(order: Order, url: URL, place: string): Promise<Answer> {
  return new Promise((resolve, reject) => {
    new Exchange(order, { url, place }, resolve, reject).start()
  })
}

/** One request and its answer. After it has settled nothing reaches the receiver any more. */
class Exchange implements Dispatcher.DispatchHandler {
  readonly #order: Order
  readonly #to: { url: URL; place: string }
  readonly #resolve: (answer: Answer) => void
  readonly #reject: (error: unknown) => void
  readonly #onAbort = (): void => this.#fail(this.#order.signal.reason)
  readonly #excerpt: Buffer[] = []
  #controller: Dispatcher.DispatchController | undefined
  /** until the headers, then between two pieces of the body */
  #silence: NodeJS.Timeout | undefined
  #rate: NodeJS.Timeout | undefined
  #answer: Answer | undefined
  #receivedBytes = 0
  #windowStartBytes = 0
  /** by our own will, and not yet set against a window */
  #restedMs = 0
  #isSettled = false
  #call: WireCall | undefined

  constructor(
    order: Order,
    to: { url: URL; place: string },
    resolve: (answer: Answer) => void,
    reject: (error: unknown) => void,
  ) {
    this.#order = order
    this.#to = to
    this.#resolve = resolve
    this.#reject = reject
  }

  start(): void {
    const { dispatcher, method, headers, form: body = null, signal } = this.#order
    if (signal.aborted) return this.#fail(signal.reason)
    signal.addEventListener('abort', this.#onAbort, { once: true })
    const { origin, pathname, search } = this.#to.url
    const path = pathname + search
    try {
      this.#call = this.#order.limits.wire?.begin(this.#to.url, { method, headers, form: body })
    } catch (error) {
      return this.#fail(error)
    }
    try {
      // undici's own clocks are off: that of the headers begins anew with each 1xx answer, that of the body is coarse.
      dispatcher.dispatch({ origin, path, method, headers, body, headersTimeout: 0, bodyTimeout: 0 }, this)
    } catch (error) {
      this.#fail(networkFailure(error, ''))
    }
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller
    if (this.#isSettled) return controller.abort(new Error('given up'))
    const limitMs = this.#order.limits.headersTimeoutMs ?? HEADERS_TIMEOUT_MS
    this.#silence = setTimeout(() => this.#fail(timeoutFailure(`an answer within ${limitMs} ms`, 'none')), limitMs)
  }

  onResponseStart(
    _: Dispatcher.DispatchController,
    status: number,
    headers: Record<string, string | string[] | undefined>,
  ): void {
    if (this.#isSettled) return
    this.#call?.addHeaders(headers)
    if (status < 200) return
    this.#answer = { ...this.#to, status, headers: flatten(headers), excerpt: '' }
    this.#watchBody()
    if (this.#isWanted()) this.#hand(() => this.#order.receiver.begin(this.#answer!))
  }

  onResponseData(_: Dispatcher.DispatchController, chunk: Buffer): void {
    if (this.#isSettled) return
    this.#silence?.refresh()
    this.#call?.add(chunk.length)
    if (this.#isWanted()) this.#hand(() => this.#order.receiver.data(chunk))
    else if (this.#receivedBytes < EXCERPT_BYTES) this.#excerpt.push(chunk)
    this.#receivedBytes += chunk.length
    if (!this.#isWanted() && this.#receivedBytes > MAX_UNWANTED_BYTES) this.#finish()
    this.#hand(() => this.#call?.refuseSpent())
    this.#slowDown(this.#order.limits.throttle?.(chunk.length) ?? 0)
  }

  onResponseEnd(): void {
    this.#finish()
  }

  onResponseError(_: Dispatcher.DispatchController, error: Error): void {
    this.#fail(networkFailure(error, this.#answer === undefined ? '' : ` ${this.#progress()}`))
  }

  #watchSilence(): void {
    const idleMs = this.#order.limits.bodyTimeoutMs ?? BODY_TIMEOUT_MS
    clearTimeout(this.#silence)
    this.#silence = setTimeout(() => {
      this.#fail(timeoutFailure(`more bytes within ${idleMs} ms`, `none ${this.#progress()}`))
    }, idleMs)
  }

  #watchBody(): void {
    const { limits } = this.#order
    const windowMs = limits.rateWindowMs ?? RATE_WINDOW_MS
    const perSecond = limits.minBytesPerSecond ?? MIN_BYTES_PER_SECOND
    this.#watchSilence()
    this.#rate = setInterval(() => {
      const bytes = this.#receivedBytes - this.#windowStartBytes
      this.#windowStartBytes = this.#receivedBytes
      const restedMs = Math.min(this.#restedMs, windowMs)
      this.#restedMs -= restedMs
      if (bytes >= (perSecond * (windowMs - restedMs)) / 1000) return
      this.#fail(timeoutFailure(`at least ${perSecond} bytes per second`, `${bytes} bytes in ${windowMs} ms`))
    }, windowMs)
  }

  /** Silence that we asked for is not the server's. */
  #slowDown(ms: number): void {
    if (ms <= 0 || this.#isSettled) return
    clearTimeout(this.#silence)
    this.#restedMs += ms
    this.#controller!.pause()
    this.#silence = setTimeout(() => {
      this.#watchSilence()
      this.#controller!.resume()
    }, ms)
  }

  #isWanted(): boolean {
    return this.#order.accepts.includes(this.#answer!.status)
  }

  #progress(): string {
    const length = this.#answer?.headers['content-length']
    return `after ${this.#receivedBytes}${length === undefined ? '' : ` of ${length}`} bytes`
  }

  #hand(give: () => void): void {
    try {
      give()
    } catch (error) {
      this.#fail(error)
    }
  }

  #finish(): void {
    if (!this.#settle()) return
    this.#call?.end(false)
    this.#answer!.excerpt = excerptOf(Buffer.concat(this.#excerpt))
    this.#resolve(this.#answer!)
    if (this.#receivedBytes > MAX_UNWANTED_BYTES && !this.#isWanted()) {
      this.#controller!.abort(new Error('enough'))
    }
  }

  #fail(error: unknown): void {
    if (!this.#settle()) return
    this.#call?.end(true)
    this.#reject(error)
    this.#controller?.abort(error instanceof Error ? error : new Error('given up'))
  }

  #settle(): boolean {
    if (this.#isSettled) return false
    this.#isSettled = true
    clearTimeout(this.#silence)
    clearInterval(this.#rate)
    this.#order.signal.removeEventListener('abort', this.#onAbort)
    return true
  }
}

function flatten(headers: Record<string, string | string[] | undefined>): Record<string, string> {
  const flat: Record<string, string> = {}
  for (const [name, value] of Object.entries(headers)) {
    if (value !== undefined) flat[name] = Array.isArray(value) ? value.join(', ') : value
  }
  return flat
}
