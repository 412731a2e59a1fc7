/**
 * Upstream files → memory or blobs. Whatever an upstream sends, at most the declared or permitted bytes are taken, nothing
 * that differs from its declared size or digest is kept, and each failure names the item, every address and what came.
 * Blobs are kept as sent: no content coding is asked for and none is undone.
 */
import { createHash } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import pLimit, { type LimitFunction } from 'p-limit'
import { parseSha256, type Checksum, type Sha256 } from '../manifests/digest.ts'
import type { BlobStore } from '../storage/blobs.ts'
import { type Answer, FetchFailure, publicUrl } from './fetch-failure.ts'
import { MIN_BYTES_PER_SECOND, RATE_WINDOW_MS, request, type Order, type Receiver, type TimeLimits } from './http.ts'
import { Body, CodedBody, contentLength, type RemoteFile, type Sink, sizeRefusal } from './remote-file.ts'
import { firstThatGives, type Attempts, type RetryRules } from './retry.ts'
import type { Page, PageMemory } from './pages.ts'
import { makeThrottle } from './throttle.ts'
import { Transfer, type OnBytes } from './transfer.ts'
import type { Way } from './ways.ts'
import { Wire } from './wire.ts'
import { makeSweeper } from './young-memory.ts'

export type { RemoteFile } from './remote-file.ts'
export type { OnBytes } from './transfer.ts'
export { makeDispatcher } from './ways.ts'
export { publicUrl } from './fetch-failure.ts'

const CONCURRENCY = 8
const RETRIES = 8
const MAX_WAIT_MS = 30_000
/** What a try must add to a file so that the next one comes at once. */
const PROGRESS_BYTES = 1024

/** Where a file came from. */
export interface Origin {
  /** the one of `urls` that gave it, as it stands there */
  url: string
  /** the same as it may be shown and kept */
  source: string
  /** names in lower case */
  headers: Record<string, string>
}

export interface FetchedBytes extends Origin {
  bytes: Buffer
  sha256: Sha256
}

export interface FetchedBlob extends Origin {
  /** false: it was in the store; `headers` is empty then */
  isFetched: boolean
  sha256: Sha256
  bytes: number
}

export interface FileHead extends Origin {
  /** where the server tells it */
  bytes: number | undefined
}

export interface FetcherOptions extends Omit<TimeLimits, 'throttle' | 'wire'> {
  dispatcher: Pick<Way, 'dispatch'>
  /** `gapferry/<version>` */
  userAgent: string
  /** requests at a time; no more than the dispatcher's connections per host */
  concurrency?: number
  /** pauses of 50 ms, doubled each time, before a file that does not get on is given up */
  retries?: number | undefined
  /** no pause is longer, whatever a server asks for */
  maxWaitMs?: number | undefined
  /** of all bodies together; without it as fast as they come */
  bytesPerSecond?: number | undefined
  /** counts for both where another fetcher takes from the same budget */
  wire?: Wire
  /** small files that were fetched before */
  pages?: PageMemory
  random?: () => number
  wait?: (ms: number, signal: AbortSignal) => Promise<void>
}

export class Fetcher {
  /** what this run has taken and may take */
  readonly wire: Wire
  readonly #options: FetcherOptions
  readonly #limits: TimeLimits
  readonly #limit: LimitFunction
  /** hosts that gave an answer in this run: no way to one of them may be a link that is down for a moment */
  readonly #answering = new Set<string>()
  readonly #sweep = makeSweeper()

  constructor(options: FetcherOptions) {
    this.#options = options
    this.wire = options.wire ?? new Wire()
    this.#limits = { ...limitsOf(options), wire: this.wire }
    this.#limit = pLimit(options.concurrency ?? CONCURRENCY)
  }

