/** Reading and cutting the metadata of a repository of 30,000 packages, unpacked as its peers take it. */
import { join } from 'node:path'
import { compare, memoryMetric, timeMetric, type Metric } from './measure.ts'
import { sampleRepository } from './repository.ts'

const HERE = import.meta.dirname

/** Rows with name, version, checksum, size and place, by name; libsolv also reads what packages provide and require. */
export async function* parseMetrics(): AsyncGenerator<Metric> {
  const { primary } = await sampleRepository()
  const ours = { name: 'readPrimary', command: program('parse', primary) }
  const peer = { name: 'rpmmd2solv', command: ['sh', '-c', 'rpmmd2solv <"$0"', primary] }
  const comparison = await compare(ours, peer)
  yield timeMetric('parse', 'wallSeconds', comparison, '<= 0.5')
  yield memoryMetric('parse-memory', comparison, '')
}

/** 300 packages cut, written anew and packed with gzip -9; the peer only parses. */
export async function* cutPrimaryMetrics(): AsyncGenerator<Metric> {
  const { primary, carried } = await sampleRepository()
  const ours = { name: 'composeRepodata', command: program('cut', carried, primary) }
  const peer = { name: 'createrepo_c parser', command: ['python3', join(HERE, 'parse-peer.py'), primary] }
  const comparison = await compare(ours, peer)
  yield timeMetric('cut-primary', 'wallSeconds', comparison, '<= 0.4')
  yield memoryMetric('cut-primary-memory', comparison, '')
}

/** The same for filelists, with a primary that has those 300 only; the peer counts lines. */
export async function* cutFilelistsMetrics(): AsyncGenerator<Metric> {
  const { filelists, carriedPrimary, carried } = await sampleRepository()
  const ours = { name: 'composeRepodata', command: program('cut', carried, carriedPrimary, filelists) }
  const peer = { name: 'grep -c pkgid', command: ['grep', '-c', 'pkgid', filelists] }
  const comparison = await compare(ours, peer)
  yield timeMetric('cut-filelists', 'wallSeconds', comparison, '<= 1.5')
  yield memoryMetric('cut-filelists-memory', comparison, '<= 100 MB')
}

function program(...args: string[]): string[] {
  return [process.execPath, join(HERE, 'lists-program.ts'), ...args]
}
