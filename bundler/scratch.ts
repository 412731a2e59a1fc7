/**
 * Where to work before there is a store, or without one.
 */
import { rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { makeScratch } from '../storage/durable.ts'

/** Runs `work` with a folder of its own, which is gone afterwards; what a crash left is removed by the next run. */
export async function withScratch<T>(work: (scratchDir: string) => Promise<T>): Promise<T> {
  const scratchDir = makeScratch(tmpdir(), 'gapferry-verify-')
  try {
    return await work(scratchDir)
  } finally {
    rmSync(scratchDir, { recursive: true, force: true })
  }
}
