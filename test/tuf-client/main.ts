/**
 * The command line of the TUF conformance suite for client.ts. Exit status 0 when it was done, 1 when not:
 *   node test/tuf-client/main.ts --metadata-dir D init ROOT
 *   node test/tuf-client/main.ts --metadata-dir D --metadata-url U refresh
 *   node test/tuf-client/main.ts --metadata-dir D --metadata-url U --target-name T --target-base-url B --target-dir X download
 */
import { parseArgs } from 'node:util'
import { download, init, refresh } from './client.ts'

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    'metadata-dir': { type: 'string' },
    'metadata-url': { type: 'string' },
    'target-name': { type: 'string' },
    'target-base-url': { type: 'string' },
    'target-dir': { type: 'string' },
  },
})

function option(name: keyof typeof values): string {
  const value = values[name]
  if (value === undefined) throw new Error(`--${name} is missing`)
  return value
}

async function run(): Promise<void> {
  const [verb, rootFile] = positionals
  const metadataDir = option('metadata-dir')
  if (verb === 'init' && rootFile !== undefined) return init(metadataDir, rootFile)
  const args = { metadataDir, metadataUrl: option('metadata-url').replace(/\/$/, ''), nowMs: Date.now() }
  if (verb === 'refresh') await refresh(args)
  else if (verb === 'download') {
    const targetBaseUrl = option('target-base-url').replace(/\/$/, '')
    await download({ ...args, targetName: option('target-name'), targetBaseUrl, targetDir: option('target-dir') })
  } else throw new Error('expected init ROOT, refresh or download')
}

try {
  await run()
} catch (error) {
  process.stderr.write(`${String(error)}\n`)
  process.exitCode = 1
}
