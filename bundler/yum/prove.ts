/**
 * Proves a plan with libsolv: for each box with an inventory, an update of everything must come to the same on what is
 * carried as on all that is offered. The lists go to libsolv as the upstream sent them and as a bundle has them; what the
 * box's settings hide is hidden on both sides.
 */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import pLimit from 'p-limit'
import { relationsOf } from '../../manifests/package-columns.ts'
import type { PackageTable } from '../../manifests/package-table.ts'
import { StringPool } from '../../manifests/string-pool.ts'
import type { PlannedRepository } from '../plan.ts'
import { Available } from './available.ts'
import { isOff, rulesOf, type BoxRules } from './box-settings.ts'
import { installedTable, type YumInventory } from './box-state.ts'
import { solve, solvPrimary } from './libsolv.ts'
import { provedRepositories, type ProofSources, type ProvedRepository } from './proof-lists.ts'
import { caseText, judge, primaryOf, type SolverCase, type Solved, type Verdict } from './solver-case.ts'

export interface BoxProof {
  box: string
  verdict: Verdict
  /** how many packages come with the update from what is carried */
  coming: number
  /** NEVRAs that come only from all that is offered … */
  onlyOffered: string[]
  /** … only from what is carried */
  onlyCarried: string[]
  /** why the update fails there; empty where it does not */
  problems: { offered: string[]; carried: string[] }
  /** proves less than it seems to, and why */
  doubts: string[]
}

const PARALLEL = 2
const PRIORITY = 99

/** @param yum  as planned @param boxes  that it was planned for
 *  @throws TOOL_MISSING, TOOL_FAILED, what reading the lists throws, the signal's reason */
export async function proveBoxes(
  yum: readonly PlannedRepository[],
  boxes: readonly YumInventory[],
  sources: ProofSources,
): Promise<BoxProof[]> {
  const pool = new StringPool()
  const repositories = await provedRepositories(yum, pool, sources)
  const group = { pool, repositories, available: new Map<boolean, Available>() }
  const limit = pLimit(PARALLEL)
  return Promise.all(boxes.map((box, i) => limit(() => new BoxProver(group, box, `box${i}`, sources).prove())))
}

interface ProvedGroup {
  pool: StringPool
  repositories: readonly ProvedRepository[]
  available: Map<boolean, Available>
}

class BoxProver {
  readonly #group: ProvedGroup
  readonly #box: YumInventory
  readonly #name: string
  readonly #sources: ProofSources
  readonly #available: Available
  readonly #installed: PackageTable
  readonly #rules: BoxRules

  /** @param name  of its files */
  constructor(group: ProvedGroup, box: YumInventory, name: string, sources: ProofSources) {
    this.#group = group
    this.#box = box
    this.#name = name
    this.#sources = sources
    this.#available = availableFor(group, box)
    this.#installed = installedTable(group.pool, box, this.#available).table
    this.#rules = rulesOf(box, this.#available)
  }

  async prove(): Promise<BoxProof> {
    const installed = await this.#installedFile('now', [{ table: this.#installed, rows: rowsOf(this.#installed) }])
    const offered = await this.#solve('offered', installed)
    const carried = await this.#solve('carried', installed)
    const verdict = await judge(offered, carried, (transaction) => this.#after(transaction))
    return {
      box: this.#box.box,
      verdict,
      coming: carried.added.length,
      onlyOffered: without(offered.added, carried.added),
      onlyCarried: without(carried.added, offered.added),
      problems: { offered: offered.problems, carried: carried.problems },
      doubts: this.#doubts(),
    }
  }

  /** An update of everything once that transaction is done, from all that is offered. */
  async #after({ removed, added }: Solved): Promise<Solved> {
    const { table } = this.#available
    const [gone, come] = [new Set(removed), new Set(added)]
    const places = new Map(
      [...rowsOf(table)].flatMap((place) => {
        const nevra = this.#available.nevraOf(table, place)
        return come.has(nevra) ? [[nevra, place] as const] : []
      }),
    )
    const stay = [...rowsOf(this.#installed)].filter((i) => !gone.has(this.#available.nevraOf(this.#installed, i)))
    const parts = [
      { table: this.#installed, rows: stay },
      { table, rows: places.values() },
    ]
    return this.#solve('offered', await this.#installedFile('then', parts))
  }

  async #installedFile(when: string, parts: Parameters<typeof primaryOf>[0]): Promise<string> {
    const name = `${this.#name}-${when}.solv`
    await solvPrimary(this.#sources, primaryOf(parts), join(this.#sources.dir, name))
    return name
  }

  #solve(side: 'offered' | 'carried', installed: string): Promise<Solved> {
    const file = join(this.#sources.dir, `${this.#name}-${side}.t`)
    writeFileSync(file, caseText(this.#caseOf(side, installed)))
    return solve(this.#sources, file)
  }

  #caseOf(side: 'offered' | 'carried', installed: string): SolverCase {
    const { arch, manager, mainOptions } = this.#box
    const { takesWeak, followsObsoletes } = this.#rules
    return {
      arch,
      installed,
      repositories: this.#group.repositories.flatMap((one, i) => {
        const { start, end } = this.#available.repositories[i]!
        if (isOff(this.#optionOf(one.id, 'enabled'))) return []
        const hidden = this.#hiddenIn(start, end).filter((nevra) => side === 'offered' || one.isCarried.has(nevra))
        return [{ name: `r${i}`, priority: this.#priorityOf(one.id), file: one[side], hidden }]
      }),
      installonly: this.#installonly(),
      takesWeak,
      followsObsoletes,
      insistsOnNewest: manager === 'dnf' && /^(?:1|yes|true|on)$/i.test(mainOptions.get('best') ?? ''),
    }
  }

  #hiddenIn(start: number, end: number): string[] {
    const { table } = this.#available
    const hidden: string[] = []
    for (let place = start; place < end; place++) {
      if (this.#rules.isOffered[place] === 0) hidden.push(this.#available.nevraOf(table, place))
    }
    return hidden
  }

  #optionOf(id: string, key: string): string | undefined {
    return this.#box.repositories.find((one) => one.id === id)?.options.get(key)
  }

  /** dnf has priorities of its own; yum's plugin hides, which the rules did. */
  #priorityOf(id: string): number {
    const value = this.#box.manager === 'dnf' ? this.#optionOf(id, 'priority') : undefined
    return -(value !== undefined && /^\s*\d{1,3}\s*$/.test(value) ? Number(value) : PRIORITY)
  }

  #installonly(): string[] {
    const { pool, name } = this.#installed
    const names = [...rowsOf(this.#installed)].filter((i) =>
      this.#rules.isInstallonly(pool.text(name[i]!), () =>
        relationsOf(this.#installed, 'provides', i).map((relation) => relation.name),
      ),
    )
    return [...new Set(names.map((i) => pool.text(name[i]!)))].sort()
  }

  #doubts(): string[] {
    return [
      ...(this.#box.isGuess ? ['only names of its packages are known'] : []),
      ...(this.#rules.followsObsoletes ? [] : ['obsoletes=0, which libsolv takes less strictly']),
    ]
  }
}

function availableFor({ pool, repositories, available }: ProvedGroup, { manager }: YumInventory): Available {
  const caret = manager === 'dnf'
  const known = available.get(caret) ?? new Available(pool, repositories, { caret })
  available.set(caret, known)
  return known
}

function* rowsOf({ count }: PackageTable): Generator<number> {
  for (let i = 0; i < count; i++) yield i
}

function without(list: readonly string[], others: readonly string[]): string[] {
  const known = new Set(others)
  return list.filter((one) => !known.has(one)).sort()
}
