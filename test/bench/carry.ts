/** Pack, verify, import: 600 MB in 1500 files, beside tar and openssl on the same bytes and the same disk. */
import { cpSync } from 'node:fs'
import { join } from 'node:path'
import { mustRun } from '../helpers/process.ts'
import { gapferry, gapferryMirror, makeMirror, packCommand, sampleBundle } from './bundle.ts'
import { remove } from './folders.ts'
import { compare, compareAll, memoryMetric, timeMetric, type Metric } from './measure.ts'

/** The peer of `pack` neither makes anything durable nor reads it back; that of `pack-durable` does as much as we do. */
export async function* packMetrics(work: string): AsyncGenerator<Metric> {
  const bundle = await sampleBundle(work)
  const stick = join(work, 'pack')
  const archive = join(work, 'pack.tar')
  const reset = async (): Promise<void> => {
    for (const made of [stick, archive]) remove(made)
    await settle(work)
  }
  const ours = { name: 'pack', command: packCommand(bundle, stick), reset }
  const tar = `tar cf ${archive} -C ${bundle.storeRoot} blobs`
  const digest = `openssl dgst -sha256 ${archive}`
  const durable = `${tar} && sync ${archive} && dd if=${archive} iflag=nocache count=0 && ${digest}`
  const [plain, fromDisk] = await compareAll(ours, [
    { name: 'tar cf; openssl dgst', command: shell(`${tar} && ${digest}`), reset },
    { name: 'tar cf; sync; openssl dgst from the disk', command: shell(durable), reset },
  ])
  yield timeMetric('pack', 'wallSeconds', plain!, '<= 1.0')
  yield memoryMetric('pack-memory', plain!, '<= 100 MB')
  yield timeMetric('pack-durable', 'wallSeconds', fromDisk!, '')
  await reset()
}

export async function* verifyMetrics(work: string): AsyncGenerator<Metric> {
  const { part, rootFile } = await sampleBundle(work)
  const ours = { name: 'verify', command: gapferry('verify', '--trust', rootFile, part) }
  const peer = { name: 'openssl dgst', command: ['openssl', 'dgst', '-sha256', part] }
  const comparison = await compare(ours, peer, 7)
  yield timeMetric('verify', 'cpuSeconds', comparison, '<= 1.2')
  yield memoryMetric('verify-memory', comparison, '')
}

export async function* importMetrics(work: string): AsyncGenerator<Metric> {
  const bundle = await sampleBundle(work)
  const [template, mirror, unpacked] = ['empty-mirror', 'mirror', 'unpacked'].map((name) => join(work, name)) as [
    string,
    string,
    string,
  ]
  await makeMirror(template, bundle)
  const reset = async (): Promise<void> => {
    for (const made of [mirror, unpacked]) remove(made)
    cpSync(template, mirror, { recursive: true })
    await settle(work)
  }
  const config = join(mirror, 'mirror.yaml')
  const ours = { name: 'import', command: gapferryMirror('import', '--config', config, bundle.part), reset }
  const digests = `find ${unpacked} -type f -exec openssl dgst -sha256 {} +`
  const command = shell(
    `mkdir ${unpacked} && tar xf ${bundle.part} -C ${unpacked} && ${digests} && sync -f ${unpacked}`,
  )
  const comparison = await compare(ours, { name: 'tar xf; openssl dgst; sync -f', command, reset })
  yield timeMetric('import', 'wallSeconds', comparison, '<= 1.0')
  yield memoryMetric('import-memory', comparison, '<= 120 MB')
  for (const made of [template, mirror, unpacked]) remove(made)
}

/** What one run leaves to be written must not be written during the next. */
async function settle(folder: string): Promise<void> {
  await mustRun('sync', ['-f', folder])
}

function shell(script: string): string[] {
  return ['sh', '-c', script]
}
