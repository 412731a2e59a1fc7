/**
 * A whole plan for one box, beside what dnf does for the same box from the same server: 30,000 packages on offer, 1000
 * installed, of which one in seven has updates. Both start with empty caches.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { sha256Of } from '../../manifests/digest.ts'
import { writeRepomd } from '../../manifests/repomd.ts'
import { DnfClient, repoFileText } from '../helpers/dnf.ts'
import { inventoryText } from '../helpers/inventory-text.ts'
import type { PackageSpec } from '../helpers/rpm-spec.ts'
import { makeRpmDatabase } from '../helpers/rpm-database.ts'
import { serveFolder } from '../helpers/static-server.ts'
import { gapferry, mustRunOwn } from './bundle.ts'
import { generated, remove } from './folders.ts'
import { compare, memoryMetric, timeMetric, type Metric } from './measure.ts'
import { between, randomFrom, type Random } from './random.ts'
import { Document } from './repository.ts'
import {
  filelistsElement,
  nameOf,
  PACKAGES,
  primaryElement,
  samplePackage,
  type SamplePackage,
} from './repository-shape.ts'

/** Raise it with every change of what is made. */
const VERSION = 3
const VERSIONS = 3
const INSTALLED = 1000
const UPDATED_EVERY = 7
/** Packages require what stands near them, so that an update stays in its neighbourhood. */
const BLOCK = 20
const BASE = ['libc.so.6(GLIBC_2.14)(64bit)', 'libpthread.so.0()(64bit)', 'rtld(GNU_HASH)', '/bin/sh']
const COMMON = 'xmlns="http://linux.duke.edu/metadata/common" xmlns:rpm="http://linux.duke.edu/metadata/rpm"'

export async function* planMetrics(work: string): AsyncGenerator<Metric> {
  const folder = await generated('plan', VERSION, makeData)
  const server = await serveFolder(join(folder, 'repository'))
  try {
    const laptop = join(work, 'laptop')
    await makeLaptop(laptop, folder, server.url)
    const client = new DnfClient(join(work, 'box'), {
      repoFiles: { 'bench.repo': repoFileText({ id: 'bench', url: server.url }) },
    })
    await makeRpmDatabase(
      client.root,
      JSON.parse(readFileSync(join(folder, 'installed.json'), 'utf8')) as PackageSpec[],
    )
    const ours = {
      name: 'gapferry plan',
      command: [...gapferry('plan'), '--config', join(laptop, 'gapferry.yaml')],
      reset: () => remove(join(laptop, 'store')),
    }
    const peer = {
      name: 'dnf makecache; dnf upgrade --assumeno',
      command: dnfCommand(client),
      reset: () => remove(join(client.root, 'var/cache/dnf')),
    }
    const comparison = await compare(ours, peer)
    yield timeMetric('plan', 'wallSeconds', comparison, '<= 0.5')
    yield memoryMetric('plan-memory', comparison, '')
  } finally {
    await server.close()
  }
}

/** It answers no to the transaction, which is 1: only a transaction that it shows is a success here. */
function dnfCommand({ dir, root }: DnfClient): string[] {
  const dnf = `dnf -c ${dir}/etc/dnf.conf --installroot=${root} --releasever=7 --forcearch=x86_64`
  const script = `${dnf} -q makecache && ${dnf} -C upgrade --assumeno | grep -q '^Transaction Summary'`
  return ['env', `HOME=${dir}/home`, 'sh', '-c', script]
}

async function makeLaptop(laptop: string, folder: string, url: string): Promise<void> {
  mkdirSync(laptop, { recursive: true })
  const group = `- { name: x, origin: 'http://m.lan', yum: [{ id: bench, baseurl: ['${url}/'] }] }`
  const settings = `apiVersion: gapferry/v1\nkind: Fleet\nbudget: 4GB\nsites:\n  - name: hq\n    groups:\n      ${group}\n`
  writeFileSync(join(laptop, 'gapferry.yaml'), settings)
  const add = ['inventory', 'add', join(folder, 'pbx1.gfi'), '--config', join(laptop, 'gapferry.yaml')]
  await mustRunOwn(gapferry(...add))
}

