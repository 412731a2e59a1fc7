/**
 * Import: verify a bundle, stage it; nothing served changes. For each part, in this order:
 *   1. its metadata is verified from the pinned root on, before anything of it is kept;
 *   2. the blobs that the store lacks, or has with other bytes than signed, are staged, each checked while it is written,
 *      then made durable together;
 *   3. one transaction adopts the trusted state, the bundle and its trees.
 * So a crash leaves a store that never heard of the part (staging/ is emptied by the next run), or has all of it, and blobs
 * without a row at worst, which the next import of the part finds. The medium is only read. With `salvage`, damage among the
 * blobs costs those blobs and damage before them that part; what is kept has the digest that is signed for it, as always.
 */
import { createHash } from 'node:crypto'
import { statfsSync, statSync } from 'node:fs'
import { basename } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import { formatBytes } from '../manifests/console.ts'
import type { Sha256 } from '../manifests/digest.ts'
import { GapferryError, isGapferryError } from '../manifests/errors.ts'
import { withCode } from '../manifests/system-error.ts'
import { parsePartHint, partHolding, partNames, serializePartHint, type PartHint } from '../manifests/part-hint.ts'
import { countLicenses, type LicenseCount } from '../manifests/licenses.ts'
import type { SiteFacts } from '../manifests/site.ts'
import type { Tree } from '../manifests/tree.ts'
import { checkDigest, type BlobBatch } from '../storage/blobs.ts'
import { blobFault, CHECK_BUFFER_BYTES } from '../storage/blob-check.ts'
import { missingPaths, type MissingPath } from '../storage/completeness.ts'
import { readPart, type BlobConsumer, type Damage, type PartBundle } from '../storage/parts.ts'
import { verifyMetadata } from '../storage/trust.ts'
import { findParts, type FoundParts, type SeenFolder } from './find-parts.ts'
import type { MirrorStore } from './store.ts'

/** For the audit trail; not called in a dry run. */
export interface ImportHooks {
  /** a part is begun */
  onPart: (file: string) => void
  /** a part was refused while others are salvaged: called when all are done */
  onRefused?: (file: string, error: GapferryError) => void
  /** a part is adopted: called in that transaction
   *  @param about.isComplete   with this part, the bundle is
   *  @param about.rootsBefore  how many roots were known before it */
  onAdopted: (bundle: PartBundle, about: { isComplete: boolean; rootsBefore: number }) => void
}

export interface ImportRequest {
  /** files and folders */
  inputs: string[]
  /** verify everything, keep nothing */
  isDryRun: boolean
  /** keep what is sound of a damaged part; otherwise its first damage refuses all of it */
  salvage?: boolean
  /** max(system clock, floor) */
  nowMs: number
  /** the system clock, not before the build date: storage/trust.ts raises it to the floor that is still believed */
  clockMs: number
  /** takes a bundle past its end (storage/trust.ts says how far), and why */
  expiredReason?: string | undefined
  /** what folders hold, before it is read */
  onSeen?: (seen: SeenFolder) => void
  /** bytes of parts done, of all bytes */
  onProgress?: (doneBytes: number, totalBytes: number) => void
  signal?: AbortSignal
  hooks?: ImportHooks
}

export interface ImportedPart {
  file: string
  /** blobs in this part */
  blobs: number
  bytes: number
  /** those of them that the store did not have, or not as signed */
  newBlobs: number
  newBytes: number
}

export interface ImportResult {
  site: string
  number: number
  createdAtMs: number
  expiresAtMs: number
  bundler: string
  isDryRun: boolean
  /** false when this bundle had been imported before */
  isNew: boolean
  /** taken past its end */
  isExpired: boolean
  parts: ImportedPart[]
  ignored: FoundParts['ignored']
  /** with `salvage`: what is wrong with the files; the last bundle is complete all the same where another part had it */
  damaged: DamagedBlob[]
  /** what is missing, and the name of the part that should have it */
  missing: (MissingPath & { part: string | null })[]
  /** null where the bundle carries none */
  licenses: LicenseCount | null
  trees: Map<string, Tree>
  facts: SiteFacts
}

/** What a medium did to a part. */
export interface DamagedBlob {
  file: string
  /** null where nothing tells which blob it was; both null: the whole part was refused */
  sha256: Sha256 | null
  /** the first path that it answers */
  path: string | null
  error: GapferryError
}

/** What an error says that a medium may have caused. Forgery looks the same, and is refused the same. */
const DAMAGE = /^(?:BUNDLE|BLOB|TREE|SITE_FACTS)_|^ROLE_(?:INVALID|SIGNATURE|MIXED)$/

/** Room that must stay free: the catalogue grows too, and a full disk stops more than this program. */
const RESERVE_BYTES = 64 * 1024 * 1024

/** Imports the parts that `inputs` name; those of the bundle with the highest number come last and are what the result is
 *  about. The caller holds the store's lock; what a
 *  crashed import left is cleared up. Parts that came before a failing one are kept.
 *  @throws what verifyMetadata and readPart throw; BUNDLE_NOT_FOUND; SPACE_SHORT before anything is written, or when the
 *          disk fills up nevertheless; the signal's reason */
