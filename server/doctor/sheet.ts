/**
 * What the doctor writes down: one line for each thing that was checked, and for each finding what was asked, what an
 * unmodified box would do then, and how it is mended.
 */

export interface Check {
  /** a word or two, the same for every group */
  check: string
  state: 'passed' | 'found' | 'skipped'
  /** what was seen */
  text: string
}

export interface Finding extends Check {
  state: 'found'
  /** the question, as a box would put it */
  asked: string
  /** what an unmodified box does with the answer */
  effect: string
  /** the next command, or what to change where */
  remedy: string
}

export type AnyCheck = Check | Finding

/** Findings of one kind are told one by one up to here; a list of a thousand helps nobody. */
const MAX_OF_ONE_CHECK = 8

/** The sheet of one group, in the order in which things were checked. */
export class Sheet {
  readonly checks: AnyCheck[] = []
  readonly #more = new Map<string, number>()

  passed(check: string, text: string): void {
    this.checks.push({ check, state: 'passed', text })
  }

  /** What could not be checked, and why. */
  skipped(check: string, text: string): void {
    this.checks.push({ check, state: 'skipped', text })
  }

  found(check: string, finding: Omit<Finding, 'check' | 'state'>): void {
    const before = this.findings.filter((one) => one.check === check).length
    if (before < MAX_OF_ONE_CHECK) this.checks.push({ check, state: 'found', ...finding })
    else this.#more.set(check, (this.#more.get(check) ?? 0) + 1)
  }

  /** True where nothing was found under this name. */
  isClean(check: string): boolean {
    return !this.checks.some((one) => one.check === check && one.state === 'found')
  }

  get findings(): Finding[] {
    return this.checks.filter((one): one is Finding => one.state === 'found')
  }

  /** check → how many findings are not in the list */
  get left(): ReadonlyMap<string, number> {
    return this.#more
  }
}
