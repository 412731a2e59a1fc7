/** What a person reads of the modules that a group carries. */
import { formatBytes, formatTable, plural, shortList } from '../../manifests/console.ts'
import { redact } from '../../manifests/errors.ts'
import type { PlannedGroup } from '../plan.ts'
import type { ModuleBecause, ModuleReason } from './carried-set.ts'
import { perBoxes } from '../render-boxes.ts'
import type { PlannedModuleBox } from './planned-modules.ts'

const SHOWN_BOXES = 12
/** Of which every upgrade is shown unasked. */
const DETAILED_BOXES = 2
const SHOWN_UPGRADES = 10
const SHOWN_NAMES = 8
const SHOWN_REQUIREMENTS = 5

/** For the table of a group's kinds. */
export function moduleRows({ modules: planned }: Pick<PlannedGroup, 'modules'>): string[][] {
  if (planned === undefined) return []
  const { modules, offered, major, sounds } = planned
  const commercial = modules.filter(({ isCommercial }) => isCommercial).length
  const unknown = modules.filter(({ bytes }) => bytes === null).length
  const notes = [
    `of ${offered} offered`,
    ...(commercial === 0 ? [] : [`${commercial} commercial`]),
    ...(unknown === 0 ? [] : [`${unknown} of unknown size`]),
  ]
  const rows = [[`modules ${major}`, plural(modules.length, 'module'), formatBytes(sumOf(modules)), notes.join('; ')]]
  if (sounds.listed.length > 0) {
    const listed = plural(sounds.listed.length, 'package')
    rows.push([
      `sounds ${major}`,
      plural(sounds.files.length, 'file'),
      formatBytes(sumOf(sounds.files)),
      `${listed} listed`,
    ])
  }
  return rows
}

/** A line for each box, and what it will upgrade where there are few of them.
 *  @param items  of all */
export function moduleBoxLines({ modules: planned }: Pick<PlannedGroup, 'modules'>, items: boolean): string[] {
  if (planned === undefined) return []
  const sizes = new Map(planned.modules.map(({ rawname, version, bytes }) => [`${rawname} ${version}`, bytes ?? 0]))
  const shown = planned.boxes.slice(0, SHOWN_BOXES).map((box) => boxRow(box, sizes))
  const more = planned.boxes.length - shown.length
  const blocked = planned.blocked.length === 0 ? [] : [`  kept off the list by policy: ${namesOf(planned.blocked)}`]
  return [
    formatTable(shown, { indent: '  ', right: [1, 2] }),
    ...(more > 0 ? [`  and ${plural(more, 'more box')}`] : []),
    ...(items || planned.boxes.length <= DETAILED_BOXES ? upgradeLines(planned.boxes, items) : []),
    ...blocked,
  ]
}

export function moduleItemRows({ modules: planned }: Pick<PlannedGroup, 'modules'>): string[][] {
  if (planned === undefined) return []
  const { modules, major, sounds } = planned
  return [
    ...modules.map((one) => [
      `${one.rawname} ${one.version}`,
      one.bytes === null ? '?' : formatBytes(one.bytes),
      `modules ${major}: ${moduleReason(one)}`,
    ]),
    ...sounds.files.map((file) => [file.as, file.bytes === null ? '?' : formatBytes(file.bytes), file.reason]),
  ]
}

/** What to know before trusting the plan. */
export function moduleWarnings({ modules: planned }: Pick<PlannedGroup, 'modules'>): string[] {
  if (planned === undefined) return []
  return [
    ...planned.warnings.map((text) => `modules: ${text}`),
    ...perBoxes(planned.boxes, ({ conflicts }) => conflicts).map(([text, names]) => `${namesOf(names)}: ${text}`),
    ...unresolvedWarnings(planned.boxes),
    ...additionWarnings(planned.boxes),
  ]
}

function boxRow(box: PlannedModuleBox, sizes: ReadonlyMap<string, number>): string[] {
  const comes = [
    ...box.upgrades.map(({ rawname, to }) => `${rawname} ${to}`),
    ...box.installs.map(({ rawname, version }) => `${rawname} ${version}`),
  ]
  const more = box.installs.length === 0 ? '' : `${box.installs.length} new with them; `
  const bytes = comes.reduce((sum, one) => sum + (sizes.get(one) ?? 0), 0)
  return [
    `box ${box.name}`,
    plural(box.upgrades.length, 'upgrade'),
    formatBytes(bytes),
    `${more}of ${plural(box.installed, 'module')}${box.framework === null ? '' : `, framework ${box.framework}`}`,
  ]
}