export async function importParts(store: MirrorStore, request: ImportRequest): Promise<ImportResult> {
  const { files, ignored, seen } = findParts(request.inputs, store.site)
  for (const one of seen) request.onSeen?.(one)
  store.blobs.sweep()
  const run = new Run(store, request, files)
  let last: PartBundle | undefined
  for (const file of files) last = (await run.importOrNote(file)) ?? last
  if (last === undefined && run.damaged.length > 0) throw run.damaged[0]!.error
  run.tellRefused()
  if (last === undefined) throw new GapferryError('USAGE_INVALID', 'expected a file or folder to import, found none')
  const { metadata, trees, facts, hint } = last
  const { site, number, createdAtMs, expiresAtMs, bundler } = metadata
  const names = new Set(partNames(hint, run.readParts(last)))
  const missing = run.missing.map((path) => {
    const part = partHolding(hint, path.sha256) ?? null
    // A part that was read and does not have it was packed without it: nobody shall look for it there.
    return { ...path, part: part !== null && names.has(part) ? null : part }
  })
  const isNew = !run.wasHere(number)
  const { isDryRun } = request
  return {
    site,
    number,
    createdAtMs,
    expiresAtMs,
    bundler,
    isDryRun,
    isNew,
    isExpired: metadata.isExpired,
    licenses: last.licenses === undefined ? null : countLicenses(last.licenses),
    parts: run.parts,
    ignored,
    damaged: run.damaged,
    missing,
    trees,
    facts,
  }
}

class Run {
  readonly parts: ImportedPart[] = []
  readonly damaged: DamagedBlob[] = []
  /** part.json of each part that was read without damage */
  readonly #read: PartHint[] = []
  /** of the part that came last */
  missing: MissingPath[] = []
  readonly #store: MirrorStore
  readonly #request: ImportRequest
  readonly #totalBytes: number
  readonly #before: Set<number>
  /** verified in a dry run */
  readonly #seen = new Set<Sha256>()
  readonly #buffer = Buffer.allocUnsafeSlow(CHECK_BUFFER_BYTES)
  #doneBytes = 0

  constructor(store: MirrorStore, request: ImportRequest, files: string[]) {
    this.#store = store
    this.#request = request
    this.#totalBytes = files.reduce((total, file) => total + sizeOf(file), 0)
    this.#before = new Set(store.catalog.bundles().map((row) => row.number))
  }

