/**
 * `gapferry-mirror boxes`: which FreePBX boxes asked this mirror for modules, and what they said they have.
 */
import type { Command } from 'commander'
import { formatTable, formatTime } from '../manifests/console.ts'
import { GapferryError, isGapferryError } from '../manifests/errors.ts'
import { examples, print, type Surroundings } from '../manifests/program.ts'
import { readContacts, type BoxContact } from '../storage/contacts.ts'
import { currentOddities, ODDITIES } from './boxes.ts'
import { addEnrolment } from './enrol-command.ts'
import { formatIso } from './status.ts'
import { openStoreToServe } from './store.ts'
import type { StoreTools } from './store-commands.ts'

const NO_BOX = 'no box has asked for modules yet'
const SHORT_ID = 8

export function addBoxes(program: Command, around: Surroundings, tools: StoreTools): void {
  const { withStore } = tools
  const boxes = program
    .command('boxes')
    .description('the FreePBX boxes that asked this mirror for modules')
    .addHelpText('after', examples(program, 'boxes list', 'boxes show 6f0e2a8c'))
  boxes
    .command('list')
    .description('which boxes asked, when, and what is wrong with their settings')
    .option('--group <NAME>', 'only those that asked the origin of this group')
    .addHelpText('after', examples(program, 'boxes list', 'boxes list --group pbxact16 --json'))
    .action(async ({ group }: { group?: string }, command: Command) => {
      await withStore(around, command, openStoreToServe, async (store, config, json) => {
        const all = contactsIn(store.dir)
        const isKnown = [...config.origins, ...all].some((one) => one.group === group)
        if (group !== undefined && !isKnown) throw unknownGroup(group)
        const found = all.filter((one) => group === undefined || one.group === group)
        print(around, json ? JSON.stringify({ site: store.site, boxes: found.map(boxObject) }) : renderList(found))
      })
    })
  boxes
    .command('show')
    .description('what one box said it has')
    .argument('<BOX>', 'its installid or the beginning of it, or the address it asked from')
    .addHelpText('after', examples(program, 'boxes show 6f0e2a8c', 'boxes show 192.0.2.17 --json'))
    .action(async (name: string, _options: object, command: Command) => {
      await withStore(around, command, openStoreToServe, async (store, _config, json) => {
        const found = boxesNamed(contactsIn(store.dir), name)
        print(around, json ? JSON.stringify({ site: store.site, boxes: found.map(boxObject) }) : renderBoxes(found))
      })
    })
  addEnrolment(boxes, around, tools)
}

/** @throws what readContacts throws, with a hint that fits: nothing that is served depends on it */
function contactsIn(storeDir: string): BoxContact[] {
  try {
    return readContacts(storeDir)
  } catch (error) {
    if (!isGapferryError(error, 'STORE_DAMAGED')) throw error
    const hint = 'gapferry-mirror serve begins it anew when it is started; nothing that is served depends on it'
    throw new GapferryError('STORE_DAMAGED', error.message, { hint, cause: error })
  }
}

/** One box, which may have asked at several origins. */
function boxesNamed(all: readonly BoxContact[], name: string): BoxContact[] {
  const wanted = name.toLowerCase()
  const exact = all.filter(({ installid, address }) => installid === wanted || address === wanted)
  const found = exact.length > 0 ? exact : all.filter(({ installid }) => installid.startsWith(wanted))
  const ids = new Set(found.map(({ installid }) => installid))
  if (ids.size === 1) return found
  const what = ids.size === 0 ? 'no box that asked is known by it' : `${ids.size} boxes that asked are known by it`
  throw new GapferryError('BOX_UNKNOWN', `"${name}": ${what}`, { hint: 'gapferry-mirror boxes list' })
}

function unknownGroup(group: string): GapferryError {
  return new GapferryError(
    'GROUP_UNKNOWN',
    `group ${group}: it has no origin in mirror.yaml, and no box asked for it`,
    {
      hint: 'gapferry-mirror status',
    },
  )
}

function boxObject(box: BoxContact): object {
  const { installid, group, address, deployment, framework, phpver, brand } = box
  return {
    installid,
    group,
    address,
    deployment,
    framework,
    phpver,
    brand,
    firstAskedAt: formatIso(box.firstMs),
    lastAskedAt: formatIso(box.lastMs),
    modules: Object.fromEntries(sortedModules(box)),
    oddities: Object.fromEntries([...box.oddities].map(([oddity, atMs]) => [oddity, formatIso(atMs)])),
  }
}

function renderList(boxes: readonly BoxContact[]): string {
  if (boxes.length === 0) return NO_BOX
  const head = ['BOX', 'GROUP', 'ADDRESS', 'FRAMEWORK', 'PHP', 'BRAND', 'MODULES', 'LAST ASKED']
  const rows = boxes.map((box) => [
    box.installid.slice(0, SHORT_ID),
    box.group,
    box.address,
    box.framework ?? '-',
    box.phpver ?? '-',
    box.brand ?? '-',
    String(box.modules.size),
    formatTime(box.lastMs),
  ])
  const warnings = boxes.flatMap((box) =>
    currentOddities(box).map((oddity) => `warning: ${box.installid.slice(0, SHORT_ID)}: ${ODDITIES[oddity]}`),
  )
  return [formatTable([head, ...rows], { right: [6] }), ...warnings].join('\n')
}

function renderBoxes(boxes: readonly BoxContact[]): string {
  return boxes.map(renderBox).join('\n\n')
}

function renderBox(box: BoxContact): string {
  const facts = [
    ['box', box.installid],
    ['group', box.group],
    ['asked', `from ${box.address}, first ${formatTime(box.firstMs)}, last ${formatTime(box.lastMs)}`],
    ['framework', box.framework ?? 'not said'],
    ['php', box.phpver ?? 'not said'],
    ['brand', box.brand ?? 'not said'],
    ['deployment', box.deployment === null ? 'not said' : `sha256 ${box.deployment}`],
    ...[...box.oddities].map(([oddity, atMs]) => ['warning', `${ODDITIES[oddity]} (${formatTime(atMs)})`]),
    ['modules', String(box.modules.size)],
  ]
  const modules = sortedModules(box)
  return [formatTable(facts), ...(modules.length > 0 ? [formatTable(modules, { indent: '  ' })] : [])].join('\n')
}

function sortedModules({ modules }: BoxContact): [string, string][] {
  return [...modules].sort(([a], [b]) => (a < b ? -1 : 1))
}
