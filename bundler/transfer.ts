/**
 * One file on its way into the store, over as many answers, connections and runs as it takes. What an earlier answer left is
 * gone on with where the server can (RFC 9110 §14: Range, If-Range): with a declared checksum at any address, without one
 * only at the address that gave a strong validator. The digest is over all bytes, those of earlier runs read back.
 */
import { sha256Of, type Sha256 } from '../manifests/digest.ts'
import { isGapferryError } from '../manifests/errors.ts'
import type { BlobBatch } from '../storage/blobs.ts'
import type { PartialFile, PartialFiles, PartialSource } from '../storage/partials.ts'
import { type Answer, type FetchFailure, publicUrl } from './fetch-failure.ts'
import type { Receiver } from './http.ts'
import { Body, contentLength, RangeFailure, type RemoteFile, type Sink } from './remote-file.ts'

/** @param isFromEarlier  they were here before */
export type OnBytes = (bytes: number, isFromEarlier?: boolean) => void

/** A date is a strong validator when the file was that old already when it was sent (RFC 9110 §8.8.2.2). */
const STRONG_AFTER_MS = 60_000

export class Transfer {
  readonly #file: RemoteFile
  readonly #partial: PartialFile
  readonly #onBytes: OnBytes
  #url = ''
  #body: Body | undefined

  /** @param onBytes  told what is here already, too
   *  @throws SPACE_SHORT */
  constructor(file: RemoteFile, partials: PartialFiles, onBytes: OnBytes) {
    this.#file = file
    this.#partial = partials.open(partialKey(file), file.checksum)
    this.#onBytes = onBytes
    if (this.bytes > Math.min(file.bytes ?? file.maxBytes, file.maxBytes)) this.#partial.restart()
    if (this.bytes > 0) onBytes(this.bytes, true)
  }

  /** what is here of the file */
  get bytes(): number {
    return this.#partial.bytes
  }

  /** True where an earlier run got all of it and ended before it could say so. */
  isWhole(): boolean {
    const { checksum, bytes } = this.#file
    return (
      checksum !== undefined && bytes === this.bytes && this.#partial.digest(checksum.algorithm) === hexOf(checksum)
    )
  }

  /** The headers that ask `url` for the rest. */
  range(url: string): Record<string, string> {
    const { source } = this.#partial
    const isSame = source?.address === sha256Of(url)
    const mayGoOn = this.#file.checksum !== undefined || (isSame && source.validator !== null)
    if (this.bytes === 0 || this.#file.form !== undefined || !mayGoOn) return {}
    const validator = isSame ? source.validator : null
    return { range: `bytes=${this.bytes}-`, ...(validator === null ? {} : { 'if-range': validator }) }
  }

  /** Takes what `url` answers. */
  from(url: string): Receiver {
    this.#url = url
    this.#body = new Body(this.#file, this.#sink())
    return {
      begin: (answer) => this.#begin(answer),
      data: (chunk) => this.#body!.data(chunk),
    }
  }

  /** After an answer. @throws FetchFailure when that was not all, or not the file */
  end(): void {
    this.#body!.end()
  }

  /** The whole file as a blob of `batch`. */
  adopt(batch: BlobBatch): Sha256 {
    return this.#partial.adopt(batch)
  }

  /** After a failure: keeps the beginning for a later run. Not where the server says that there is no more, where the room
   *  is needed, or where a form was sent. */
  close(error: unknown): void {
    this.#onBytes(-this.bytes)
    const isShort =
      isGapferryError(error, 'FETCH_SIZE_MISMATCH') && (error.cause as FetchFailure | undefined)?.isTransient
    const isOver = isShort === true || isGapferryError(error, 'SPACE_SHORT')
    if (isOver || this.#file.form !== undefined) this.#partial.drop()
    else this.#partial.keep()
  }

  #begin(answer: Answer): void {
    try {
      if (answer.status === 416) throw new RangeFailure('expected the rest of the file, found that it ends there')
      if (answer.status === 206) this.#refuseChanged(answer)
      this.#body!.begin(answer)
    } catch (error) {
      if (error instanceof RangeFailure) this.#restart()
      throw error
    }
  }

  /** A server that heeds Range and not If-Range. */
  #refuseChanged({ headers }: Answer): void {
    const { address, validator, totalBytes } = this.#partial.source ?? {}
    const isOwn = address === sha256Of(this.#url) && validator != null
    const found = isOwn ? headers[validator.includes('"') ? 'etag' : 'last-modified'] : undefined
    const total = /\/(\d{1,15})$/.exec(headers['content-range'] ?? '')?.[1]
    const isOtherSize = totalBytes != null && total !== undefined && Number(total) !== totalBytes
    if (!isOtherSize && (found === undefined || found === validator)) return
    throw new RangeFailure('expected the rest of the file as it was, found that it has changed')
  }

  #sink(): Sink {
    const partial = this.#partial
    return {
      get bytes() {
        return partial.bytes
      },
      restart: (answer) => this.#restart(this.#sourceOf(answer)),
      write: (chunk) => {
        partial.write(chunk)
        this.#onBytes(chunk.length)
      },
      digest: (algorithm) => partial.digest(algorithm),
    }
  }

  /** What comes whole although the rest was asked for, and has not changed, comes from a server that knows no Range. */
  #sourceOf(answer: Answer): PartialSource {
    const before = this.#partial.source
    const source = sourceOf(this.#url, answer)
    const wasAsked = this.bytes > 0 && before?.address === source.address
    const isSame = before?.validator === source.validator && before?.totalBytes === source.totalBytes
    return wasAsked && isSame && answer.status === 200 ? { ...source, isWholeOnly: true } : source
  }

  #restart(source?: PartialSource): void {
    if (this.bytes > 0) this.#onBytes(-this.bytes)
    this.#partial.restart(source)
  }
}

/** Under which key the beginning of a file is kept: with a declared checksum one for those bytes, whoever has them. */
export function partialKey({ checksum, urls: [url = ''] }: Pick<RemoteFile, 'checksum' | 'urls'>): Sha256 {
  return sha256Of(checksum === undefined ? `url ${url}` : `${checksum.algorithm} ${hexOf(checksum)}`)
}

function hexOf({ hex }: { hex: string }): string {
  return hex.toLowerCase()
}

function sourceOf(url: string, answer: Answer): PartialSource {
  // Where a redirect led, another server may answer the next time, with marks of its own.
  const isOwn = answer.url.href === URL.parse(url)?.href
  const validator = isOwn ? strongValidator(answer) : null
  return { url: publicUrl(url), address: sha256Of(url), validator, totalBytes: contentLength(answer) ?? null }
}

function strongValidator({ headers: { etag, date = '', 'last-modified': modified } }: Answer): string | null {
  if (etag !== undefined) return /^"[\x21\x23-\x7e\x80-\xff]*"$/.test(etag) ? etag : null
  const isStrong = modified !== undefined && Date.parse(date) - Date.parse(modified) >= STRONG_AFTER_MS
  return isStrong ? modified : null
}
