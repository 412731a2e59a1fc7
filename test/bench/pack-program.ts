/** Packs a BundleFile in a process of its own. argv: the file, the store that has its blobs, the stick. */
import { readFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { boxTool } from '../../bundler/box/tool.ts'
import { pack } from '../../bundler/pack.ts'
import { verifyPart } from '../../bundler/verify.ts'
import { BlobStore } from '../../storage/blobs.ts'
import type { BundleFile } from './bundle.ts'

const [, , file = '', storeRoot = '', toDir = ''] = process.argv
const bundle = JSON.parse(readFileSync(file, 'utf8')) as BundleFile
const bytes = <K>(rows: [K, string][]): Map<K, Buffer> =>
  new Map(rows.map(([name, text]) => [name, Buffer.from(text, 'base64')]))

const rootFile = Buffer.from(bundle.rootFile, 'base64')
const judge = { trusted: { roots: [rootFile] }, nowMs: Date.now(), scratchDir: tmpdir(), isPastCache: true }

await pack({
  site: bundle.site,
  number: bundle.number,
  metadata: bytes(bundle.metadata),
  trees: bytes(bundle.trees),
  wanted: new Map(bundle.wanted),
  blobs: new BlobStore(storeRoot),
  toDir,
  rootFile,
  boxTool: boxTool(),
  verifyPy: readFileSync(join(import.meta.dirname, '../../bundler/verify.py')),
  verify: (file) => verifyPart(file, judge),
})
