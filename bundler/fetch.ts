/**
 * Upstream files → memory or blobs. Whatever an upstream sends, at most the declared or permitted bytes are taken, nothing
 * that differs from its declared size or digest is kept, and each failure names the item, every address and what came.
 * Blobs are kept as sent: no content coding is asked for and none is undone.
 */
import { setTimeout as delay } from 'node:timers/promises'
import pLimit, { type LimitFunction } from 'p-limit'
import type { Dispatcher } from 'undici'
import { parseSha256, sha256Of, type Sha256 } from '../manifests/digest.ts'
import { GapferryError } from '../manifests/errors.ts'
import type { BlobStore } from '../storage/blobs.ts'
import { type Answer, FetchFailure, publicUrl, withoutForm } from './fetch-failure.ts'
import { request, type Order, type Receiver, type TimeLimits } from './http.ts'
import { Body, CodedBody, contentLength, type RemoteFile, sizeRefusal } from './remote-file.ts'

export type { RemoteFile } from './remote-file.ts'
export { makeDispatcher } from './http.ts'
export { publicUrl } from './fetch-failure.ts'

const CONCURRENCY = 8
/** Addresses that failed for a passing reason are tried this often in all. */
const ROUNDS = 3
const RETRY_DELAY_MS = 500

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

export type OnBytes = (bytes: number) => void

export interface FetcherOptions extends TimeLimits {
  dispatcher: Dispatcher
  /** `gapferry/<version>` */
  userAgent: string
  /** requests at a time; no more than the dispatcher's connections per host */
  concurrency?: number
  retryDelayMs?: number
}

export class Fetcher {
  readonly #options: FetcherOptions
  readonly #limit: LimitFunction

  constructor(options: FetcherOptions) {
    this.#options = options
    this.#limit = pLimit(options.concurrency ?? CONCURRENCY)
  }

  /** A small file (metadata, lists, keys) into memory.
   *  @throws FETCH_FAILED, FETCH_STATUS, FETCH_TIMEOUT, FETCH_CAPTIVE, FETCH_TOO_LONG, FETCH_SIZE_MISMATCH,
   *          FETCH_DIGEST_MISMATCH naming the item and every address tried; the signal's reason */
  get(file: RemoteFile, signal: AbortSignal): Promise<FetchedBytes> {
    return this.#fromAny(file, signal, async (url) => {
      const chunks: Buffer[] = []
      const sink = (chunk: Buffer): void => void chunks.push(chunk)
      const body = file.acceptsGzip === true ? new CodedBody(file, sink) : new Body(file, sink)
      const answer = await this.#send(file, url, body, signal)
      let bytes = Buffer.alloc(0)
      const sha256 = body.end(() => sha256Of((bytes = Buffer.concat(chunks))))
      return { ...originOf(url, answer), bytes, sha256 }
    })
  }

  /** A file into the store, hashed while it is written and durable when this resolves. A file whose declared SHA-256 is in
   *  the store is not fetched again.
   *  @param onBytes  called with the size of each piece, and with a negative one for bytes that had to be thrown away
   *  @throws as `get`, and SPACE_SHORT. Nothing is left in the store on error. */
  async toBlob(file: RemoteFile, store: BlobStore, signal: AbortSignal, onBytes?: OnBytes): Promise<FetchedBlob> {
    return (
      inStore(file, store) ??
      this.#fromAny(file, signal, (url) => this.#intoStore(file, url, store, signal, onBytes ?? (() => {})))
    )
  }

  /** What a HEAD says of a file: its headers, and its size where the server tells it.
   *  @throws as `get`; FETCH_TOO_LONG and FETCH_SIZE_MISMATCH before a byte of the file is spent */
  head(file: RemoteFile, signal: AbortSignal): Promise<FileHead> {
    return this.#fromAny(file, signal, async (url) => {
      const receiver = { begin: () => {}, data: () => {} }
      const answer = await this.#request({ method: 'HEAD', url, receiver, signal }, 'identity')
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

  async #intoStore(
    file: RemoteFile,
    url: string,
    store: BlobStore,
    signal: AbortSignal,
    onBytes: OnBytes,
  ): Promise<FetchedBlob> {
    const batch = store.batch()
    const writer = batch.begin({ maxBytes: file.maxBytes, ...(file.bytes === undefined ? {} : { bytes: file.bytes }) })
    let isOpen = true
    const body = new Body(file, (chunk) => {
      writer.write(chunk)
      onBytes(chunk.length)
    })
    try {
      const answer = await this.#send({ ...file, acceptsGzip: false }, url, body, signal)
      const sha256 = body.end(() => {
        isOpen = false
        return writer.finish()
      })
      await batch.commit()
      return { ...originOf(url, answer), isFetched: true, sha256, bytes: body.takenBytes }
    } catch (error) {
      if (isOpen) writer.abort()
      batch.discard()
      onBytes(-body.takenBytes)
      throw error
    }
  }

  #send({ form, acceptsGzip }: RemoteFile, url: string, receiver: Receiver, signal: AbortSignal): Promise<Answer> {
    const method = form === undefined ? 'GET' : 'POST'
    return this.#request({ method, form, url, receiver, signal }, acceptsGzip === true ? 'gzip' : 'identity')
  }

  #request(order: Omit<Order, 'dispatcher' | 'limits' | 'headers'>, coding: 'gzip' | 'identity'): Promise<Answer> {
    const { dispatcher, userAgent } = this.#options
    const headers = { 'user-agent': userAgent, 'accept-encoding': coding, accept: '*/*' }
    return request({ ...order, dispatcher, headers, limits: this.#options })
  }

  #fromAny<R>(file: RemoteFile, signal: AbortSignal, attempt: (url: string) => Promise<R>): Promise<R> {
    return this.#limit(() => firstThatGives(file, signal, this.#options.retryDelayMs ?? RETRY_DELAY_MS, attempt))
  }
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