  /** A small file (metadata, lists, keys) into memory. One that was fetched before is asked for by its ETag and date.
   *  @throws FETCH_FAILED, FETCH_STATUS, FETCH_TIMEOUT, FETCH_CAPTIVE, FETCH_TOO_LONG, FETCH_SIZE_MISMATCH,
   *          FETCH_DIGEST_MISMATCH naming the item and every address tried; the signal's reason */
  get(file: RemoteFile, signal: AbortSignal): Promise<FetchedBytes> {
    return this.#fromAny(file, signal, async (url) => {
      const known = file.form === undefined ? this.#options.pages?.recall(pageOf(file, url)) : undefined
      const memory = new Memory()
      const body = file.acceptsGzip === true ? new CodedBody(file, memory) : new Body(file, memory)
      const answer = await this.#send(file, url, body, signal, known === undefined ? {} : marksOf(known))
      if (known !== undefined && answer.status === 304) this.#takeKnown(file, url, memory, known.bytes, answer)
      else body.end()
      const bytes = memory.whole()
      if (answer.status !== 304) await this.#keepPage(file, url, bytes, answer)
      return { ...originOf(url, answer), bytes, sha256: memory.digest('sha256') as Sha256 }
    })
  }

  /** The next `get` of this file at this address asks for its bytes, whatever the server says of them: for a file that
   *  turned out not to fit what belongs to it. */
  forget(file: Pick<RemoteFile, 'urls' | 'acceptsGzip'>): void {
    for (const url of file.urls) this.#options.pages?.forget(pageOf(file, url))
  }

  /** What was right before may not be what is declared now: then it is asked for anew. */
  #takeKnown(file: RemoteFile, url: string, memory: Memory, bytes: Buffer, answer: Answer): void {
    const body = new Body(file, memory)
    try {
      body.begin({ ...answer, status: 200, headers: {} })
      body.data(bytes)
      body.end()
    } catch (error) {
      this.forget({ ...file, urls: [url] })
      throw error instanceof FetchFailure ? new FetchFailure(error.code, error.message, { isTransient: true }) : error
    }
  }

  async #keepPage(file: RemoteFile, url: string, bytes: Buffer, { headers }: Answer): Promise<void> {
    const { etag = null, 'last-modified': lastModified = null } = headers
    if (file.form !== undefined || (etag ?? lastModified) === null) return
    await this.#options.pages?.keep(pageOf(file, url), { etag, lastModified, bytes })
  }

  /** A file into the store, hashed while it is written and durable when this resolves. A file whose declared SHA-256 is in
   *  the store is not fetched again.
   *  @param onBytes  called with the size of each piece, first of what an earlier run left, and with a negative one for bytes
   *                  that had to be thrown away; what it throws ends the transfer
   *  @throws as `get`, and SPACE_SHORT. On error at most the beginning is left, in the store's partial files, and the next
   *          call goes on from there; never for a file without a declared checksum whose server gave no strong validator. */
  async toBlob(file: RemoteFile, store: BlobStore, signal: AbortSignal, onBytes?: OnBytes): Promise<FetchedBlob> {
    return inStore(file, store) ?? this.#limit(() => this.#intoStore(file, store, signal, onBytes ?? (() => {})))
  }

  /** What a HEAD says of a file: its headers, and its size where the server tells it.
   *  @throws as `get`; FETCH_TOO_LONG and FETCH_SIZE_MISMATCH before a byte of the file is spent */
  head(file: RemoteFile, signal: AbortSignal): Promise<FileHead> {
    return this.#fromAny(file, signal, async (url) => {
      const receiver = { begin: () => {}, data: () => {} }
      const answer = await this.#request({ method: 'HEAD', url, receiver, signal }, { 'accept-encoding': 'identity' })
      const bytes = contentLength(answer)
      const refusal = sizeRefusal(file, bytes)
      if (refusal !== undefined) throw refusal
      return { ...originOf(url, answer), bytes }
    })
  }

  /** Works on all items, a few at a time. The first failure stops the others and is thrown when they have ended.
   *  @returns the results in the order of the items */
  async all<T, R>(
    items: Iterable<T>,
    work: (item: T, signal: AbortSignal) => Promise<R>,
    signal: AbortSignal,
  ): Promise<R[]> {
    // A limit of its own: work() waits for the other one, and two waits for one limit would be a deadlock.
    const limit = pLimit(this.#options.concurrency ?? CONCURRENCY)
    const stop = new AbortController()
    const either = AbortSignal.any([signal, stop.signal])
    const settled = await Promise.allSettled(
      Array.from(items, (item) =>
        limit(async () => {
          either.throwIfAborted()
          return await work(item, either).catch((error: unknown) => {
            stop.abort(error)
            throw error
          })
        }),
      ),
    )
    either.throwIfAborted()
    return settled.map((one) => (one as PromiseFulfilledResult<R>).value)
  }

  async #intoStore(file: RemoteFile, store: BlobStore, signal: AbortSignal, onBytes: OnBytes): Promise<FetchedBlob> {
    const transfer = new Transfer(file, store.partials, (bytes, isFromEarlier) => {
      onBytes(bytes, isFromEarlier)
      this.#sweep(bytes)
    })
    const batch = store.batch()
    try {
      const attempt = async (url: string): Promise<Origin> => {
        if (transfer.isWhole()) return { url, source: publicUrl(url), headers: {} }
        const answer = await this.#send(
          { ...file, acceptsGzip: false },
          url,
          transfer.from(url),
          signal,
          transfer.range(url),
        )
        transfer.end()
        return originOf(url, answer)
      }
      const heldBytes = (): number => transfer.bytes
      const origin = await this.#firstThatGives(file, signal, { attempt, heldBytes })
      const { bytes } = transfer
      const sha256 = transfer.adopt(batch)
      await batch.commit()
      return { ...origin, isFetched: true, sha256, bytes }
    } catch (error) {
      batch.discard()
      transfer.close(error)
      throw error
    }
  }

  #send(
    { form, acceptsGzip }: RemoteFile,
    url: string,
    receiver: Receiver,
    signal: AbortSignal,
    asked: Record<string, string> = {},
  ): Promise<Answer> {
    const method = form === undefined ? 'GET' : 'POST'
    const headers = { 'accept-encoding': acceptsGzip === true ? 'gzip' : 'identity', ...asked }
    return this.#request({ method, form, url, receiver, signal }, headers)
  }

  async #request(
    order: Pick<Order, 'method' | 'form' | 'url' | 'receiver' | 'signal'>,
    asked: Record<string, string>,
  ): Promise<Answer> {
    const { dispatcher, userAgent } = this.#options
    const headers = { 'user-agent': userAgent, accept: '*/*', ...asked }
    const accepts = [200, ...(asked['range'] === undefined ? [] : [206, 416]), ...(isByMark(asked) ? [304] : [])]
    const answer = await request({ ...order, dispatcher, headers, accepts, limits: this.#limits })
    this.#answering.add(hostOf(order.url))
    return answer
  }

  #fromAny<R>(file: RemoteFile, signal: AbortSignal, attempt: (url: string) => Promise<R>): Promise<R> {
    return this.#limit(() => this.#firstThatGives(file, signal, { attempt, heldBytes: () => 0 }))
  }

  #firstThatGives<R>(
    file: RemoteFile,
    signal: AbortSignal,
    { attempt, heldBytes }: Pick<Attempts<R>, 'attempt' | 'heldBytes'>,
  ): Promise<R> {
    const { retries = RETRIES, maxWaitMs = MAX_WAIT_MS, random = Math.random, wait = pause } = this.#options
    const { minBytesPerSecond = MIN_BYTES_PER_SECOND, rateWindowMs = RATE_WINDOW_MS } = this.#limits
    // What is too slow gets no better by asking at once.
    const slowBytes = (minBytesPerSecond * rateWindowMs) / 1000
    const progressBytes = ({ code }: FetchFailure): number => (code === 'FETCH_TIMEOUT' ? slowBytes : PROGRESS_BYTES)
    const isPassing: RetryRules['isPassing'] = ({ isTransient, isNoWay }, url) =>
      isTransient || (isNoWay && this.#answering.has(hostOf(url)))
    const rules = { retries, maxWaitMs, random, wait, isPassing }
    return firstThatGives(file, signal, rules, { attempt, heldBytes, progressBytes })
  }
}

