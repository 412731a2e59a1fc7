/**
 * `gapferry-mirror boxes`: the boxes of this mirror, how far they are behind, and whether they are ready to live here.
 */
import { closeSync, constants, fstatSync, openSync, readFileSync } from 'node:fs'
import { basename, resolve } from 'node:path'
import type { Command } from 'commander'
import { GapferryError } from '../manifests/errors.ts'
import { MAX_INVENTORY_BYTES } from '../manifests/inventory-lines.ts'
import { parseInventory } from '../manifests/inventory.ts'
import { examples, print, type Surroundings } from '../manifests/program.ts'
import { systemCode } from '../storage/durable.ts'
import { addEnrolment } from './enrol-command.ts'
import { ensureIdentity } from './identity.ts'
import { keepInventory, openInventories } from './inventories.ts'
import { inventoriesIn, knownBoxes, type KnownBox } from './known-boxes.ts'
import { boxDetails, boxObject, renderBoxes, renderList } from './render-boxes.ts'
import { openStoreForWriting, openStoreToServe, type MirrorStore } from './store.ts'
import { withLicenses } from './license-states.ts'
import type { StoreTools } from './store-commands.ts'

export function addBoxes(program: Command, around: Surroundings, tools: StoreTools): void {
  const boxes = program
    .command('boxes')
    .description('the boxes of this mirror: how far behind, and whether ready to live without the internet')
    .addHelpText('after', examples(program, 'boxes list', 'boxes show pbx1'))
  addList(boxes, program, around, tools)
  addShow(boxes, program, around, tools)
  addAdd(boxes, program, around, tools)
  addForget(boxes, program, around, tools)
  addEnrolment(boxes, around, tools)
}

function addList(boxes: Command, program: Command, around: Surroundings, { withStore, clockOf }: StoreTools): void {
  boxes
    .command('list')
    .description('each box: how far behind, facts that are ready, what it installs by itself, its license')
    .option('--group <NAME>', 'only those of this group')
    .addHelpText('after', examples(program, 'boxes list', 'boxes list --group pbxact16 --json'))
    .action(async ({ group }: { group?: string }, command: Command) => {
      await withStore(around, command, openStoreToServe, async (store, config, json) => {
        const nowMs = clockOf(store, around)
        const all = await withLicenses(store, knownBoxes(store, config, nowMs), nowMs)
        const isIn = (box: KnownBox): boolean => box.group === group || box.contacts.some((one) => one.group === group)
        const isKnown = config.origins.some((one) => one.group === group) || all.some(isIn)
        if (group !== undefined && !isKnown) throw unknownGroup(group)
        const found = group === undefined ? all : all.filter(isIn)
        print(
          around,
          json ? JSON.stringify({ site: store.site, boxes: found.map(boxObject) }) : renderList(found, nowMs),
        )
      })
    })
}

function addShow(boxes: Command, program: Command, around: Surroundings, { withStore, clockOf }: StoreTools): void {
  boxes
    .command('show')
    .description('one box: each fact, what to do about it, and which features will work')
    .argument('<BOX>', 'its name; or its installid, the beginning of that, or the address it came from')
    .option('--raw', 'its inventory as it came: all that a report of level full takes along')
    .addHelpText('after', examples(program, 'boxes show pbx1', 'boxes show 192.0.2.17 --json'))
    .action(async (name: string, { raw }: { raw?: boolean }, command: Command) => {
      await withStore(around, command, openStoreToServe, async (store, config, json) => {
        const nowMs = clockOf(store, around)
        const named = boxesNamed(knownBoxes(store, config, nowMs), name)
        if (raw === true) return print(around, rawInventory(store, named[0]!, name))
        const found = await withLicenses(store, named, nowMs)
        const text = (): string => renderBoxes(found, around.stdout.columns)
        print(around, json ? JSON.stringify({ site: store.site, boxes: found.map(boxDetails) }) : text())
      })
    })
}

