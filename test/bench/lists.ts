/** Reading and cutting the metadata of a repository of 30,000 packages, unpacked as its peers take it. */
import { join } from 'node:path'
import { compare, memoryMetric, timeMetric, type Metric } from './measure.ts'
import { sampleRepository } from './repository.ts'

const HERE = import.meta.dirname

/** All that packages are, provide, require, obsolete and conflict with, in tables; libsolv also writes them down. */
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
  // as people start ours: compiled once, not at every start
  return [process.execPath, join(HERE, '../../manifests/launch.mjs'), 'test/bench/lists-program.ts', ...args]
}
