/** Memory does not grow with the bundle: pack, verify and import of 4 GB beside those of 600 MB. */
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import {
  gapferry,
  gapferryMirror,
  makeBundle,
  makeMirror,
  packCommand,
  sampleBundle,
  type SampleBundle,
} from './bundle.ts'
import { largeFiles } from './files.ts'
import { remove } from './folders.ts'
import { measure, round, type Metric } from './measure.ts'

const STEPS = ['pack', 'verify', 'import'] as const

export async function* scaleMetrics(work: string): AsyncGenerator<Metric> {
  const small = await peaks(join(work, 'small'), await sampleBundle(work))
  const dir = join(work, 'large')
  mkdirSync(dir)
  try {
    const large = await peaks(join(dir, 'peaks'), await makeBundle(dir, await largeFiles(join(dir, 'files'))))
    for (const step of STEPS) {
      const [ours, peer] = [large[step], small[step]]
      const beside = { unit: 'MB', against: 'the same with 600 MB in 1500 files', pairs: 1 }
      yield {
        metric: `${step}-4gb-memory`,
        ours: round(ours),
        peer: round(peer),
        ratio: round(ours / peer),
        goal: '<= 1.3',
        ...beside,
      }
    }
  } finally {
    remove(dir)
  }
}

/** The most memory of each step, in 10⁶ bytes. */
async function peaks(dir: string, bundle: SampleBundle): Promise<Record<(typeof STEPS)[number], number>> {
  mkdirSync(dir)
  const { config } = await makeMirror(join(dir, 'mirror'), bundle)
  const stick = join(dir, 'stick')
  const pack = await measure({ name: 'pack', command: packCommand(bundle, stick) })
  remove(stick)
  const verify = await measure({ name: 'verify', command: gapferry('verify', '--trust', bundle.rootFile, bundle.part) })
  const staged = await measure({ name: 'import', command: gapferryMirror('import', '--config', config, bundle.part) })
  remove(dir)
  return { pack: pack.peakMb, verify: verify.peakMb, import: staged.peakMb }
}