/** Tries the addresses in order, those with a passing failure in up to ROUNDS rounds. Lists and files change under us: one
 *  address of those that sent other bytes than declared is asked once more. */
async function firstThatGives<R>(
  file: RemoteFile,
  signal: AbortSignal,
  retryDelayMs: number,
  attempt: (url: string) => Promise<R>,
): Promise<R> {
  const failures = new Map<string, FetchFailure>()
  let mayHeal = true
  let urls = [...new Set(file.urls)]
  for (let round = 0; round < ROUNDS && urls.length > 0; round++) {
    if (round > 0) await pause(retryDelayMs * 2 ** (round - 1), signal)
    for (const url of urls) {
      signal.throwIfAborted()
      try {
        return await attempt(url)
      } catch (error) {
        if (!(error instanceof FetchFailure)) throw error
        failures.delete(url)
        failures.set(url, error)
      }
    }
    const other = urls.find((url) => mayHeal && failures.get(url)?.code === 'FETCH_DIGEST_MISMATCH')
    if (other !== undefined) mayHeal = false
    urls = urls.filter((url) => url === other || failures.get(url)?.isTransient)
  }
  throw failed(file, failures)
}

async function pause(ms: number, signal: AbortSignal): Promise<void> {
  await delay(ms, undefined, { signal }).catch(() => {})
  signal.throwIfAborted()
}

/** One error for all addresses; the code and the hint are those of the last failure. */
function failed(file: RemoteFile, failures: Map<string, FetchFailure>): GapferryError {
  const told = [...failures].map(([url, failure]) => `${publicUrl(url)}: ${failure.message}`)
  const last = [...failures.values()].at(-1)
  if (last === undefined) return new GapferryError('FETCH_FAILED', `${file.what}: no address to fetch it from`)
  const which = told.length === 1 ? '' : `none of ${told.length} addresses gave it: `
  const shown = (text: string): string => (file.form === undefined ? text : withoutForm(text, file.form))
  return new GapferryError(last.code, shown(`${file.what}: ${which}${told.join('; ')}`), {
    ...(file.form === undefined ? { cause: last } : {}),
    ...(last.hint === undefined ? {} : { hint: shown(last.hint) }),
  })
}
