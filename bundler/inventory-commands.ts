/**
 * `gapferry inventory`: what boxes say of themselves, brought to the laptop.
 */
import { existsSync } from 'node:fs'
import { join, resolve } from 'node:path'
import type { Command } from 'commander'
import { formatTable, formatTime, plural } from '../manifests/console.ts'
import { GapferryError } from '../manifests/errors.ts'
import type { FreepbxFacts } from '../manifests/inventory.ts'
import { examples, print, type GlobalOptions, type Surroundings } from '../manifests/program.ts'
import { judgeFeatures, type FeatureRow } from '../manifests/features.ts'
import { judgeReadiness, type ReadinessRow } from '../manifests/readiness.ts'
import { renderReadiness } from '../manifests/render-readiness.ts'
import { Ledger } from '../storage/ledger.ts'
import { carriedFor } from './carried.ts'
import { auditedOnLaptop, withLedger } from './audit.ts'
import { loadFleet, type Fleet } from './config.ts'
import {
  isInventory,
  keepInventory,
  laterBundle,
  loadBox,
  loadBoxes,
  readInventory,
  readOffered,
  removeBox,
  siteOf,
  type KnownBox,
  type LaterBundle,
} from './inventories.ts'

interface AddOptions {
  site?: string
  group?: string
  name?: string
  baseline?: boolean
  force?: boolean
}

export function addInventoryCommands(program: Command, around: Surroundings): void {
  const inventory = program
    .command('inventory')
    .description('what the boxes have, as they say it themselves')
    .addHelpText('after', examples(program, 'inventory add box.gfi', 'inventory list', 'inventory show pbx1'))
  addAdd(inventory, program, around)
  addList(inventory, program, around)
  addShow(inventory, program, around)
  addRemove(inventory, program, around)
}

function addAdd(inventory: Command, program: Command, around: Surroundings): void {
  inventory
    .command('add')
    .description('keep what gapferry-box wrote; a box that is here already is replaced')
    .argument('<FILE...>', 'inventories; or, with --name, lists pasted from one box: rpm -qa, fwconsole ma list')
    .option('--site <NAME>', 'the boxes’ site, where there are several')
    .option('--group <NAME>', 'the boxes’ group, where the rules in gapferry.yaml do not say')
    .option('--name <BOX>', 'another name for the box than its host name')
    .option('--baseline', 'the file is of another box like this one: stands in until this one’s own is here')
    .option('--force', 'also where it is older, or says less, than what is here')
    .addHelpText(
      'after',
      examples(program, 'inventory add pbx1.gfi pbx2.gfi', 'inventory add rpm-qa.txt modules.txt --name pbx3'),
    )
    .action(async (files: string[], options: AddOptions, command: Command) => {
      const { fleet, json } = openFleet(command, around)
      const site = siteOf(fleet, oneSite(fleet, options.site))
      const addedAt = `${new Date(around.nowMs()).toISOString().slice(0, 19)}Z`
      const choice = {
        addedAt,
        ...(options.group === undefined ? {} : { group: options.group }),
        ...(options.baseline === true ? { baseline: true } : {}),
      }
      // All are read before the first is kept: a mistake in the last one leaves everything as it was.
      const offered = readAll(files, options, addedAt, around)
      const isForced = options.force === true
      const boxes = offered.map(({ name, inventory }) => `${name} ${inventory.digest}`)
      const keepAll = async () =>
        offered.map((one) => {
          const outcome = keepInventory(fleet, site, { ...one, choice, isForced })
          return { outcome, box: loadBox(fleet, site, one.name) }
        })
      const asked = { command: 'inventory add', site: site.name, boxes }
      const added = await withLedger(fleet, around, (ledger) => auditedOnLaptop(ledger, around, asked, keepAll))
      if (json)
        return print(around, JSON.stringify({ boxes: added.map(({ box, outcome }) => ({ ...summary(box), outcome })) }))
      for (const { box, outcome } of added) print(around, `${outcome}: ${sentence(box)}`)
    })
}

function addList(inventory: Command, program: Command, around: Surroundings): void {
  inventory
    .command('list')
    .description('the boxes that the laptop knows')
    .option('--site <NAME>', 'only this site')
    .addHelpText('after', examples(program, 'inventory list'))
    .action((options: { site?: string }, command: Command) => {
      const { fleet, json } = openFleet(command, around)
      const boxes = loadBoxes(fleet, options.site)
      const later = laterBundles(fleet, boxes)
      if (json)
        return print(
          around,
          JSON.stringify({ boxes: boxes.map((box) => ({ ...summary(box), stale: later.get(box) ?? null })) }),
        )
      if (boxes.length === 0)
        return print(around, 'no inventories yet; on a box, as root: gapferry-box inventory > box.gfi')
      print(around, formatTable([HEADINGS, ...boxes.map((box) => row(box, later.get(box)))], { right: [4] }))
    })
}

