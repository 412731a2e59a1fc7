/** The closures of a group's boxes as one set, each package with why it is carried. */
import type { PackageTable } from '../../manifests/package-table.ts'
import type { Available } from './available.ts'
import type { Closure, Rule } from '../resolve-yum.ts'

export interface BoxClosure {
  box: string
  available: Available
  installed: PackageTable
  closure: Closure
}

/** Why a package is carried. */
export interface Because {
  rule: Rule
  /** the first box that needs it; the chain of reasons goes on there or in boxes before it */
  box: string
  /** how many need it */
  boxes: number
  /** NEVRA of what it follows from; missing for what the settings want */
  by?: string
  /** `by` is installed there; otherwise it is carried, too */
  isInstalled?: boolean
  /** for `provider`: what `by` requires */
  requirement?: string
}

/** @returns place in Available → why, in the order of the boxes and of their closures */
export function mergeClosures(all: readonly BoxClosure[]): Map<number, Because> {
  const merged = new Map<number, Because>()
  for (const one of all) {
    for (const place of one.closure.packages) {
      const known = merged.get(place)
      if (known === undefined) merged.set(place, becauseOf(one, place))
      else known.boxes++
    }
  }
  return merged
}

/** In few words: `newer than app-1-1.noarch on pbx1`. */
export function reasonText({ rule, box, by = '', isInstalled, requirement }: Because): string {
  const where = isInstalled === true ? ` on ${box}` : ''
  if (rule === 'newer') return `newer than ${by}${where}`
  if (rule === 'native') return `the box's own build of ${by}${where}`
  if (rule === 'obsoleter') return `obsoletes ${by}${where}`
  if (rule === 'newest') return `newest of its name and architecture, beside ${by}`
  if (rule === 'provider') return `provides ${requirement ?? ''} for ${by}${where}`
  return 'include'
}

function becauseOf({ box, available, installed, closure }: BoxClosure, place: number): Because {
  const { rule, by, requirement } = closure.reasonOf(place)
  const because: Because = { rule, box, boxes: 1 }
  if (by !== null) {
    because.by = available.nevraOf(by.isInstalled ? installed : available.table, by.index)
    because.isInstalled = by.isInstalled
  }
  if (requirement !== null) because.requirement = available.requirementText(requirement)
  return because
}
