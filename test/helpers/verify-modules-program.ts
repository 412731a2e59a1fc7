/** Verifies the files named on standard input one after the other, as modules core 17.0.1, and tells what each one cost. */
import { readFileSync } from 'node:fs'
import { text } from 'node:stream/consumers'
import { moduleKeys } from '../../bundler/modules/vendor-keys.ts'
import { verifyModule } from '../../bundler/modules/verify-module.ts'

export interface VerifyOrder {
  files: string[]
  /** there where the files are signed: the pinned key, armored, and the sha1 of each file */
  signed?: { key: string; sha1s: string[] }
}

export interface VerifyCosts {
  /** `code`: of the refusal, or the verdict */
  results: { code: string; message: string; cpuMs: number }[]
  /** the most memory the process had at any time */
  peakBytes: number
}

const results: VerifyCosts['results'] = []
const { files, signed } = JSON.parse(await text(process.stdin)) as VerifyOrder
const pinned = signed === undefined ? [] : [{ file: 'pinned.asc', text: signed.key }]
const keys = await moduleKeys({ files: pinned, inventories: [] })
for (const [i, file] of files.entries()) {
  const before = process.cpuUsage()
  const { code, message } = await verify(file, signed?.sha1s[i])
  const { user, system } = process.cpuUsage(before)
  results.push({ code, message, cpuMs: (user + system) / 1000 })
}
// of this program alone: what getrusage says begins with the memory of the process that started it
const peak = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync('/proc/self/status', 'utf8'))![1]
const peakBytes = Number(peak) * 1024
process.stdout.write(JSON.stringify({ results, peakBytes } satisfies VerifyCosts))

async function verify(file: string, signedSha1: string | undefined): Promise<{ code: string; message: string }> {
  const context = { signal: new AbortController().signal, nowMs: Date.now() }
  try {
    const { verdict } = await verifyModule(file, { rawname: 'core', version: '17.0.1', signedSha1 }, keys, context)
    return { code: verdict, message: '' }
  } catch (error) {
    const { code, message } = error as { code?: string; message: string }
    return { code: code ?? String(error), message }
  }
}