function limitsOf({ bytesPerSecond, ...limits }: FetcherOptions): TimeLimits {
  return bytesPerSecond === undefined
    ? limits
    : { ...limits, throttle: makeThrottle(bytesPerSecond, () => performance.now()) }
}

/** The bytes of a small file. */
class Memory implements Sink {
  #chunks: Buffer[] = []
  readonly bytes = 0

  restart(): void {
    this.#chunks = []
  }

  write(chunk: Buffer): void {
    this.#chunks.push(chunk)
  }

  digest(algorithm: Checksum['algorithm']): string {
    return createHash(algorithm).update(this.whole()).digest('hex')
  }

  whole(): Buffer {
    return Buffer.concat(this.#chunks)
  }
}

function pageOf({ acceptsGzip }: Pick<RemoteFile, 'acceptsGzip'>, url: string): string {
  return acceptsGzip === true ? `gzip ${url}` : url
}

function marksOf({ etag, lastModified }: Page): Record<string, string> {
  return {
    ...(etag === null ? {} : { 'if-none-match': etag }),
    ...(lastModified === null ? {} : { 'if-modified-since': lastModified }),
  }
}

function isByMark(asked: Record<string, string>): boolean {
  return asked['if-none-match'] !== undefined || asked['if-modified-since'] !== undefined
}

function hostOf(url: string): string {
  return URL.parse(url)?.host ?? ''
}

function originOf(url: string, { headers }: Answer): Origin {
  return { url, source: publicUrl(url), headers }
}

function inStore({ checksum, bytes, urls, what }: RemoteFile, store: BlobStore): FetchedBlob | undefined {
  if (checksum?.algorithm !== 'sha256') return undefined
  const sha256 = parseSha256(checksum.hex.toLowerCase(), what)
  const stored = store.sizeOf(sha256)
  if (stored === undefined || (bytes !== undefined && bytes !== stored)) return undefined
  const url = urls[0] ?? ''
  return { url, source: publicUrl(url), headers: {}, isFetched: false, sha256, bytes: stored }
}

async function pause(ms: number, signal: AbortSignal): Promise<void> {
  await delay(ms, undefined, { signal }).catch(() => {})
  signal.throwIfAborted()
}
