/** What a mirror's import refuses, `gapferry-box apply` refuses, too, and what it takes is taken: the same files brought to
 *  both. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { sha256Of } from '../../manifests/digest.ts'
import { applyAll } from '../helpers/apply.ts'
import { goodArchive, hostileArchives } from '../helpers/hostile-archives.ts'
import {
  attackedBundle,
  attackedPart,
  attackedRoot,
  expiredBefore,
  metadataAttacks,
} from '../helpers/hostile-metadata.ts'
import { makeContent, signContent, writeParts } from '../helpers/mirror.ts'
import { sampleRoot } from '../helpers/part.ts'
import { NOW } from '../helpers/site.ts'

const MAX_CPU_MS = 4000
const MAX_PEAK_BYTES = 200 * 1024 * 1024

interface Case {
  what: string
  /** as a mirror says it */
  codes: string[]
  bytes: Buffer
}

/** Where apply has a code, it is the mirror's. */
async function refusesAll(t: Test, root: string, cases: Case[], nowMs = NOW): Promise<void> {
  const files = cases.map(({ bytes }, i) => {
    const file = join(root, '..', `${i}.tar`)
    writeFileSync(file, bytes)
    return file
  })
  const { results, peakBytes } = await applyAll(
    root,
    files.map((dir) => ({ dir })),
    { nowMs },
  )
  for (const [i, { what, codes }] of cases.entries()) {
    const { code, message, isUnchanged, cpuMs } = results[i]!
    const isAsTheMirror = code === 'refused' || codes.includes(code)
    const found = { code: isAsTheMirror ? codes : code, isUnchanged, isSoon: cpuMs < MAX_CPU_MS }
    t.strictSame(
      found,
      { code: codes, isUnchanged: true, isSoon: true },
      `${what}: ${message} (${Math.round(cpuMs)} ms)`,
    )
  }
  t.ok(peakBytes < MAX_PEAK_BYTES, `${peakBytes} bytes of memory`)
}

/** A box that believes `root` and has a bundle already. */
async function box(t: Test, root: Buffer, bundle: Parameters<typeof writeParts>[1]): Promise<string> {
  const dir = t.testdir({ box: {}, stick: {} })
  const [file] = writeParts(join(dir, 'stick'), bundle)
  const { results } = await applyAll(join(dir, 'box'), [{ dir: file!, pin: sha256Of(root) }], {
    nowMs: NOW,
  })
  t.match(results, [{ code: 'accepted' }])
  return join(dir, 'box')
}

t.test('forged metadata', async (t) => {
  const root = await box(t, attackedRoot, attackedBundle(2))
  const cases = metadataAttacks.map(([what, code, bytes]) => ({ what, codes: [code].flat(), bytes }))
  await refusesAll(t, root, cases)
  const good = { what: 'a good bundle in 2031', codes: ['ROLE_EXPIRED'], bytes: attackedPart(attackedBundle(3)) }
  await refusesAll(t, root, [good], Date.UTC(2031, 0, 1))
  await refusesAll(t, root, [{ what: 'an expired one in 1970', codes: ['ROLE_EXPIRED'], bytes: expiredBefore() }], 0)
})

t.test('hostile archives', async (t) => {
  const root = await box(t, sampleRoot, signContent(makeContent(1, [{ stamp: 10, packages: ['a'] }])))
  const cases = hostileArchives.map(({ what, code, bytes }) => ({ what, codes: [code].flat(), bytes }))
  await refusesAll(t, root, cases)
  writeFileSync(join(root, '../good.tar'), goodArchive)
  const { results } = await applyAll(root, [{ dir: join(root, '../good.tar') }], { nowMs: NOW })
  t.match(results, [{ code: 'accepted' }], 'what they were made from is taken')
})
