/** What a person reads of a group that is carried by its boxes' inventories. */
import { formatBytes, formatTable, plural, shortList } from '../manifests/console.ts'
import { redact } from '../manifests/errors.ts'
import type { Because } from './yum/closures.ts'
import type { PlannedBox } from './yum/plan-boxes.ts'
import type { PlannedGroup, PlannedPackage } from './plan.ts'
import type { Rule } from './resolve-yum.ts'

const SHOWN_BOXES = 12
const SHOWN_REQUIREMENTS = 3
const SHOWN_NAMES = 3
const MAX_CHAIN = 50

const LEAST = 'the newest that can be installed of what the boxes have'
const MEANING: Record<Rule, string> = {
  newer: 'newer than what is installed',
  native: 'builds for the box, of what it has for another architecture',
  obsoleter: 'replace what they obsolete',
  provider: 'provide what others require',
  newest: 'newest of a name that came in',
  wanted: 'asked for by include',
}

/** Boxes, bytes per rule and the lower bound; where there are no inventories, that the settings decide. */
export function boxLines(group: PlannedGroup): string[] {
  if (group.yum.length === 0) return []
  if (group.boxes.length === 0) {
    return ['  no inventories: carried is what include, exclude and newest name']
  }
  const shown = group.boxes.slice(0, SHOWN_BOXES).map(boxRow)
  const more = group.boxes.length - shown.length
  return [
    formatTable(shown, { indent: '  ', right: [1, 2, 3] }),
    ...(more > 0 ? [`  and ${plural(more, 'more box')}`] : []),
    ...(group.rules?.length === 0 ? [] : [formatTable(ruleRows(group), { indent: '    ', right: [0, 1] })]),
    ...(group.leastBytes ? [`  no update is smaller than ${formatBytes(group.leastBytes)}: ${LEAST}`] : []),
  ]
}

/** How many advisories what kind of; nothing where the upstreams have none. */
export function advisoryLines({ advisories, yum }: PlannedGroup): string[] {
  if (advisories.length === 0) return []
  const packages = yum.flatMap((repo) => repo.packages).filter((one) => one.advisories !== undefined).length
  const kinds = new Map<string, number>()
  for (const { type, severity } of advisories) {
    const kind = type === 'security' && severity !== '' ? `${severity} security` : type || 'other'
    kinds.set(kind, (kinds.get(kind) ?? 0) + 1)
  }
  const list = [...kinds].sort((a, b) => b[1] - a[1]).map(([kind, count]) => `${count} ${kind}`)
  const named = `${plural(packages, 'package')} in ${advisories.length} ${advisories.length === 1 ? 'advisory' : 'advisories'}`
  return [redact(`  ${named}: ${list.join(', ')}`)]
}

/** What to know of the boxes before trusting the plan. */
export function boxWarnings({ boxes, guessBytes = 0 }: PlannedGroup): string[] {
  const guesses = boxes.filter(({ isGuess }) => isGuess).map(({ name }) => name)
  return [
    ...perBoxes(boxes, (box) => box.warnings).map(([text, names]) => `${namesOf(names)}: ${text}`),
    ...staleWarnings(boxes),
    ...unresolvedWarnings(boxes),
    ...(guesses.length === 0 ? [] : [guessWarning(guesses, guessBytes)]),
  ]
}

function staleWarnings(boxes: readonly PlannedBox[]): string[] {
  const byBundle = Map.groupBy(
    boxes.filter(({ stale }) => stale),
    ({ stale }) => stale!.number,
  )
  return [...byBundle].map(
    ([number, stale]) =>
      `${namesOf(stale.map(({ name }) => name))}: stale: bundle ${number} was signed since the inventory; take a new one`,
  )
}

function guessWarning(boxes: readonly string[], surplus: number): string {
  const more = surplus === 0 ? '' : `, and ${formatBytes(surplus)} may be more than needed`
  return `${namesOf(boxes)}: no inventory, only names of packages: whether updates find all they require is not known${more}`
}

/** From a package down to what is installed on a box, a step on each line. */
export function chainOf(group: PlannedGroup, item: PlannedPackage): string[] {
  const lines: string[] = []
  const byNevra = new Map(group.yum.flatMap((repo) => repo.packages).map((one) => [one.nevra, one]))
  let at: PlannedPackage | undefined = item
  while (at?.because !== undefined && lines.length < MAX_CHAIN) {
    const { rule, box, by = '', isInstalled, requirement = '' }: Because = at.because
    if (rule === 'wanted') lines.push(`${at.nevra}: ${at.reason}`)
    if (rule === 'newer') lines.push(`${at.nevra} is newer than ${by}`)
    if (rule === 'native') lines.push(`${at.nevra} is the box's own build of ${by}`)
    if (rule === 'obsoleter') lines.push(`${at.nevra} obsoletes ${by}`)
    if (rule === 'newest') lines.push(`${at.nevra} is the newest of its name, beside ${by}`)
    if (rule === 'provider') lines.push(`${at.nevra} provides ${requirement}, which ${by} requires`)
    if (isInstalled === true) lines.push(`${by} is installed on ${box}`)
    at = isInstalled === true ? undefined : byNevra.get(by)
  }
  const others = (item.because?.boxes ?? 1) - 1
  if (others > 0) lines.push(`${others === 1 ? 'one other box needs' : `${others} other boxes need`} it, too`)
  return lines
}

function boxRow(box: PlannedBox): string[] {
  const day = box.createdAt.slice(0, 10)
  return [
    `box ${box.name}`,
    plural(box.candidates.length, 'candidate'),
    formatBytes(box.candidateBytes),
    `for ${plural(box.installed, 'package')}`,
    `${box.isGuess ? 'a stand-in' : `inventory of ${day}`}${box.stale ? ', stale' : ''}`,
  ]
}

function ruleRows(group: PlannedGroup): string[][] {
  return (group.rules ?? []).map(({ rule, packages, bytes }) => [
    plural(packages, 'package'),
    formatBytes(bytes),
    MEANING[rule],
  ])
}

function unresolvedWarnings(boxes: readonly PlannedBox[]): string[] {
  const found = perBoxes(boxes, unresolvedTexts)
  if (found.length === 0) return []
  const shown = found.slice(0, SHOWN_REQUIREMENTS).map(([text, names]) => `${text} on ${namesOf(names)}`)
  const more = found.length > shown.length ? `; and ${found.length - shown.length} more (--json has them all)` : ''
  return [
    `nothing on offer provides ${shown.join('; ')}${more}. An update that needs it fails, as it would at the upstream`,
  ]
}

function unresolvedTexts({ unresolved }: PlannedBox): string[] {
  return unresolved.map(({ requirement, by, kind }) => {
    return `${requirement} (for ${by})${kind === 'missing' ? '' : ' once what provides it there is updated'}`
  })
}

/** Texts that boxes have in common, each once, with the boxes' names. */
export function perBoxes<T extends { name: string }>(
  boxes: readonly T[],
  textsOf: (box: T) => readonly string[],
): [text: string, names: string[]][] {
  const found = new Map<string, string[]>()
  for (const box of boxes) {
    for (const text of textsOf(box)) found.set(text, [...(found.get(text) ?? []), box.name])
  }
  return [...found]
}

function namesOf(boxes: readonly string[]): string {
  return shortList(boxes, SHOWN_NAMES)
}
