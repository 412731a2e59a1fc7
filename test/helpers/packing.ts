/** What `pack` is given, made of a sample bundle. */
import { join } from 'node:path'
import type { Test } from 'tap'
import type { PackOptions } from '../../bundler/pack.ts'
import { verifyPart } from '../../bundler/verify.ts'
import { BlobStore } from '../../storage/blobs.ts'
import type { SampleBundle } from './part.ts'
import { NOW } from './site.ts'

export interface Packing {
  dir: string
  options: PackOptions
  /** where the parts go; not there yet */
  folder: string
}

/** A store that has the bundle's blobs, and an empty stick. */
export async function preparePack(t: Test, bundle: SampleBundle): Promise<Packing> {
  const dir = t.testdir({ store: {} })
  const blobs = new BlobStore(join(dir, 'store'))
  const batch = blobs.batch()
  for (const bytes of bundle.blobs.values()) batch.put(bytes)
  await batch.commit()
  const toDir = join(dir, 'stick')
  const { root: rootFile, ...content } = bundle
  const judge = { trusted: { roots: [rootFile] }, nowMs: NOW, scratchDir: dir, isPastCache: true }
  const verify: PackOptions['verify'] = (file) => verifyPart(file, judge)
  const options: PackOptions = {
    ...content,
    blobs,
    toDir,
    rootFile,
    verifyPy: Buffer.from('print()'),
    boxTool: Buffer.from('#!/bin/sh\n'),
    verify,
  }
  return { dir, options, folder: join(toDir, 'gapferry/hq') }
}