function addAdd(boxes: Command, program: Command, around: Surroundings, { withStore, clockOf }: StoreTools): void {
  boxes
    .command('add')
    .description('take inventories that gapferry-box wrote, as from a stick; a box that is here already is replaced')
    .argument('<FILE...>', 'inventories')
    .option('--name <BOX>', 'another name for the box than its host name')
    .addHelpText('after', examples(program, 'boxes add /media/stick/pbx1.gfi', 'boxes add box.gfi --name pbx2'))
    .action(async (files: string[], { name }: { name?: string }, command: Command) => {
      await withStore(around, command, openStoreForWriting, async (store, _config, json) => {
        if (name !== undefined && files.length > 1)
          throw usage('--name names one box', 'give one inventory with --name')
        // All are read before the first is kept.
        const read = files.map((file) => readOffered(resolve(around.cwd, file)))
        const nowMs = clockOf(store, around)
        const inventories = openInventories(store.dir, store.site, ensureIdentity(store, nowMs))
        const kept = read.map((bytes) =>
          keepInventory(inventories, { box: name, bytes, address: null, enrolled: false, nowMs }),
        )
        const rows = kept.map(({ box, sha256, bytes, createdAt }) => ({ box, sha256, bytes, createdAt }))
        if (json) return print(around, JSON.stringify({ site: store.site, boxes: rows }))
        for (const { box, createdAt } of kept) print(around, `${box}: the inventory of ${createdAt} is kept`)
      })
    })
}

function addForget(boxes: Command, program: Command, around: Surroundings, { withStore }: StoreTools): void {
  boxes
    .command('forget')
    .description('throw a box’s inventory away; its certificate stays: boxes revoke')
    .argument('<NAME>', 'as boxes list shows it')
    .addHelpText('after', examples(program, 'boxes forget pbx1'))
    .action(async (text: string, _options: object, command: Command) => {
      await withStore(around, command, openStoreForWriting, async (store, _config, json) => {
        const box = text.toLowerCase()
        const inventories = inventoriesIn(store)
        if (inventories?.list().some((one) => one.box === box) !== true)
          throw new GapferryError('BOX_UNKNOWN', `"${text}": there is no inventory of it`, {
            hint: 'gapferry-mirror boxes list',
          })
        inventories.remove(box)
        print(around, json ? JSON.stringify({ site: store.site, forgotten: box }) : `${box}: its inventory is gone`)
      })
    })
}

/** It is printable ASCII. */
function rawInventory(store: MirrorStore, { held }: KnownBox, name: string): string {
  const bytes = held === null ? undefined : inventoriesIn(store)?.read(held.box)
  if (bytes !== undefined) return bytes.toString('latin1').trimEnd()
  throw new GapferryError('BOX_UNKNOWN', `"${name}": there is no inventory of it`, {
    hint: 'gapferry-mirror boxes list',
  })
}

/** Names first; an installid that has asked at several origins is one box. */
function boxesNamed(all: readonly KnownBox[], name: string): KnownBox[] {
  const wanted = name.toLowerCase()
  const ways: ((box: KnownBox) => boolean)[] = [
    (box) => box.name === wanted,
    ({ contacts, held }) =>
      held?.address === wanted || contacts.some(({ installid, address }) => installid === wanted || address === wanted),
    ({ contacts }) => contacts.some(({ installid }) => installid.startsWith(wanted)),
  ]
  const found = ways.map((way) => all.filter(way)).find((some) => some.length > 0) ?? []
  if (found.length === 1) return found
  const what = found.length === 0 ? 'no box is known by it' : `${found.length} boxes are known by it`
  throw new GapferryError('BOX_UNKNOWN', `"${name}": ${what}`, { hint: 'gapferry-mirror boxes list' })
}

/** @throws USAGE_INVALID for what is no file; INVENTORY_INVALID */
function readOffered(file: string): Buffer {
  let fd: number
  try {
    // A stick may hold a pipe that would be waited for.
    fd = openSync(file, constants.O_RDONLY | constants.O_NONBLOCK)
  } catch (cause) {
    throw usage(`${file}: ${systemCode(cause) || (cause as Error).message}`, 'gapferry-mirror boxes add FILE…')
  }
  try {
    const stat = fstatSync(fd)
    if (!stat.isFile()) throw usage(`${file}: expected a file`, 'gapferry-mirror boxes add FILE…')
    if (stat.size > MAX_INVENTORY_BYTES)
      throw new GapferryError('INVENTORY_INVALID', `${basename(file)}: has ${stat.size} bytes, more than any inventory`)
    const bytes = readFileSync(fd)
    parseInventory(bytes, basename(file))
    return bytes
  } finally {
    closeSync(fd)
  }
}

function unknownGroup(group: string): GapferryError {
  const why = `group ${group}: it has no origin in mirror.yaml, and no box is in it`
  return new GapferryError('GROUP_UNKNOWN', why, { hint: 'gapferry-mirror status' })
}

function usage(why: string, hint: string): GapferryError {
  return new GapferryError('USAGE_INVALID', why, { hint })
}
