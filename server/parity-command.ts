/**
 * `gapferry-mirror parity`: what the boxes found when they compared the update that this mirror offers with the one that was
 * planned for them. Results come as files, kept as they are in the store.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { basename, join, resolve } from 'node:path'
import type { Command } from 'commander'
import { errorObject, formatTable, formatTime, plural } from '../manifests/console.ts'
import type { Sha256 } from '../manifests/digest.ts'
import { GapferryError } from '../manifests/errors.ts'
import { MAX_PARITY_BYTES, parseParityResult, plannedInventory, type ParityResult } from '../manifests/parity.ts'
import { examples, print, PrintedError, talk, type Surroundings } from '../manifests/program.ts'
import { replaceFile } from '../storage/durable.ts'
import { openStore, openStoreForWriting, type MirrorStore } from './store.ts'

type WithStore = (
  command: Command,
  open: (dir: string) => MirrorStore,
  work: (store: MirrorStore, isJson: boolean) => Promise<void>,
) => Promise<void>

/** A box that is planned for, or that sent a result. */
interface BoxParity {
  box: string
  /** null where nothing that is served is planned for it */
  group: string | null
  /** null: it sent none yet */
  result: ParityResult | null
  /** the result is of the plan that is served now */
  isCurrent: boolean
}

const ENDING = '.parity'
const PLAN = /^gapferry\/parity\/([a-z0-9._-]+)\.txt$/
const MAX_FILES = 10_000
const SHOWN_DIFFERENCES = 5

export function addParity(program: Command, around: Surroundings, withStore: WithStore): void {
  const parity = program
    .command('parity')
    .description('whether the boxes would update as planned: the last result of each')
    .addHelpText('after', examples(program, 'parity', 'parity add /media/stick'))
    .action(async (_options: object, command: Command) => {
      await withStore(command, openStore, async (store, isJson) => {
        const boxes = boxesOf(store)
        const failure = differing(boxes)
        if (isJson) print(around, JSON.stringify({ site: store.site, boxes, ...(failure && errorObject(failure)) }))
        else print(around, render(boxes))
        if (failure !== undefined) throw isJson ? new PrintedError('parity', { cause: failure }) : failure
      })
    })
  parity
    .command('add')
    .description('keep what gapferry-box parity found on the boxes; of each box the newest')
    .argument('<FILE or DIR...>', `results; of a folder those whose names end in ${ENDING}`)
    .addHelpText('after', examples(program, 'parity add pbx1.parity', 'parity add /media/stick'))
    .action(async (inputs: string[], _options: object, command: Command) => {
      await withStore(command, openStoreForWriting, async (store, isJson) => {
        // All are read before the first is kept.
        const results = inputs.flatMap((input) => resultFiles(resolve(around.cwd, input))).map(readResult)
        const kept = results.filter((one) => keep(store, one))
        for (const { file } of results.filter((one) => !kept.includes(one)))
          talk(around, `${file}: a newer result is here`)
        if (isJson) return print(around, JSON.stringify({ kept: kept.map(({ result }) => result) }))
        for (const { result } of kept) print(around, `${result.box}: ${sentence(result)}`)
      })
    })
}

function boxesOf(store: MirrorStore): BoxParity[] {
  const planned = plansOf(store)
  const results = new Map(storedResults(store).map((result) => [result.box, result]))
  return [...new Set([...planned.keys(), ...results.keys()])].sort().map((box) => {
    const [plan, result] = [planned.get(box), results.get(box)]
    const isCurrent = plan !== undefined && result !== undefined && plan.inventory === result.inventory
    return { box, group: plan?.group ?? null, result: result ?? null, isCurrent }
  })
}

/** box → what is served for it now */
function plansOf(store: MirrorStore): Map<string, { group: string; inventory: Sha256 | undefined }> {
  const plans = new Map<string, { group: string; inventory: Sha256 | undefined }>()
  for (const [group, { released }] of store.releases.served(Number.MAX_SAFE_INTEGER)) {
    for (const [path, { sha256 }] of released?.tree.entries ?? []) {
      const box = PLAN.exec(path)?.[1]
      if (box === undefined) continue
      plans.set(box, { group, inventory: plannedInventory(store.blobs.read(sha256, MAX_PARITY_BYTES)) })
    }
  }
  return plans
}

