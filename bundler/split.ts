/**
 * Which part carries which blobs. Every part has all metadata and trees; the blobs follow each other in digest order, so
 * that a part is a range of digests and part.json can say where a blob is.
 */
import { isDeepStrictEqual } from 'node:util'
import { END_BYTES, entryBytes, MAX_PART_BLOBS, partName } from '../manifests/bundle.ts'
import { formatBytes } from '../manifests/console.ts'
import type { Sha256 } from '../manifests/digest.ts'
import { GapferryError } from '../manifests/errors.ts'
import { MAX_PARTS, serializePartHint, type PartHint, type PartRange } from '../manifests/part-hint.ts'
import type { OutgoingEntry } from './part-bytes.ts'

/** A bundle as it goes into parts. */
export interface BundleContent {
  site: string
  number: number
  /** names in the archive without folder → bytes as signed */
  metadata: Map<string, Buffer>
  /** trees and site facts */
  trees: Map<Sha256, Buffer>
  /** blobs to carry → their sizes */
  wanted: Map<Sha256, number>
}

/** One part to write. */
export interface PlannedPart {
  name: string
  /** of the whole file */
  bytes: number
  entries: OutgoingEntry[]
}

type Blob = [sha256: Sha256, bytes: number]

/** @param partSizeBytes  no part becomes larger: a blob that does not fit into one beside the metadata is refused, because
 *                        a part above the size that was asked for would not fit the medium it was asked for
 *  @throws PART_SIZE_SHORT naming what does not fit and the least size */
export function splitIntoParts(content: BundleContent, partSizeBytes = Number.POSITIVE_INFINITY): PlannedPart[] {
  return partsOf(content, distribute(content, blobsOf(content), partSizeBytes))
}

/** @param parts  of a part.json of the same bundle
 *  @returns the parts as they were cut then; undefined when those ranges are not what the bundle carries */
export function splitAsBefore(content: BundleContent, parts: (PartRange | null)[]): PlannedPart[] | undefined {
  const blobs = blobsOf(content)
  const ranges = parts.map((range) =>
    range === null ? [] : blobs.filter(([sha256]) => range.first <= sha256 && sha256 <= range.last),
  )
  const isSame = ranges.every((range, index) => isDeepStrictEqual(rangeOf(range), parts[index]))
  const count = ranges.reduce((total, range) => total + range.length, 0)
  return isSame && count === blobs.length ? partsOf(content, ranges) : undefined
}

function blobsOf({ wanted }: BundleContent): Blob[] {
  return [...wanted].sort(([a], [b]) => (a < b ? -1 : 1))
}

function partsOf(content: BundleContent, ranges: Blob[][]): PlannedPart[] {
  const { site, number } = content
  const parts = ranges.map(rangeOf)
  return ranges.map((range, index) => {
    const hint = { site, number, part: index + 1, parts }
    const entries = [...headEntries(content, hint), ...range.map(blobEntry)]
    return { name: partName({ ...hint, parts: parts.length }), bytes: fileBytes(entries), entries }
  })
}

/** part.json names every part, so that more parts leave less room in each: repeat until the room that was assumed is there. */
function distribute(content: BundleContent, blobs: Blob[], partSizeBytes: number): Blob[][] {
  for (let count = 1; ;) {
    const ranges = fillParts(blobs, partSizeBytes, fileBytes(headEntries(content, largestHint(content, count))))
    if (ranges.length <= count) return ranges
    count = ranges.length
    if (count > MAX_PARTS) {
      throw new GapferryError(
        'PART_SIZE_SHORT',
        `parts of ${formatBytes(partSizeBytes)} would be more than ${MAX_PARTS}`,
        {
          hint: 'use a larger --part-size',
        },
      )
    }
  }
}

function fillParts(blobs: Blob[], partSizeBytes: number, headBytes: number): Blob[][] {
  if (headBytes > partSizeBytes) throw tooSmall('metadata and trees', headBytes, partSizeBytes)
  const first: Blob[] = []
  const ranges = [first]
  let [last, used] = [first, headBytes]
  for (const blob of blobs) {
    const bytes = entryBytes(blob[1])
    if (headBytes + bytes > partSizeBytes) throw tooSmall(`blob ${blob[0]}`, headBytes + bytes, partSizeBytes)
    if (used + bytes > partSizeBytes || last.length === MAX_PART_BLOBS) {
      ;[last, used] = [[], headBytes]
      ranges.push(last)
    }
    last.push(blob)
    used += bytes
  }
  return ranges
}

/** What every part begins with, in the order of the format. */
function headEntries({ number, metadata, trees }: BundleContent, hint: PartHint): OutgoingEntry[] {
  const fixed = ['timestamp.json', `${number}.snapshot.json`, `${number}.targets.json`]
  const names = [...metadata.keys()].sort((a, b) => place(a, fixed) - place(b, fixed))
  return [
    ...names.map((name) => bytesEntry(`metadata/${name}`, metadata.get(name)!)),
    ...[...trees].sort(([a], [b]) => (a < b ? -1 : 1)).map(([sha256, bytes]) => bytesEntry(`trees/${sha256}`, bytes)),
    bytesEntry('part.json', serializePartHint(hint)),
  ]
}

/** Before the roots, which are in order of their versions, stand the three that belong to the bundle. */
function place(name: string, fixed: string[]): number {
  const index = fixed.indexOf(name)
  return index < 0 ? Number.parseInt(name, 10) : index - fixed.length
}

function largestHint({ site, number }: BundleContent, count: number): PartHint {
  const digest = 'f'.repeat(64) as Sha256
  return { site, number, part: count, parts: Array.from({ length: count }, () => ({ first: digest, last: digest })) }
}

function rangeOf(blobs: Blob[]): PartRange | null {
  const [first, last] = [blobs[0], blobs.at(-1)]
  return first === undefined || last === undefined ? null : { first: first[0], last: last[0] }
}

function bytesEntry(name: string, bytes: Buffer): OutgoingEntry {
  return { name, bytes: bytes.length, from: bytes }
}

function blobEntry([sha256, bytes]: Blob): OutgoingEntry {
  return { name: `blobs/${sha256}`, bytes, from: sha256 }
}

function fileBytes(entries: OutgoingEntry[]): number {
  return entries.reduce((total, { bytes }) => total + entryBytes(bytes), END_BYTES)
}

function tooSmall(what: string, needed: number, partSizeBytes: number): GapferryError {
  const message = `parts of ${partSizeBytes} bytes: ${what} needs a part of ${needed} bytes`
  return new GapferryError('PART_SIZE_SHORT', message, { hint: `use a --part-size of ${needed}B or more` })
}
