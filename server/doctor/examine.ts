/**
 * The doctor's round for one group: everything that its boxes ask for, asked as they ask it, in the order in which they
 * would trip. Nothing is changed, and no other host is asked.
 */
import { formatTime } from '../../manifests/console.ts'
import type { Inventory } from '../../manifests/inventory.ts'
import type { TreePath } from '../../manifests/path.ts'
import type { Progress } from '../../manifests/progress.ts'
import { judgeReadiness } from '../../manifests/readiness.ts'
import type { Tree } from '../../manifests/tree.ts'
import type { ServedTree } from '../../storage/releases.ts'
import type { OriginListener } from '../config.ts'
import type { AskLimits } from './ask.ts'
import { checkDependencies } from './depends.ts'
import { checkModuleRepo } from './module-repo.ts'
import { checkAnnouncement, checkFiles, checkList, checkTags, majorsOf, type ModuleArgs } from './modules.ts'
import { reach, type Network } from './reach.ts'
import { checkRepositories } from './repositories.ts'
import { Sheet } from './sheet.ts'
import { checkSounds } from './sounds.ts'

export interface Patient {
  group: string
  /** as its boxes are told; undefined where nothing says it */
  origin: string | undefined
  listener: OriginListener | undefined
  released: ServedTree | null
  /** when the bundle it is served from goes out of date, milliseconds since 1970 */
  expiresAtMs: number | undefined
  /** the box that is played */
  box: Inventory | undefined
  /** what boxes have as MODULE_REPO, and where that is known from */
  moduleRepos: readonly { where: string; value: string; isDefault?: boolean }[]
  /** what boxes of this group did that shows a wrong setting, one sentence each */
  oddities: readonly string[]
}

export interface Doctor {
  configFile: string
  network: Network
  progress: Progress
  /** the system clock */
  nowMs: () => number
  /** why that clock cannot be right; undefined where it may be */
  clockFault: string | undefined
  signal: AbortSignal
  limits?: Partial<AskLimits>
}

/** Never rejects for what is wrong at the mirror: that is on the sheet. */
export async function examine(patient: Patient, doctor: Doctor): Promise<Sheet> {
  const sheet = new Sheet()
  const { origin, released } = patient
  checkReleased(sheet, patient, doctor.nowMs())
  checkOwnClock(sheet, doctor)
  if (origin === undefined || released === null) return sheet
  const { tree } = released
  checkSettings(sheet, patient, origin)
  if (patient.box !== undefined) checkBox(sheet, patient.box, { origin, tree, nowMs: doctor.nowMs() })
  const { configFile, network, nowMs, signal, limits = {} } = doctor
  const { group, listener } = patient
  const client = await reach({ sheet, origin, listener, configFile, tree, group, network, nowMs, signal, limits })
  if (client === undefined) {
    sheet.skipped('the rest', 'was not asked: it would end the same way')
    return sheet
  }
  await checkRepositories(sheet, client, tree)
  const args = { sheet, client, origin, tree, box: patient.box, progress: doctor.progress }
  const majors = majorsOf(tree)
  if (majors.length === 0) sheet.skipped('modules', 'none are carried for this group')
  for (const major of majors) await checkModules(args, major)
  return sheet
}

async function checkModules(args: ModuleArgs, major: number): Promise<void> {
  const feed = await checkList(args, major)
  if (feed !== undefined) {
    await checkFiles(args, feed)
    checkDependencies(args.sheet, feed, args.box)
    await checkTags(args, feed)
    await checkAnnouncement(args, feed)
  }
  await checkSounds(args, major)
}

function checkReleased(sheet: Sheet, { group, origin, released, expiresAtMs }: Patient, nowMs: number): void {
  const asked = `what is released for group ${group}`
  const effect = 'it finds nothing to update from'
  if (released === null) {
    const remedy = 'gapferry-mirror import /media/stick, then gapferry-mirror release'
    sheet.found('release', { asked, text: 'nothing is released for it', effect, remedy })
  } else if (origin === undefined) {
    const text = `bundle ${released.number} does not say where the boxes of this group reach it`
    sheet.found('release', {
      asked,
      text,
      effect,
      remedy: 'on the laptop: gapferry bundle; here: gapferry-mirror import --release STICK',
    })
  } else if (expiresAtMs !== undefined && expiresAtMs <= nowMs) {
    sheet.found('release', {
      asked,
      text: `bundle ${released.number} was good until ${formatTime(expiresAtMs)}`,
      effect: 'it updates all the same, from what is old',
      remedy: 'on the laptop: gapferry bundle; here: gapferry-mirror import --release STICK',
    })
  } else {
    const until = expiresAtMs === undefined ? '' : `, good until ${formatTime(expiresAtMs).slice(0, 10)}`
    sheet.passed('release', `bundle ${released.number}${until}`)
  }
}

function checkOwnClock(sheet: Sheet, { clockFault, nowMs }: Doctor): void {
  if (clockFault === undefined) return sheet.passed('clock', formatTime(nowMs()))
  sheet.found('clock', {
    asked: 'the clock of this machine',
    text: clockFault,
    effect: 'where it takes its time from this machine, it refuses signatures as made in the future',
    remedy: 'set the clock: date -u -s "YYYY-MM-DD HH:MM", then hwclock --systohc',
  })
}

function checkSettings(sheet: Sheet, { box, moduleRepos, oddities }: Patient, origin: string): void {
  for (const text of oddities) {
    sheet.found('MODULE_REPO', {
      asked: 'what boxes asked for so far',
      text,
      effect: 'modules are asked for at another path than they lie at',
      remedy: `on that box: fwconsole setting MODULE_REPO ${origin}`,
    })
  }
  checkModuleRepo(sheet, origin, moduleRepos, box !== undefined)
}

function checkBox(
  sheet: Sheet,
  box: Inventory,
  { origin, tree, nowMs }: { origin: string; tree: Tree; nowMs: number },
) {
  const rows = judgeReadiness(box, { origin, nowMs }).filter(({ fact }) => fact in OF_THE_BOX)
  for (const { fact, state, why, remedy = '' } of rows) {
    const asked = `the inventory of ${box.box}`
    const effect = OF_THE_BOX[fact]!
    if (state === 'not') sheet.found(fact, { asked, text: why, effect, remedy: keyRemedy(why, origin, tree) ?? remedy })
    else if (state === 'ready') sheet.passed(fact, why)
    else sheet.skipped(fact, why)
  }
}

/** The mirror may have the key that the box lacks. */
function keyRemedy(why: string, origin: string, tree: Tree): string | undefined {
  const [key] = /^[0-9A-F]{16}(?= is missing)/.exec(why) ?? []
  if (key === undefined || !tree.entries.has(`keys/modules/${key}.key` as TreePath)) return undefined
  return `on the box, in admin/libraries/BMO: curl -O ${origin}/keys/modules/${key}.key`
}

/** What a box trips over by itself, of all that readiness judges: fact → what it does then. */
const OF_THE_BOX: Record<string, string> = {
  'package repositories': 'yum updates from elsewhere, waits for servers on the internet, or finds nothing',
  'module signing key': 'it refuses each module that is signed with that key',
  time: 'its clock runs off, and signatures made in what it takes for the future are refused',
}