/** Boxes that upgrade alike stand together. */
function upgradeLines(boxes: readonly PlannedModuleBox[], items: boolean): string[] {
  const alike = Map.groupBy(boxes, ({ upgrades, installs }) => JSON.stringify([upgrades, installs]))
  return [...alike.values()].flatMap((same) => {
    const { upgrades, installs } = same[0]!
    const rows = [
      ...upgrades.map(({ rawname, from, to }) => [rawname, from, '→', to]),
      ...installs.map(({ rawname, version, by }) => [rawname, 'new', '→', `${version}, which ${by} needs`]),
    ]
    if (rows.length === 0) return []
    const shown = items ? rows : rows.slice(0, SHOWN_UPGRADES)
    const more = rows.length - shown.length
    return [
      `    on ${namesOf(same.map(({ name }) => name))}`,
      formatTable(shown, { indent: '      ' }),
      ...(more > 0 ? [`      and ${more} more (--items has them all)`] : []),
    ]
  })
}

function unresolvedWarnings(boxes: readonly PlannedModuleBox[]): string[] {
  const now = perBoxes(boxes, ({ unresolved }) => unresolved.filter(({ isWeekly }) => !isWeekly).map(unresolvedText))
  const weekly = perBoxes(boxes, ({ unresolved }) => unresolved.filter(({ isWeekly }) => isWeekly).map(unresolvedText))
  const unknown = perBoxes(boxes, (box) =>
    box.unknown.map(({ requirement, by, why }) => `${requirement}, which ${namesOf(by)} needs: ${why}`),
  )
  return [
    ...firstOf(now, ([text, names]) => `${namesOf(names)} will refuse ${text}`),
    ...firstOf(weekly, ([text, names]) => `a weekly installall on ${namesOf(names)} will refuse ${text}`),
    ...firstOf(unknown, ([text, names]) => `it is not known whether ${namesOf(names)} has ${text}`),
  ]
}

function unresolvedText({ requirement, by, why }: PlannedModuleBox['unresolved'][number]): string {
  return `${by}, which needs ${requirement}: ${why}`
}

function firstOf<T>(all: readonly T[], textOf: (one: T) => string): string[] {
  const more = all.length - SHOWN_REQUIREMENTS
  const shown = all.slice(0, SHOWN_REQUIREMENTS).map(textOf)
  return more > 0 ? [...shown, `and ${more} more like that (--json has them all)`] : shown
}

/** Boxes that install by themselves every week take all that is listed. */
function additionWarnings(boxes: readonly PlannedModuleBox[]): string[] {
  const found = perBoxes(boxes, ({ additions }) => (additions.length === 0 ? [] : [namesOf(additions)]))
  return firstOf(
    found,
    ([names, on]) => `${namesOf(on)}: a weekly installall adds what is listed and not there: ${names}`,
  )
}

function namesOf(names: readonly string[]): string {
  return shortList(names, SHOWN_NAMES)
}

function sumOf(items: readonly { bytes: number | null }[]): number {
  return items.reduce((total, { bytes }) => total + (bytes ?? 0), 0)
}

/** A carried module, as the plan has it. */
export interface ExplainedModule {
  rawname: string
  version: string
  reason: ModuleReason
  because: ModuleBecause
}

/** In one line, why it is carried. */
export function moduleReason({ rawname, reason, because }: Omit<ExplainedModule, 'version'>): string {
  const { from, by, requirement } = because
  const on = onBoxes(because)
  const newer = from === undefined ? '' : `newer than ${from === '' ? 'what is' : from}${on}`
  const texts: Record<ModuleReason, string> = {
    upgrade: requirement === undefined ? newer : `ends ${requirement} in ${from}, which is not running${on}`,
    wanted: 'wanted by policy',
    pinned: newer === '' ? 'pinned by policy' : `pinned by policy; ${newer}`,
    dependency:
      by === rawname
        ? `listed beside its ${requirement} build`
        : `${by ?? 'another'} needs ${requirement ?? 'it'}${on}`,
    always: 'always listed: boxes repair themselves with it',
    kept: `carried before, and still the newest${on === '' ? '' : ` of what is${on}`}`,
  }
  return redact(texts[reason])
}

/** From a module to what it is carried for in the end, a step on each line. */
export function moduleChain({ modules }: { modules: readonly ExplainedModule[] }, item: ExplainedModule): string[] {
  const chain = new Set<ExplainedModule>()
  for (let at: ExplainedModule | undefined = item; at !== undefined && !chain.has(at); at = nextOf(modules, at)) {
    if (chain.size === MAX_CHAIN) break
    chain.add(at)
  }
  return [...chain].map((at) => redact(`${at.rawname} ${at.version}: ${moduleReason(at)}`))
}

const MAX_CHAIN = 50

/** What demands it; of two entries of one module, the one that does not stand there for the other's sake. */
function nextOf(
  modules: readonly ExplainedModule[],
  { reason, because }: ExplainedModule,
): ExplainedModule | undefined {
  if (reason !== 'dependency') return undefined
  return modules.find((one) => one.rawname === because.by && one.because.by !== one.rawname)
}

function onBoxes({ box, boxes }: ModuleBecause): string {
  const more = boxes - 1
  const others = more < 1 ? '' : more === 1 ? ' and one other box' : ` and ${more} other boxes`
  return box === undefined ? '' : ` on ${box}${others}`
}
