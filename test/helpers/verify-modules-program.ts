/** Verifies the files named on standard input one after the other, as unsigned modules core 17.0.1, and tells what each one cost. */
import { text } from 'node:stream/consumers'
import { verifyModule } from '../../bundler/modules/verify-module.ts'

export interface VerifyCosts {
  results: { code: string; message: string; cpuMs: number }[]
  /** the most memory the process had at any time */
  peakBytes: number
}

const results: VerifyCosts['results'] = []
for (const file of JSON.parse(await text(process.stdin)) as string[]) {
  const before = process.cpuUsage()
  const { code, message } = await verify(file)
  const { user, system } = process.cpuUsage(before)
  results.push({ code, message, cpuMs: (user + system) / 1000 })
}
const peakBytes = process.resourceUsage().maxRSS * 1024
process.stdout.write(JSON.stringify({ results, peakBytes } satisfies VerifyCosts))

async function verify(file: string): Promise<{ code: string; message: string }> {
  const context = { signal: new AbortController().signal, nowMs: Date.now() }
  try {
    await verifyModule(file, { rawname: 'core', version: '17.0.1' }, [], context)
    return { code: 'none', message: '' }
  } catch (error) {
    const { code, message } = error as { code?: string; message: string }
    return { code: code ?? String(error), message }
  }
}
