/** What a group's settings say of single modules. */
import { shortList } from '../../manifests/console.ts'
import { GapferryError } from '../../manifests/errors.ts'
import { compareModuleVersions } from '../../manifests/module-version.ts'
import type { ModuleEntry } from '../../manifests/module-feed.ts'
import { nearest } from '../../manifests/settings.ts'

/** `want`: carried whatever the boxes have. `pin`: listed at that version alone. `block`: never listed. `latest`: as
 *  without a policy. */
export type Policy = { kind: 'latest' | 'block' | 'want' } | { kind: 'pin'; version: string }

export interface PolicyFacts {
  policy: ReadonlyMap<string, Policy>
  /** what the lists have of a module, in any section */
  entriesOf: (rawname: string) => readonly ModuleEntry[]
  /** why an entry of it cannot be carried */
  problemOf: (rawname: string) => string | undefined
  /** versions that boxes have of it, without those of which a box has the files alone */
  versionsOf: (rawname: string) => readonly string[]
  /** every module that is listed or on a box */
  known: () => Iterable<string>
}

/** Holds the policy against the lists and the boxes.
 *  @returns warnings: names that mean nothing here
 *  @throws MODULE_UNKNOWN for a module that is wanted, or pinned for boxes that have it lower, and cannot be carried */
export function checkPolicy(facts: PolicyFacts): string[] {
  const warnings: string[] = []
  for (const [rawname, rule] of [...facts.policy].sort(([a], [b]) => (a < b ? -1 : 1))) {
    if (rule.kind === 'want') checkWanted(rawname, facts)
    else if (rule.kind === 'pin') checkPinned(rawname, rule.version, facts)
    else if (facts.entriesOf(rawname).length === 0 && facts.versionsOf(rawname).length === 0) {
      warnings.push(`the policy names ${rawname}, which no list and no box has${meant(rawname, facts)}`)
    }
  }
  return warnings
}

function checkWanted(rawname: string, facts: PolicyFacts): void {
  const entries = facts.entriesOf(rawname)
  if (entries.some(({ section }) => section === 'module')) return
  const other = entries.find(({ section }) => section !== 'previous')
  if (other === undefined) throw unknown(`${rawname} is wanted, but ${nowhere(rawname, facts)}`)
  throw unknown(`${rawname} is wanted, but listed as ${other.section} alone`, {
    hint: `to carry that, set its policy to: pin ${other.version}`,
  })
}

function checkPinned(rawname: string, version: string, facts: PolicyFacts): void {
  const entries = facts.entriesOf(rawname)
  if (entries.some((one) => compareModuleVersions(one.version, version) === 0)) return
  const installed = facts.versionsOf(rawname)
  // nothing has to come where every box has it, or newer: the pin keeps it there
  if (installed.length > 0 && installed.every((one) => compareModuleVersions(one, version) >= 0)) return
  const offered = [...new Set(entries.map((one) => one.version))].sort((a, b) => compareModuleVersions(b, a))
  if (offered.length === 0) {
    throw unknown(`${rawname} is pinned to ${version}, but ${nowhere(rawname, facts)}`)
  }
  throw unknown(`${rawname} is pinned to ${version}, which no list has`, {
    hint: `listed: ${shortList(offered, SHOWN_VERSIONS)}`,
  })
}

const SHOWN_VERSIONS = 8

function nowhere(rawname: string, facts: PolicyFacts): string {
  const problem = facts.problemOf(rawname)
  return problem === undefined ? `no list has it${meant(rawname, facts)}` : `its entry in the list ${problem}`
}

function meant(rawname: string, facts: PolicyFacts): string {
  const near = nearest(rawname, facts.known())
  return near === undefined ? '' : `; did you mean "${near}"?`
}

function unknown(message: string, options: { hint?: string } = {}): GapferryError {
  return new GapferryError('MODULE_UNKNOWN', `modules.policy: ${message}`, options)
}
