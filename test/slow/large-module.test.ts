import { createHash, randomBytes } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { moduleTgz } from '../helpers/module-files.ts'
import { mustRun } from '../helpers/process.ts'
import { moduleTestKey, signMessage } from '../helpers/odd-keys.ts'
import type { VerifyCosts, VerifyOrder } from '../helpers/verify-modules-program.ts'

const MAX_PEAK_BYTES = 200 * 2 ** 20
const MAX_CPU_MS = 10_000

t.test('a signed module of 95 MB is verified within 200 MB of memory, of which the program takes 90', async (t) => {
  const dir = t.testdir()
  const [plain, file] = [join(dir, 'core.tgz'), join(dir, 'core.tgz.gpg')]
  const firmware = Object.fromEntries(Array.from({ length: 19 }, (_, i) => [`firmware/${i}`, randomBytes(5_000_000)]))
  writeFileSync(plain, moduleTgz({ files: firmware }))
  for (const options of [[], ['-z', '0']]) {
    const message = await signMessage(['vendor'], plain, options)
    writeFileSync(file, message)
    const sha1 = createHash('sha1').update(message).digest('hex')
    const { publicArmored } = await moduleTestKey('vendor')
    const order: VerifyOrder = { files: [file], signed: { key: publicArmored, sha1s: [sha1] } }
    const program = join(import.meta.dirname, '../helpers/verify-modules-program.ts')
    const { stdout } = await mustRun(process.execPath, [program], { input: JSON.stringify(order) })
    const { results, peakBytes } = JSON.parse(stdout) as VerifyCosts
    t.equal(results[0]!.code, 'good')
    t.ok(results[0]!.cpuMs < MAX_CPU_MS, `${results[0]!.cpuMs} ms of processor`)
    t.ok(peakBytes < MAX_PEAK_BYTES, `${Math.round(peakBytes / 2 ** 20)} MiB of memory`)
  }
})