function addShow(inventory: Command, program: Command, around: Surroundings): void {
  inventory
    .command('show')
    .description('one box: what it is, and whether it is ready for a network without internet')
    .argument('<BOX>', 'its name in the list')
    .option('--site <NAME>', 'its site, where there are several')
    .addHelpText('after', examples(program, 'inventory show pbx1'))
    .action((name: string, options: { site?: string }, command: Command) => {
      const { fleet, json } = openFleet(command, around)
      const site = siteOf(fleet, oneSite(fleet, options.site))
      const box = loadBox(fleet, site, name.toLowerCase())
      const origin = (site.groups.find((one) => one.name === box.group) ?? site.groups[0]!).origin
      const carried = carriedFor(fleet, box)
      const readiness = judgeReadiness(box.inventory, { origin, nowMs: around.nowMs(), ...carried })
      const features = judgeFeatures(box.inventory)
      const later = laterBundles(fleet, [box]).get(box)
      print(
        around,
        json
          ? JSON.stringify({ ...summary(box), stale: later ?? null, readiness, features })
          : renderBox(box, later, { readiness, features, width: around.stdout.columns }),
      )
    })
}

function addRemove(inventory: Command, program: Command, around: Surroundings): void {
  inventory
    .command('remove')
    .description('forget a box; what only this box needs is no longer carried')
    .argument('<BOX...>', 'names in the list')
    .option('--site <NAME>', 'their site, where there are several')
    .addHelpText('after', examples(program, 'inventory remove pbx1'))
    .action(async (names: string[], options: { site?: string }, command: Command) => {
      const { fleet, json } = openFleet(command, around)
      const site = oneSite(fleet, options.site)
      const asked = { command: 'inventory remove', site, boxes: names.map((name) => name.toLowerCase()) }
      const removeAll = async () => asked.boxes.forEach((name) => removeBox(fleet, site, name))
      await withLedger(fleet, around, (ledger) => auditedOnLaptop(ledger, around, asked, removeAll))
      print(around, json ? JSON.stringify({ site, removed: names }) : `removed: ${names.join(', ')} of ${site}`)
    })
}

function readAll(
  files: readonly string[],
  options: AddOptions,
  createdAt: string,
  around: Surroundings,
): { name: string; bytes: Buffer; inventory: KnownBox['inventory'] }[] {
  const read = files.map((file) => ({ file, bytes: readOffered(resolve(around.cwd, file)) }))
  const pasted = read.find(({ file, bytes }) => !isInventory(bytes, file))
  if (pasted === undefined) {
    if (options.name !== undefined && files.length > 1)
      throw usage('--name names one box', 'give one inventory with --name')
    const offered = read.map(({ file, bytes }) => {
      const inventory = readInventory(bytes, { name: '', createdAt }, file)
      return { name: (options.name ?? inventory.box).toLowerCase(), bytes, inventory }
    })
    refuseTwice(files, offered)
    return offered
  }
  const other = read.find(({ file, bytes }) => isInventory(bytes, file))
  if (other !== undefined)
    throw usage(`${pasted.file} is no inventory, ${other.file} is`, 'add them one after the other')
  if (options.name === undefined) throw usage(`${pasted.file} does not say which box it is of`, 'give --name BOX')
  const name = options.name.toLowerCase()
  const what = files.join(', ')
  const bytes = Buffer.concat(read.flatMap((one) => [one.bytes, Buffer.from('\n')]))
  return [{ name, bytes, inventory: readInventory(bytes, { name, createdAt }, what) }]
}

/** Boxes as they are installed all have one host name: the last one would take the place of the others. */
function refuseTwice(files: readonly string[], offered: readonly { name: string }[]): void {
  const names = offered.map(({ name }) => name)
  const at = names.findIndex((name, i) => names.indexOf(name) < i)
  if (at < 0) return
  const [name, file] = [names[at]!, files[at]!]
  throw usage(
    `${files[names.indexOf(name)]} and ${file} are both of a box ${name}`,
    `two boxes of that name: gapferry inventory add ${file} --name OTHER, one after the other; one box: give the newer file`,
  )
}

