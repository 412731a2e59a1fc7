/** Fetches one file into a store, to be killed on the way.
 *  argv: the store, the address, and the algorithm and digits of a declared checksum. stdout: bytes so far, line by line. */
import type { Checksum } from '../../manifests/digest.ts'
import { Fetcher, makeDispatcher } from '../../bundler/fetch.ts'
import { BlobStore } from '../../storage/blobs.ts'

const [, , storeDir = '', url = '', algorithm, hex = ''] = process.argv
const fetcher = new Fetcher({ dispatcher: makeDispatcher(), userAgent: 'gapferry/0.0.0' })
const checksum = { algorithm: algorithm as Checksum['algorithm'], hex }
const file = { urls: [url], maxBytes: 10_000_000, what: 'file', ...(algorithm === undefined ? {} : { checksum }) }
let total = 0
await fetcher.toBlob(file, new BlobStore(storeDir), new AbortController().signal, (bytes) => {
  total += bytes
  process.stdout.write(`${total}\n`)
})
