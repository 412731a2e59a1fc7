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
import type { BoxContact, Oddity } from '../../storage/contacts.ts'
import type { ServedTree } from '../../storage/releases.ts'
import { currentOddities, ODDITIES } from '../boxes.ts'
import type { OriginListener } from '../config.ts'
import type { AskLimits } from './ask.ts'
import { checkDependencies, type ModuleOwner } from './depends.ts'
import { checkModuleRepo, MODULE_REPO, type ToldRepo } from './module-repo.ts'
import { checkAnnouncement, checkFiles, checkList, checkTags, majorsOf, type ModuleArgs } from './modules.ts'
import { reach, type Network } from './reach.ts'
import { checkRepositories } from './repositories.ts'
import { Sheet } from './sheet.ts'
import { checkSounds } from './sounds.ts'
import { checkVendorNames } from './vendor-names.ts'

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
  moduleRepos: readonly ToldRepo[]
  /** boxes that asked at this origin before */
  contacts: readonly BoxContact[]
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
  /** where boxes ask for the vendor's names; default 80 */
  vendorPort?: number
}

const SHORT_ID = 8

/** Never rejects for what is wrong at the mirror: that is on the sheet. */
export async function examine(patient: Patient, doctor: Doctor): Promise<Sheet> {
  const sheet = new Sheet()
  const { origin, released } = patient
  checkReleased(sheet, patient, doctor.nowMs())
  checkOwnClock(sheet, doctor)
  if (origin === undefined || released === null) return sheet
  const { tree } = released
  checkSettings(sheet, patient, origin)
  const isNamed = patient.listener?.vendorNames === true
  if (patient.box !== undefined) checkBox(sheet, patient.box, { origin, tree, nowMs: doctor.nowMs(), isNamed })
  const { configFile, network, nowMs, signal, limits = {} } = doctor
  const { group, listener } = patient
  const client = await reach({ sheet, origin, listener, configFile, tree, group, network, nowMs, signal, limits })
  if (client === undefined) {
    sheet.skipped('the rest', 'was not asked: it would end the same way')
    return sheet
  }
  await checkRepositories(sheet, client, tree)
  if (listener !== undefined && isNamed) {
    const { vendorPort: port = 80 } = doctor
    const box = patient.box
    await checkVendorNames({ sheet, listener, origin, tree, box, group, configFile, network, port, signal, limits })
  }
  const args = { sheet, client, origin, tree, box: patient.box, progress: doctor.progress }
  const owners = ownersOf(patient)
  const majors = majorsOf(tree)
  if (majors.length === 0) sheet.skipped('modules', 'none are carried for this group')
  for (const major of majors) await checkModules(args, major, owners)
  return sheet
}

async function checkModules(args: ModuleArgs, major: number, owners: readonly ModuleOwner[]): Promise<void> {
  const feed = await checkList(args, major)
  if (feed !== undefined) {
    await checkFiles(args, feed)
    checkDependencies(args.sheet, feed, owners)
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

/** The box that is played; else those that asked and said what they have. */
function ownersOf({ box, contacts }: Patient): ModuleOwner[] {
  if (box?.freepbx !== undefined) {
    const { modules, profile } = box.freepbx
    const has = new Map(modules.map(({ name, version, state }) => [name, { version, state }]))
    return [{ name: box.box, modules: has, php: profile.get('phpver') }]
  }
  // A request says of each module only which version there is; most are enabled.
  return contacts
    .filter(({ modules }) => modules.size > 0)
    .map((contact) => ({
      name: nameOf(contact),
      modules: new Map([...contact.modules].map(([name, version]) => [name, { version, state: 'enabled' }])),
      php: contact.phpver ?? undefined,
    }))
}

function nameOf({ installid, address }: BoxContact): string {
  return `box ${installid.slice(0, SHORT_ID)} (${address})`
}

function checkSettings(sheet: Sheet, { moduleRepos, contacts, listener }: Patient, origin: string): void {
  for (const contact of contacts) {
    for (const oddity of currentOddities(contact)) {
      sheet.found(MODULE_REPO, {
        asked: `what ${nameOf(contact)} asked for, last ${formatTime(contact.lastMs)}`,
        text: ODDITIES[oddity],
        effect: EFFECTS[oddity],
        remedy:
          oddity === 'list'
            ? 'on that box: fwconsole setting MODULE_REPO, with the origin of its own group'
            : `on that box: fwconsole setting MODULE_REPO ${origin}`,
      })
    }
  }
  const isNamed = listener?.vendorNames === true
  checkModuleRepo(sheet, origin, { told: moduleRepos, asked: contacts.length, isNamed })
}

const EFFECTS: Record<Oddity, string> = {
  slash: 'it asks for //modules/…, which this mirror forgives and other servers do not',
  prefix: 'it asks for the list at the root, but for each module behind that path, where nothing is',
  list: 'it finds no list for its major version here, and goes on with the one it had',
}

function checkBox(
  sheet: Sheet,
  box: Inventory,
  { origin, tree, nowMs, isNamed }: { origin: string; tree: Tree; nowMs: number; isNamed: boolean },
) {
  // Under the vendor's names its repositories are right as the vendor has them: checkVendorNames judges them.
  const isJudged = (fact: string): boolean => fact in OF_THE_BOX && !(isNamed && fact === REPOSITORIES)
  const rows = judgeReadiness(box, { origin, nowMs }).filter(({ fact }) => isJudged(fact))
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

const REPOSITORIES = 'package repositories'
/** What a box trips over by itself, of all that readiness judges: fact → what it does then. */
const OF_THE_BOX: Record<string, string> = {
  [REPOSITORIES]: 'yum updates from elsewhere, waits for servers on the internet, or finds nothing',
  'module signing key': 'it refuses each module that is signed with that key',
  time: 'its clock runs off, and signatures made in what it takes for the future are refused',
}
