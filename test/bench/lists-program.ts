/** Works on package lists in a process of its own. argv: `parse` PRIMARY, or `cut` CARRIED PRIMARY [FILELISTS]. */
import { readFileSync, statSync } from 'node:fs'
import { composeRepodata, type CarriedPackage } from '../../bundler/yum/repodata.ts'
import { readPrimary } from '../../bundler/yum/yum-lists.ts'
import type { Sha256 } from '../../manifests/digest.ts'
import { PACKAGES } from './repository-shape.ts'

const [, , program, ...args] = process.argv
/** Stands for a store: a blob's name is its path. */
const reader = { store: { pathOf: (blob: Sha256): string => blob }, signal: new AbortController().signal }

async function parse(primary: string): Promise<void> {
  const list = { type: 'primary' as const, blob: primary as Sha256, what: 'primary' }
  const checksum = { algorithm: 'sha256' as const, hex: '' }
  const data = { type: 'primary', checksum, href: '', timestamp: 0, openBytes: statSync(primary).size }
  const { count, pool, provides, requires } = await readPrimary(list, data, reader)
  if (count !== PACKAGES) throw new Error(`expected ${PACKAGES} packages, found ${count}`)
  // by the number of its name, as a resolver looks
  const byName = new Uint32Array(pool.size)
  for (const name of provides.name) byName[name]!++
  if (requires.name.every((name) => byName[name] === 0)) throw new Error('nothing is provided')
}

async function cut(carried: string, primary: string, filelists?: string): Promise<void> {
  const packages = JSON.parse(readFileSync(carried, 'utf8')) as CarriedPackage[]
  const data = {
    primary: primary as Sha256,
    ...(filelists === undefined ? {} : { filelists: filelists as Sha256 }),
  }
  const { files } = await composeRepodata({ id: 'bench', data, packages, ...reader })
  if (files.some(({ bytes }) => bytes.length === 0)) throw new Error('a list is empty')
}

if (program === 'parse') await parse(args[0]!)
else await cut(args[0]!, args[1]!, args[2])
