/** The servers of test/bench/serve.ts, each a process of its own. argv: what to serve with, a folder made by `makeFiles`. */
import fastifyStatic from '@fastify/static'
import Fastify from 'fastify'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { BlobStore } from '../../storage/blobs.ts'
import { makeTree, startMirror, TestReleases } from '../helpers/content.ts'

const [, , program = '', dir = ''] = process.argv
const NAMES = ['4k', '100k', '20m']
process.on('disconnect', () => process.exit(0))

async function releases(): Promise<{ releases: TestReleases; blobs: BlobStore }> {
  const blobs = new BlobStore(join(dir, 'store'))
  const files = NAMES.map((name) => [name, { bytes: readFileSync(join(dir, 'files', name)) }] as const)
  const releases = new TestReleases()
  releases.release(await makeTree(blobs, Object.fromEntries(files)), Date.now())
  return { releases, blobs }
}

const programs: Record<string, () => Promise<string>> = {
  mirror: async () => (await startMirror(await releases())).origins[0]!.url,
  static: async () => {
    const app = Fastify()
    app.register(fastifyStatic, { root: join(dir, 'files') })
    return app.listen({ host: '127.0.0.1', port: 0 })
  },
}

process.send?.(await programs[program]!())
