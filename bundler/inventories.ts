/**
 * The inventories that the laptop has, `<inventories>/<site>/<box>.gfi` as they came from the boxes (`.rpms`: what stands in
 * for one), with what the person said of it beside it (`.json`), and which group each box belongs to.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { basename, join } from 'node:path'
import * as v from 'valibot'
import { strictObject } from '../manifests/document.ts'
import { GapferryError } from '../manifests/errors.ts'
import { MAX_INVENTORY_BYTES } from '../manifests/inventory-lines.ts'
import { parseInventory, type Inventory } from '../manifests/inventory.ts'
import { parseStandIn } from '../manifests/stand-in.ts'
import { replaceFile } from '../storage/durable.ts'
import type { Ledger } from '../storage/ledger.ts'
import type { Fleet } from './config.ts'
import { compileGlob } from './yum/globs.ts'

/** What a person decided when the inventory was added. */
const Choice = strictObject({
  /** by hand, over the rules of gapferry.yaml */
  group: v.exactOptional(v.pipe(v.string(), v.regex(/^[a-z0-9._-]{1,64}$/))),
  /** taken from another box: a guess */
  baseline: v.exactOptional(v.boolean()),
  /** no person brought it: a mirror's report did */
  isReported: v.exactOptional(v.boolean()),
  addedAt: v.pipe(v.string(), v.regex(/^[0-9T:-]{19}Z$/)),
})
export type Choice = v.InferInput<typeof Choice>

export interface KnownBox {
  site: string
  /** the name that the laptop knows it by */
  name: string
  /** the group that takes it; undefined where none or several do */
  group: string | undefined
  /** the group was chosen by hand */
  isByHand: boolean
  /** a mirror's report brought it: a box certificate in it has only the mirror's word */
  isReported: boolean
  /** the inventory's file */
  file: string
  inventory: Inventory
}

/** A bundle that a box's inventory does not know of. */
export interface LaterBundle {
  number: number
  /** RFC 3339 */
  createdAt: string
}

type Site = Fleet['sites'][number]

