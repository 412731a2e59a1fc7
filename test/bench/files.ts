/** 600 MB in 1500 files that nothing can compress, sizes from 10 KB to 50 MB: what a bundle carries, in a store. */
import { createCipheriv } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import type { Sha256 } from '../../manifests/digest.ts'
import { BlobStore, type BlobBatch } from '../../storage/blobs.ts'
import { generated } from './folders.ts'
import { logNormal, randomFrom } from './random.ts'

/** Raise it with every change of what is made. */
const VERSION = 1
const COUNT = 1500
const TOTAL_BYTES = 600_000_000
/** As many files, each larger: memory may grow with the paths, not with the bytes. */
const LARGE = { count: COUNT, totalBytes: 4_000_000_000 }
const LEAST_BYTES = 10_000
const MOST_BYTES = 50_000_000
const CHUNK = Buffer.alloc(1024 * 1024)

export interface SampleBlob {
  sha256: Sha256
  bytes: number
}

/** @returns the root of a BlobStore with them, and what it holds */
export async function sampleFiles(): Promise<{ root: string; blobs: SampleBlob[] }> {
  const root = await generated('files', VERSION, async (folder) => {
    const blobs = await makeFiles(folder, { count: COUNT, totalBytes: TOTAL_BYTES })
    writeFileSync(join(folder, 'blobs.json'), JSON.stringify(blobs))
  })
  return { root, blobs: JSON.parse(readFileSync(join(root, 'blobs.json'), 'utf8')) as SampleBlob[] }
}

/** 4 GB in 1500 such files, made in `root` and not kept from run to run. */
export async function largeFiles(root: string): Promise<{ root: string; blobs: SampleBlob[] }> {
  return { root, blobs: await makeFiles(root, LARGE) }
}

async function makeFiles(root: string, shape: typeof LARGE): Promise<SampleBlob[]> {
  const batch = new BlobStore(root).batch()
  const blobs: SampleBlob[] = []
  for (const [i, bytes] of sizes(shape).entries()) {
    blobs.push({ sha256: makeFile(batch, bytes, i), bytes })
    await setImmediate() // a batch syncs in between
  }
  await batch.commit()
  return blobs
}

/** Scaled until they add up, because cutting off at both ends moves the sum. */
function sizes({ count, totalBytes }: typeof LARGE): number[] {
  const random = randomFrom(1)
  const shape = Array.from({ length: count }, () => logNormal(random, 1, 1.85))
  const scaled = (scale: number): number[] =>
    shape.map((one) => Math.round(Math.min(MOST_BYTES, Math.max(LEAST_BYTES, one * scale))))
  let scale = totalBytes / count
  for (let i = 0; i < 30; i++) scale *= totalBytes / sum(scaled(scale))
  return scaled(scale)
}

/** The stream of AES in counter mode: quick, and as good as random to anything that compresses. */
function makeFile(batch: BlobBatch, bytes: number, index: number): Sha256 {
  const iv = Buffer.alloc(16)
  iv.writeUInt32BE(index)
  const cipher = createCipheriv('aes-256-ctr', Buffer.alloc(32, 1), iv)
  const writer = batch.begin({ bytes, maxBytes: bytes })
  for (let done = 0; done < bytes; done += CHUNK.length) {
    writer.write(cipher.update(CHUNK.subarray(0, Math.min(CHUNK.length, bytes - done))))
  }
  return writer.finish()
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0)
}