function makeData(folder: string): void {
  const random = randomFrom(3)
  const repodata = join(folder, 'repository/repodata')
  mkdirSync(repodata, { recursive: true })
  const files = { primary: join(folder, 'primary.xml'), filelists: join(folder, 'filelists.xml') }
  const primary = new Document(files.primary, 'metadata', COMMON, PACKAGES)
  const filelists = new Document(
    files.filelists,
    'filelists',
    'xmlns="http://linux.duke.edu/metadata/filelists"',
    PACKAGES,
  )
  const installed: SamplePackage[] = []
  for (let i = 0; i < PACKAGES; i++) {
    const one = { ...samplePackage(random, i), ...neighbourly(random, i) }
    primary.add(primaryElement(one))
    filelists.add(filelistsElement(one))
    const number = Math.floor(i / VERSIONS)
    // the newest of most, an old one of every seventh
    if (number < INSTALLED && i % VERSIONS === (number % UPDATED_EVERY === 0 ? 0 : VERSIONS - 1)) installed.push(one)
  }
  const data = (['primary', 'filelists'] as const).map((type) => {
    ;(type === 'primary' ? primary : filelists).end()
    const open = readFileSync(files[type])
    const bytes = gzipSync(open, { level: 6 })
    writeFileSync(join(repodata, `${type}.xml.gz`), bytes)
    remove(files[type])
    const digest = (some: Buffer) => ({ algorithm: 'sha256' as const, hex: sha256Of(some) })
    const sizes = { bytes: bytes.length, openBytes: open.length, timestamp: 1_700_000_000 }
    return { type, checksum: digest(bytes), openChecksum: digest(open), href: `repodata/${type}.xml.gz`, ...sizes }
  })
  writeFileSync(join(repodata, 'repomd.xml'), writeRepomd({ revision: '1', data }))
  writeInstalled(folder, installed)
}

/** A version that rises with the row, and requirements: of the base and, where it is installed, of its neighbours; the
 *  update of one in ten of those that have one needs something new, which brings one more. A box that works lacks nothing. */
function neighbourly(random: Random, index: number): Pick<SamplePackage, 'version' | 'href' | 'requires'> {
  const number = Math.floor(index / VERSIONS)
  const block = number - (number % BLOCK)
  const near = number < INSTALLED ? between(random, 1, 8) : 1
  const requires = new Set(BASE.map((name) => `name="${name}"`))
  for (let i = 0; i < near; i++) {
    const other = number < INSTALLED ? block + between(random, 0, BLOCK - 1) : block
    requires.add(`name="${nameOf(other)}" flags="GE" epoch="0" ver="2.0"`)
  }
  const version = `2.${index % VERSIONS}`
  const isNewest = index % VERSIONS === VERSIONS - 1
  if (isNewest && number < INSTALLED && number % (UPDATED_EVERY * 10) === 0)
    requires.add(`name="${nameOf(number + INSTALLED)}"`)
  return { version, href: `Packages/${nameOf(number)}-${version}-${index}.rpm`, requires: [...requires] }
}

/** What is installed, for rpm's database and as an inventory. */
function writeInstalled(folder: string, packages: readonly SamplePackage[]): void {
  const specs = packages.map(specOf)
  specs.push({ name: 'base', version: '1', provides: BASE })
  writeFileSync(join(folder, 'installed.json'), JSON.stringify(specs))
  const relations = new Map<string, number>()
  const numbersOf = (texts: readonly string[]): string =>
    texts.map((text) => relations.get(text) ?? relations.set(text, relations.size + 1).size).join(',')
  const lines = specs.map(({ name, version, release = '1', arch = 'noarch', requires = [], provides = [] }) => {
    const own = [`${name} = ${version}-${release}`, ...provides]
    const required = requires.length === 0 ? '' : ` r=${numbersOf(requires)}`
    return `${name} 0 ${version} ${release} ${arch} p=${numbersOf(own)}${required}`
  })
  const sections = { relations: [...relations.keys()], packages: lines }
  writeFileSync(join(folder, 'pbx1.gfi'), inventoryText({ manager: 'dnf', sections }))
}

function specOf({ name, version, release, arch, requires }: SamplePackage): PackageSpec {
  const texts = requires.map((one) => {
    const [, required, evr] = /^name="([^"]+)"(?:.* ver="([^"]+)")?/.exec(one)!
    return evr === undefined ? required! : `${required} >= ${evr}`
  })
  return { name, version, release, arch, requires: texts }
}