/** Boxes whose inventory is stale. */
function laterBundles(fleet: Fleet, boxes: readonly KnownBox[]): Map<KnownBox, LaterBundle> {
  const later = new Map<KnownBox, LaterBundle>()
  const file = join(fleet.storeDir, 'ledger.db')
  if (!existsSync(file)) return later
  const ledger = new Ledger(file)
  try {
    for (const box of boxes) {
      const bundle = laterBundle(ledger, box.site, box.inventory)
      if (bundle !== null) later.set(box, bundle)
    }
  } finally {
    ledger.close()
  }
  return later
}

const HEADINGS = ['BOX', 'SITE', 'GROUP', 'SYSTEM', 'PACKAGES', 'FREEPBX', 'TAKEN', '']

function row(box: KnownBox, later: LaterBundle | undefined): string[] {
  const { inventory } = box
  const system = `${inventory.distribution.id} ${inventory.distribution.version}`.trim()
  const taken = formatTime(Date.parse(inventory.createdAt))
  const { freepbx, packages } = inventory
  const has = [String(packages.length), freepbx?.framework ?? '-']
  return [box.name, box.site, box.group ?? '-', system, ...has, taken, notes(box, later)]
}

function notes(box: KnownBox, later: LaterBundle | undefined): string {
  const list = [
    ...(box.group === undefined ? ['no group takes it'] : []),
    ...(box.inventory.isGuess ? ['a guess'] : []),
    ...(later === undefined ? [] : [`stale since bundle ${later.number}`]),
  ]
  return list.join(', ')
}

function renderBox(
  box: KnownBox,
  later: LaterBundle | undefined,
  judged: { readiness: ReadinessRow[]; features: FeatureRow[]; width: number | undefined },
): string {
  const { inventory } = box
  const { freepbx } = inventory
  const group = box.group === undefined ? 'none takes it' : `${box.group}${box.isByHand ? ', by hand' : ''}`
  const facts = [
    ['site', box.site],
    ['group', group],
    ['system', `${inventory.distribution.name}, ${inventory.arch}`],
    ['packages', `${inventory.packages.length}, by ${`${inventory.manager} ${inventory.managerVersion}`.trim()}`],
    ...(inventory.kernelRunning === '' ? [] : [['kernel', inventory.kernelRunning]]),
    ...(freepbx === undefined ? [] : [['FreePBX', freepbxText(freepbx)]]),
    ['taken', formatTime(Date.parse(inventory.createdAt))],
    ...(inventory.isGuess ? [['note', 'a guess: requirements and settings of this box are not known']] : []),
    ...(later === undefined
      ? []
      : [['note', `stale: bundle ${later.number} of ${later.createdAt} is newer; take a new inventory`]]),
  ]
  const { readiness, features, width } = judged
  return [box.name, formatTable(facts, { indent: '  ', width }), renderReadiness(readiness, features, width)].join('\n')
}

function freepbxText({ framework = '?', modules, sounds }: FreepbxFacts): string {
  const others = sounds.length === 0 ? '' : `, ${plural(sounds.length, 'sound package')}`
  return `${framework}, ${plural(modules.length, 'module')}${others}`
}

function sentence(box: KnownBox): string {
  const { inventory } = box
  const guess = inventory.isGuess ? ', a guess' : ''
  const modules = inventory.freepbx === undefined ? '' : `, ${plural(inventory.freepbx.modules.length, 'module')}`
  const has = `${plural(inventory.packages.length, 'package')}${modules}, ${inventory.distribution.name}`
  return `${box.name} in ${box.site} / ${box.group}: ${has}${guess}`
}

function summary(box: KnownBox): object {
  const { inventory } = box
  return {
    box: box.name,
    site: box.site,
    group: box.group ?? null,
    isByHand: box.isByHand,
    isGuess: inventory.isGuess,
    createdAt: inventory.createdAt,
    digest: inventory.digest,
    state: inventory.stateDigest,
    distribution: inventory.distribution,
    arch: inventory.arch,
    manager: inventory.manager,
    managerVersion: inventory.managerVersion,
    packages: inventory.packages.length,
    framework: inventory.freepbx?.framework ?? null,
    modules: inventory.freepbx?.modules.length ?? 0,
  }
}

function openFleet(command: Command, around: Surroundings): { fleet: Fleet; json: boolean } {
  const { config, json } = command.optsWithGlobals<GlobalOptions>()
  return { fleet: loadFleet(resolve(around.cwd, config ?? 'gapferry.yaml')), json: json === true }
}

function oneSite(fleet: Fleet, site: string | undefined): string {
  if (site !== undefined) return site
  const [only, ...others] = fleet.sites
  if (others.length === 0) return only!.name
  throw usage('there are several sites', `give --site: ${fleet.sites.map((one) => one.name).join(', ')}`)
}

function usage(why: string, hint: string): GapferryError {
  return new GapferryError('USAGE_INVALID', why, { hint })
}