const BOX = /^[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?$/
const ENDINGS = ['.gfi', '.rpms'] as const
const FIRST_WORD = 'gapferry-inventory'

/** All boxes of the site (of every site where none is given), by site and name.
 *  @throws INVENTORY_INVALID for a file that was changed since it was added; SITE_UNKNOWN */
export function loadBoxes(fleet: Fleet, site?: string): KnownBox[] {
  const sites = site === undefined ? fleet.sites : [siteOf(fleet, site)]
  return sites.flatMap((one) => boxNames(fleet, one.name).map((name) => loadBox(fleet, one, name)))
}

/** The boxes of a site by group, for a plan.
 *  @throws BOX_UNGROUPED where no group takes a box, or more than one does; INVENTORY_INVALID; SITE_UNKNOWN */
export function boxesByGroup(fleet: Fleet, site: string): Map<string, KnownBox[]> {
  const boxes = loadBoxes(fleet, site)
  for (const box of boxes) if (box.group === undefined) throw ungrouped(box.name, siteOf(fleet, site))
  return Map.groupBy(boxes, (box) => box.group!)
}

/** The site's last bundle, where it was signed after the box told what it has: the box may have been updated since. */
export function laterBundle(
  ledger: Ledger,
  site: string,
  { createdAt }: Pick<Inventory, 'createdAt'>,
): LaterBundle | null {
  const bundle = ledger.lastBundle(site)
  if (bundle === undefined || bundle.createdAtMs <= Date.parse(createdAt)) return null
  return { number: bundle.number, createdAt: `${new Date(bundle.createdAtMs).toISOString().slice(0, 19)}Z` }
}

/** One box's inventory, as it is kept. @throws BOX_UNKNOWN, INVENTORY_INVALID */
export function loadBox(fleet: Fleet, site: Site, name: string): KnownBox {
  const file = fileOf(fleet, site.name, name)
  if (file === undefined) throw unknownBox(name, site.name)
  const choice = readChoice(fleet, site.name, name)
  const read = readInventory(readFileSync(file), { name, createdAt: choice.addedAt }, file)
  const inventory = choice.baseline === true ? { ...read, isGuess: true } : read
  return {
    site: site.name,
    name,
    group: groupOf(site, name, choice),
    isByHand: choice.group !== undefined,
    isReported: choice.isReported === true,
    file,
    inventory,
  }
}

/** Reads what a person brings: an inventory, or what stands in for one.
 *  @param standIn  name and time of a box whose file tells neither
 *  @throws INVENTORY_INVALID */
export function readInventory(bytes: Buffer, standIn: { name: string; createdAt: string }, what: string): Inventory {
  return isInventory(bytes, what) ? parseInventory(bytes, what) : parseStandIn(bytes, standIn, what)
}

/** True for what says of itself, or by its name, that gapferry-box wrote it. */
export function isInventory(bytes: Buffer, what: string): boolean {
  return what.endsWith('.gfi') || bytes.subarray(0, FIRST_WORD.length).toString('latin1') === FIRST_WORD
}

/** Keeps an inventory; the one of the same box that was there goes.
 *  @param isForced  also where it says less or is older than the one that is there
 *  @returns whether it replaced one, or was there already
 *  @throws INVENTORY_OLDER; BOX_CONFLICT; BOX_UNGROUPED; GROUP_UNKNOWN; USAGE_INVALID for a name that is none */
export function keepInventory(
  fleet: Fleet,
  site: Site,
  offered: { name: string; bytes: Buffer; inventory: Inventory; choice: Choice; isForced: boolean },
): 'new' | 'replaced' | 'unchanged' {
  const { name, bytes, inventory, choice } = offered
  checkName(name)
  const group = groupOf(site, name, choice)
  if (choice.group !== undefined && !site.groups.some((one) => one.name === choice.group))
    throw unknownGroup(choice.group, site)
  if (group === undefined) throw ungrouped(name, site)
  const before = fileOf(fleet, site.name, name) === undefined ? undefined : loadBox(fleet, site, name)
  if (before !== undefined && !offered.isForced) refuseLess(before, inventory)
  const folder = folderOf(fleet, site.name)
  mkdirSync(folder, { recursive: true, mode: 0o700 })
  const file = join(folder, `${name}${isInventory(bytes, '') ? '.gfi' : '.rpms'}`)
  replaceFile(join(folder, `${name}.json`), Buffer.from(`${JSON.stringify(choice)}\n`), 0o600)
  const isChanged = replaceFile(file, bytes, 0o600)
  if (before !== undefined && before.file !== file) rmSync(before.file)
  if (before === undefined) return 'new'
  return isChanged || before.file !== file ? 'replaced' : 'unchanged'
}

/** Forgets a box. @throws BOX_UNKNOWN */
export function removeBox(fleet: Fleet, site: string, name: string): void {
  if (fileOf(fleet, site, name) === undefined) throw unknownBox(name, site)
  for (const ending of [...ENDINGS, '.json']) rmSync(join(folderOf(fleet, site), `${name}${ending}`), { force: true })
}

/** @throws SITE_UNKNOWN */
export function siteOf(fleet: Fleet, name: string): Site {
  const site = fleet.sites.find((one) => one.name === name)
  if (site !== undefined) return site
  throw new GapferryError('SITE_UNKNOWN', `${fleet.file} has no site ${name}`, {
    hint: `sites: ${fleet.sites.map((one) => one.name).join(', ')}`,
  })
}

/** The group that takes a box: the one chosen by hand, the only one whose `boxes` match, or a site's only group. */
function groupOf(site: Site, name: string, choice: Pick<Choice, 'group'>): string | undefined {
  if (choice.group !== undefined) return site.groups.find((one) => one.name === choice.group)?.name
  const [only, ...others] = site.groups
  if (others.length === 0 && only!.boxes === undefined) return only!.name
  const taking = site.groups.filter((one) => one.boxes?.some((glob) => matches(glob, name)) === true)
  return taking.length === 1 ? taking[0]!.name : undefined
}

/** Names of boxes are small letters. */
function matches(glob: string, name: string): boolean {
  return compileGlob(glob.toLowerCase()).pattern.test(name)
}

function boxNames(fleet: Fleet, site: string): string[] {
  const folder = folderOf(fleet, site)
  const names = existsSync(folder) ? readdirSync(folder) : []
  const boxes = ENDINGS.flatMap((ending) =>
    names.filter((name) => name.endsWith(ending)).map((name) => basename(name, ending)),
  )
  return [...new Set(boxes)].sort()
}

function fileOf(fleet: Fleet, site: string, name: string): string | undefined {
  if (!BOX.test(name)) return undefined
  const files = ENDINGS.map((ending) => join(folderOf(fleet, site), `${name}${ending}`))
  return files.find((file) => existsSync(file))
}

function folderOf(fleet: Fleet, site: string): string {
  return join(fleet.inventoriesDir, site)
}

/** A file that was put into the folder by hand has no choice beside it; its time then is unknown, which is long ago. */
function readChoice(fleet: Fleet, site: string, name: string): Choice {
  const file = join(folderOf(fleet, site), `${name}.json`)
  if (!existsSync(file)) return { addedAt: '1970-01-01T00:00:00Z' }
  try {
    const choice: unknown = JSON.parse(readFileSync(file, 'utf8'))
    if (v.is(Choice, choice)) return choice
  } catch (cause) {
    if (!(cause instanceof SyntaxError)) throw cause
  }
  throw new GapferryError('INVENTORY_INVALID', `${file}: is not what "inventory add" wrote`, {
    hint: `remove that file, then add the inventory of ${name} again`,
  })
}

function checkName(name: string): void {
  if (BOX.test(name)) return
  throw new GapferryError('USAGE_INVALID', `"${name}" is not a name for a box: a-z 0-9 . _ -, at most 64`, {
    hint: 'give it one: --name pbx1',
  })
}

function refuseLess(before: KnownBox, offered: Inventory): void {
  const { inventory, name } = before
  if (offered.digest === inventory.digest) return
  if (offered.machine !== undefined && inventory.machine !== undefined && offered.machine !== inventory.machine) {
    throw new GapferryError('BOX_CONFLICT', `${name}: the inventory is of another machine than the one that is here`, {
      hint: `another box of that name: --name OTHER; a new machine in its place: --force`,
    })
  }
  const isLess = offered.isGuess && !inventory.isGuess
  const isOlder = offered.isGuess === inventory.isGuess && offered.createdAt < inventory.createdAt
  if (!isLess && !isOlder) return
  const why = isLess
    ? 'is a guess, and the one that is here is not'
    : `is of ${offered.createdAt}, the one that is here of ${inventory.createdAt}`
  throw new GapferryError('INVENTORY_OLDER', `${name}: the inventory ${why}`, {
    hint: 'to take it all the same: --force',
  })
}

function ungrouped(name: string, { name: site, groups }: Site): GapferryError {
  const taking = groups.filter((one) => one.boxes?.some((glob) => matches(glob, name)) === true).map((one) => one.name)
  const why = taking.length === 0 ? 'no group takes it' : `several groups take it: ${taking.join(', ')}`
  const all = groups.map((one) => `${one.name} (${one.boxes?.join(', ') ?? 'no boxes'})`).join(', ')
  return new GapferryError('BOX_UNGROUPED', `${name}: ${why}; groups of ${site}: ${all}`, {
    hint: `say it by hand: gapferry inventory add FILE --group NAME; or by rule: boxes of a group in gapferry.yaml`,
  })
}

function unknownGroup(group: string, { name, groups }: Site): GapferryError {
  return new GapferryError('GROUP_UNKNOWN', `site ${name} has no group ${group}`, {
    hint: `groups: ${groups.map((one) => one.name).join(', ')}`,
  })
}

function unknownBox(name: string, site: string): GapferryError {
  return new GapferryError('BOX_UNKNOWN', `site ${site} has no inventory of a box ${name}`, {
    hint: 'gapferry inventory list',
  })
}

/** Bytes of a file that a person names. @throws INVENTORY_INVALID, USAGE_INVALID */
export function readOffered(file: string): Buffer {
  try {
    if (!statSync(file).isFile()) throw new Error('no plain file')
    if (statSync(file).size <= MAX_INVENTORY_BYTES) return readFileSync(file)
  } catch (cause) {
    throw new GapferryError('USAGE_INVALID', `${file}: cannot be read`, {
      cause,
      hint: 'name a file that gapferry-box wrote',
    })
  }
  throw new GapferryError('INVENTORY_INVALID', `${file}: expected at most ${MAX_INVENTORY_BYTES} bytes`)
}
