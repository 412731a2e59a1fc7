/** Imports hostile files one after the other in a process of its own, so that its memory and time are theirs.
 *  argv: the mirror's store, the time in ms. stdin: JSON, the files. stdout: JSON, a {@link Refusals}. */
import { text } from 'node:stream/consumers'
import { isGapferryError } from '../../manifests/errors.ts'
import { importParts } from '../../server/import.ts'
import { openStoreForWriting } from '../../server/store.ts'
import { stateOf, type Refusals } from './hostile.ts'

/** Well below the bound that is tested. */
const COLLECT_BYTES = 120 * 1024 * 1024
const [, , storeDir = '', now = ''] = process.argv
const nowMs = Number(now)
const store = openStoreForWriting(storeDir)
const results: Refusals['results'] = []
let before = stateOf(storeDir)
const collect = (globalThis as { gc?: () => void }).gc
if (collect === undefined) throw new Error('run with --expose-gc')
for (const file of JSON.parse(await text(process.stdin)) as string[]) {
  const cpu = process.cpuUsage()
  let code = 'accepted'
  try {
    await importParts(store, { inputs: [file], isDryRun: false, nowMs, clockMs: nowMs })
  } catch (error) {
    code = isGapferryError(error) ? error.code : `not ours: ${String(error)}`
  }
  const { user, system } = process.cpuUsage(cpu)
  const after = stateOf(storeDir)
  results.push({ code, cpuMs: (user + system) / 1000, isUnchanged: after === before })
  before = after
  if (process.memoryUsage.rss() > COLLECT_BYTES) collect() // what one file took is not the next one's
}
store.close()
const refusals: Refusals = { results, peakBytes: process.resourceUsage().maxRSS * 1024 }
process.stdout.write(JSON.stringify(refusals))