  #has(sha256: Sha256): boolean {
    return this.#seen.has(sha256) || this.#store.blobs.has(sha256)
  }

  wasHere(number: number): boolean {
    return this.#before.has(number)
  }

  /** Numbers of the bundle's parts that were read without damage, now or by an earlier import, and cut as this one is. */
  readParts({ hint, metadata }: PartBundle): number[] {
    const { catalog } = this.#store
    const before = catalog.partHint(metadata.number)
    const isSameCut = (one: PartHint): boolean => one.number === hint.number && isDeepStrictEqual(one.parts, hint.parts)
    const earlier = before !== undefined && isSameCut(parsePartHint(before)) ? catalog.readParts(metadata.number) : []
    const now = this.#read.filter(isSameCut).map(({ part }) => part)
    return [...new Set([...earlier, ...now])].sort((a, b) => a - b)
  }

  /** @returns undefined where salvaging goes on without this part */
  async importOrNote(file: string): Promise<PartBundle | undefined> {
    const before = this.damaged.length
    try {
      return await this.#importPart(file)
    } catch (error) {
      if (this.#request.salvage !== true || !isGapferryError(error) || !DAMAGE.test(error.code)) throw error
      this.damaged.splice(before, Infinity, { file, sha256: null, path: null, error })
      return undefined
    }
  }

  tellRefused(): void {
    if (this.#request.isDryRun) return
    for (const { file, error } of this.damaged) {
      if (!this.parts.some((part) => part.file === file)) this.#request.hooks?.onRefused?.(file, error)
    }
  }

  async #importPart(file: string): Promise<PartBundle> {
    const { catalog, blobs } = this.#store
    const { nowMs, isDryRun, signal, expiredReason } = this.#request
    const hooks = isDryRun ? undefined : this.#request.hooks
    hooks?.onPart(file)
    const startBytes = this.#doneBytes
    const part: ImportedPart = { file, blobs: 0, bytes: 0, newBlobs: 0, newBytes: 0 }
    const batch = blobs.batch()
    let verified: PartBundle | undefined
    try {
      const content = await this.#readPart(part, batch, (bundle) => (verified = bundle))
      signal?.throwIfAborted()
      if (!isDryRun) {
        for (const [sha256, bytes] of content.bundle.treeBytes) {
          if (!(await this.#isSound(sha256, bytes.length))) batch.put(bytes)
        }
        await batch.commit()
      }
      if (!this.damaged.some((one) => one.file === file)) this.#read.push(content.bundle.hint)
      this.missing = missingPaths(content.bundle.trees.values(), (sha256) => this.#has(sha256), content.bundle.licenses)
      if (!isDryRun) {
        catalog.write(() => {
          const rootsBefore = catalog.trusted().roots.length
          const { metadata } = content.bundle
          catalog.adopt(metadata, nowMs, metadata.isExpired ? (expiredReason ?? null) : null)
          const isComplete = this.missing.length === 0
          const partHint = serializePartHint(content.bundle.hint)
          catalog.noteParts(metadata.number, { isComplete, partHint, readParts: this.readParts(content.bundle) })
          hooks?.onAdopted(content.bundle, { isComplete, rootsBefore })
        })
      }
      this.parts.push({ ...part, blobs: content.blobs, bytes: content.bytes })
      this.#advance(startBytes + sizeOf(file) - this.#doneBytes)
      return content.bundle
    } catch (error) {
      batch.discard()
      // What was free is not any more: with figures a person knows how much to make room for.
      if (verified !== undefined && isGapferryError(withCode(error), 'SPACE_SHORT')) this.#checkSpace(file, verified)
      throw error
    } finally {
      batch.discard()
    }
  }

  /** Judges the part's metadata, then stages in `batch` what the store lacks of it; counts in `part`. */
  #readPart(part: ImportedPart, batch: BlobBatch, onVerified: (bundle: PartBundle) => void) {
    const { catalog, site, stagingDir } = this.#store
    const { clockMs, isDryRun, signal, expiredReason, salvage } = this.#request
    const acceptExpired = expiredReason !== undefined
    let verified: PartBundle | undefined
    return readPart(
      part.file,
      {
        verify: (offered) =>
          verifyMetadata({
            trusted: catalog.trusted(),
            offered,
            nowMs: clockMs,
            site,
            scratchDir: stagingDir,
            acceptExpired,
          }),
        onVerified: (bundle) => {
          verified = bundle
          this.#checkSpace(part.file, bundle)
          onVerified(bundle)
        },
        onBlob: async (sha256, bytes) => {
          const isHere = this.#seen.has(sha256) || (await this.#isSound(sha256, bytes))
          // A dry run is asked about the medium: its copy is judged, whatever is here.
          if (isHere && !isDryRun) return this.#advance(bytes)
          const count = (): void => {
            if (isHere) return
            part.newBlobs += 1
            part.newBytes += bytes
          }
          const consumer = isDryRun ? this.#judgeOnly(sha256) : batch.begin({ sha256, bytes, maxBytes: bytes })
          return this.#counted(consumer, count)
        },
        ...(salvage === true && {
          onDamaged: ({ sha256, error }: Damage) => {
            const path = sha256 === null ? undefined : verified?.wanted.get(sha256)?.paths[0]
            this.damaged.push({ file: part.file, sha256, path: path ?? null, error })
          },
        }),
      },
      { signal },
    )
  }

  /** Reads what is here already, so that importing again mends a rotten store. */
  async #isSound(sha256: Sha256, bytes: number): Promise<boolean> {
    const options = { buffer: this.#buffer, signal: this.#request.signal }
    return (await blobFault(this.#store.blobs, { sha256, bytes }, options)) === undefined
  }

  #counted(consumer: BlobConsumer, onSound: () => void): BlobConsumer {
    return {
      write: (chunk) => {
        consumer.write(chunk)
        this.#advance(chunk.length)
      },
      finish: () => {
        consumer.finish()
        onSound()
      },
      abort: () => consumer.abort(),
    }
  }

  /** Only checks a blob's bytes. */
  #judgeOnly(sha256: Sha256): BlobConsumer {
    const hash = createHash('sha256')
    return {
      write: (chunk) => void hash.update(chunk),
      finish: () => {
        checkDigest(sha256, hash.digest('hex') as Sha256)
        this.#seen.add(sha256)
      },
      abort: () => undefined,
    }
  }

  /** Which blobs the part holds is only known when they come, but not more than its size of what is lacking. */
  #checkSpace(file: string, { wanted }: PartBundle): void {
    let lackingBytes = 0
    for (const [sha256, { bytes }] of wanted) if (this.#store.blobs.sizeOf(sha256) !== bytes) lackingBytes += bytes
    const needed = Math.min(lackingBytes, sizeOf(file)) + RESERVE_BYTES
    const { bavail, bsize } = statfsSync(this.#store.dir)
    const free = bavail * bsize
    if (free >= needed) return
    throw new GapferryError(
      'SPACE_SHORT',
      `${this.#store.dir}: expected ${formatBytes(needed)} of free space for ${basename(file)}, found ${formatBytes(free)}`,
      { hint: 'make room on this disk, then import again' },
    )
  }

  #advance(bytes: number): undefined {
    this.#doneBytes += bytes
    this.#request.onProgress?.(this.#doneBytes, this.#totalBytes)
  }
}

/** 0 where there is no such file: readPart says so. */
function sizeOf(file: string): number {
  return statSync(file, { throwIfNoEntry: false })?.size ?? 0
}
