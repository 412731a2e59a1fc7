import { between, logNormal, pick, randomFrom, type Random } from '../bench/random.ts'
import { rangesOverlap } from '../../manifests/rpm-version.ts'
import { GENERATIONS } from './fleet.ts'
import { archOf, payloadOf, type PackageSpec } from './rpm-spec.ts'
import { factsOf, universePackage, type UniversePackage } from './universe.ts'

/** A box in a random state and what is offered to it: the same for the same seed. */
export interface RandomWorld {
  installed: UniversePackage[]
  available: SizedPackage[]
}

export type SizedPackage = UniversePackage & { bytes: number }

/** A box that has some of the lab's packages, each in some version. */
export function labWorld(seed: number): RandomWorld {
  const random = randomFrom(seed)
  return { installed: completed(random, chosen(random, LAB, 0.4), LAB), available: LAB }
}

/** Made once: their payloads are megabytes. */
const LAB = [...GENERATIONS.next.base, ...GENERATIONS.next.pkgs].map((spec) => packageOf(spec))

/** A box and a repository that nobody planned: libraries that change their names, twins for i686, obsoletes, conflicts,
 *  exact requirements, files. */
export function wildWorld(seed: number): RandomWorld {
  const random = randomFrom(seed)
  const names = between(random, 8, 30)
  const available: SizedPackage[] = []
  for (let i = 0; i < names; i++) {
    const arches = pick(random, [['x86_64'], ['x86_64'], ['noarch'], ['x86_64', 'i686'], ['x86_64', 'i686']])
    const versions = between(random, 1, 4)
    for (let version = 1; version <= versions; version++) {
      const more = relations(random, i, version)
      for (const arch of arches) {
        const one = universePackage(`p${i}-${version}-1.${arch}`, more)
        available.push({ ...one, bytes: Math.round(logNormal(random, 60_000, 1.5)) })
      }
    }
  }
  return { installed: completed(random, chosen(random, available, 0.4), available), available }
}

function relations(random: Random, i: number, version: number): Record<string, string[]> {
  const other = (): string => `p${between(random, 0, Math.max(0, i - 1))}`
  const some = (share: number, text: () => string): string[] => (random() < share ? [text()] : [])
  return {
    provides: [`lib${i}.so.${Math.ceil(version / 2)}`, ...some(0.1, () => `virtual${between(random, 0, 3)}`)],
    requires: [
      ...some(0.5, () => `lib${between(random, 0, i)}.so.${between(random, 1, 2)}`),
      ...some(0.3, other),
      ...some(0.2, () => `${other()} >= ${between(random, 1, 3)}`),
      ...some(0.1, () => `${other()} = ${between(random, 1, 3)}-1`),
      ...some(0.1, () => `virtual${between(random, 0, 3)}`),
      ...some(0.05, () => `/usr/bin/tool${between(random, 0, 5)}`),
    ],
    obsoletes: some(0.06, () => `${other()} < ${between(random, 2, 4)}`),
    conflicts: some(0.05, () => `${other()} < ${between(random, 1, 3)}`),
    files: some(0.15, () => `/usr/bin/tool${between(random, 0, 5)}`),
  }
}

/** Of some names one version, of some of these in both architectures. */
function chosen(random: Random, available: readonly SizedPackage[], share: number): SizedPackage[] {
  const byName = Map.groupBy(available, ({ nevra }) => nevra[0])
  return [...byName.values()].flatMap((all) => {
    if (random() > share) return []
    const version = pick(random, all).nevra.slice(1, 4).join(' ')
    const builds = all.filter(({ nevra }) => nevra.slice(1, 4).join(' ') === version)
    return builds.length > 1 && random() < 0.4 ? builds : [pick(random, builds)]
  })
}

/** With what they require, as far as anybody has it. */
function completed(random: Random, some: SizedPackage[], available: readonly SizedPackage[]): SizedPackage[] {
  const installed = [...some]
  for (let i = 0; i < installed.length; i++) {
    for (const require of factsOf(installed[i]!).requires ?? []) {
      const fulfils = (one: SizedPackage): boolean => provides(one, require)
      if (installed.some(fulfils)) continue
      const names = new Set(installed.map(({ nevra }) => nevra[0]))
      const others = available.filter((one) => fulfils(one) && !names.has(one.nevra[0]))
      if (others.length > 0) installed.push(pick(random, others))
    }
  }
  return whole(installed)
}

/** Without what lacks a requirement or conflicts with another: rpm lets no box come into such a state. */
function whole(some: readonly SizedPackage[]): SizedPackage[] {
  let left = [...some]
  for (;;) {
    const odd = left.find((one) => {
      const { requires = [], conflicts = [], obsoletes = [] } = factsOf(one)
      const others = left.filter((other) => other.nevra[0] !== one.nevra[0])
      return (
        !requires.every((require) => left.some((other) => provides(other, require))) ||
        [...conflicts, ...obsoletes].some((relation) => others.some((other) => provides(other, relation)))
      )
    })
    if (odd === undefined) return left
    left = left.filter((one) => one !== odd)
  }
}

type Require = NonNullable<ReturnType<typeof factsOf>['requires']>[number]

function provides(one: SizedPackage, require: Require): boolean {
  const { name, epoch, version, release, provides: own = [], files = [] } = factsOf(one)
  const all = [{ name, flags: 'EQ' as const, epoch, version, release }, ...own]
  return files.includes(require.name) || all.some((each) => each.name === require.name && rangesOverlap(each, require))
}

function packageOf(spec: PackageSpec): SizedPackage {
  const {
    name,
    epoch = 0,
    version,
    release = '1',
    requires = [],
    provides = [],
    obsoletes = [],
    recommends = [],
  } = spec
  const files = [...payloadOf(spec).keys()]
  const nevra = `${name}-${epoch}:${version}-${release}.${archOf(spec)}`
  const more = { requires, provides, obsoletes, recommends, files }
  return { ...universePackage(nevra, more), bytes: spec.payloadBytes ?? 2000 }
}