/** Of each box the newest. @throws PARITY_INVALID where one was changed since */
export function storedResults(store: MirrorStore): ParityResult[] {
  const folder = folderOf(store)
  if (!existsSync(folder)) return []
  const files = readdirSync(folder).filter((name) => name.endsWith(ENDING))
  return files.map((name) => readResult(join(folder, name)).result)
}

interface ReadResult {
  file: string
  bytes: Buffer
  result: ParityResult
}

function readResult(file: string): ReadResult {
  const stat = statSync(file)
  if (stat.size > MAX_PARITY_BYTES) {
    throw new GapferryError('PARITY_INVALID', `${file}: expected at most ${MAX_PARITY_BYTES} bytes, found ${stat.size}`)
  }
  const bytes = readFileSync(file)
  return { file, bytes, result: parseParityResult(bytes, basename(file)) }
}

function resultFiles(input: string): string[] {
  const stat = statSync(input, { throwIfNoEntry: false })
  if (stat?.isFile() === true) return [input]
  const names = stat?.isDirectory() === true ? readdirSync(input) : []
  const found = names.filter((name) => name.endsWith(ENDING) && statSync(join(input, name)).isFile())
  if (found.length > 0 && found.length <= MAX_FILES) return found.sort().map((name) => join(input, name))
  throw new GapferryError('USAGE_INVALID', `${input}: there is no result of gapferry-box parity (*${ENDING})`, {
    hint: 'on the box, as root: gapferry-box parity > box.parity',
  })
}

/** @returns false where a newer one of the box is here */
function keep(store: MirrorStore, { bytes, result }: ReadResult): boolean {
  const before = storedResults(store).find((one) => one.box === result.box)
  if (before !== undefined && before.checkedAt > result.checkedAt) return false
  mkdirSync(folderOf(store), { recursive: true, mode: 0o700 })
  replaceFile(join(folderOf(store), `${result.box}${ENDING}`), bytes, 0o600)
  return true
}

function folderOf(store: MirrorStore): string {
  return join(store.dir, 'parity')
}

function differing(boxes: readonly BoxParity[]): GapferryError | undefined {
  const names = boxes.filter((one) => one.isCurrent && one.result?.holds === false).map((one) => one.box)
  if (names.length === 0) return undefined
  return new GapferryError(
    'PARITY_DIFFERS',
    `${plural(names.length, 'box')} would not update as planned: ${names.join(', ')}`,
    {
      hint: 'take new inventories of them to the laptop: gapferry-box inventory > box.gfi',
    },
  )
}

function render(boxes: readonly BoxParity[]): string {
  if (boxes.length === 0) return 'no box is planned for by what is served, and none sent a result'
  const rows = boxes.map((one) => [one.box, one.group ?? '-', ...cells(one)])
  const differences = boxes.flatMap(({ box, result }) => {
    const all = result?.differences ?? []
    const more = all.length > SHOWN_DIFFERENCES ? [[box, `and ${all.length - SHOWN_DIFFERENCES} more`]] : []
    return [...all.slice(0, SHOWN_DIFFERENCES).map((text) => [box, text]), ...more]
  })
  const table = formatTable([['BOX', 'GROUP', 'CHECKED', 'RESULT'], ...rows])
  return differences.length === 0 ? table : `${table}\n\n${formatTable(differences, { indent: '  ' })}`
}

function cells({ group, result, isCurrent }: BoxParity): string[] {
  if (result === null) return ['-', 'not checked yet']
  const note = isCurrent
    ? ''
    : group === null
      ? ', but nothing served is planned for it'
      : ', of another plan than the one served'
  return [formatTime(Date.parse(result.checkedAt)), `${sentence(result)}${note}`]
}

function sentence({ holds, chosen, differences, expectedFailure }: ParityResult): string {
  if (!holds) return `differs: ${plural(differences.length, 'difference')}`
  return expectedFailure === undefined ? `holds: ${plural(chosen.length, 'package')}` : 'holds: fails as at the vendor'
}
