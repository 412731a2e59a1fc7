/**
 * Looks at a module server as a group's boxes would: one request for each kind of box, because a list is personal to PHP,
 * brand and deployment. The answers become blobs, out of which the group's own list is cut later.
 *
 * A request holds what must not leave the laptop but for the vendor (deployment ID, ids): nothing of it is in an error, a
 * warning, or in what is remembered.
 */
import { randomUUID } from 'node:crypto'
import { sha256Of, type Sha256 } from '../manifests/digest.ts'
import { GapferryError, isGapferryError } from '../manifests/errors.ts'
import type { FreepbxFacts } from '../manifests/inventory.ts'
import { MAX_MODULE_LIST_BYTES, parseModuleFeed, type ModuleFeed } from '../manifests/module-feed.ts'
import { compareModuleVersions } from '../manifests/module-version.ts'
import { MAX_SOUND_LIST_BYTES, parseSoundFeed, type SoundFeed } from '../manifests/sound-feed.ts'
import type { BlobStore } from '../storage/blobs.ts'
import type { Ledger } from '../storage/ledger.ts'
import type { FetchedBytes, Fetcher } from './fetch.ts'
import { Once } from './once.ts'
import { listForm, profileOf, secretsOf, soundForm, type RequestIds } from './modules/request.ts'

/** What the settings say about a group's modules, as far as it is looked at here. */
export interface ModuleSource {
  /** http or https origin */
  feed: string
  major: number
  /** the body of a box's request, for all boxes of the group and instead of their inventories */
  request?: string
  policy: readonly (readonly [rawname: string, policy: { kind: string }])[]
}

export interface ModuleLook {
  fetcher: Pick<Fetcher, 'get' | 'all'>
  store: BlobStore
  signal: AbortSignal
  memory: Pick<Ledger, 'noted' | 'note'>
  /** what other groups of this run have asked already */
  asked?: Once
  /** `<site>/<group>`: under this name it is remembered what the upstream had */
  name: string
}

export interface LookedBox {
  name: string
  facts: FreepbxFacts
}

export interface ModuleUpstream {
  feed: string
  major: number
  /** different answers, each with the boxes that get it; sorted by the first box. None: nobody could ask. With a captured
   *  request and no inventories one list without boxes */
  lists: { boxes: string[]; blob: Sha256; feed: ModuleFeed }[]
  /** undefined where no box has sound packages, and where the upstream has no list of them */
  sounds: { blob: Sha256; feed: SoundFeed } | undefined
  /** for the person who plans */
  warnings: string[]
}

const UUID = /^[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}$/i
/** kind of what is remembered about the laptop itself */
const IDS = 'modules'
const MAX_TOLD = 20

/** @throws MODULE_LIST_INVALID for an answer that is no list, FETCH_* for none at all, MODULE_REQUEST_MISSING where the policy
 *          wants modules and nobody could ask, INVENTORY_MISMATCH for a box or a request of another major, SPACE_SHORT, the signal's
 *          reason */
export async function lookModules(
  source: ModuleSource,
  boxes: readonly LookedBox[],
  context: ModuleLook,
): Promise<ModuleUpstream> {
  const { feed, major } = source
  for (const box of boxes) refuseOtherMajor(box, major)
  refuseOtherRequest(source, context.name)
  const askers = askersOf(source, boxes)
  if (askers.length === 0) return { feed, major, lists: [], sounds: undefined, warnings: nobodyAsks(source, context) }
  const answers = await context.fetcher.all(
    askers,
    async (asker, signal) => ({ ...asker, ...(await askForList(asker, source, { ...context, signal })) }),
    context.signal,
  )
  const hide = masker(answers.map((answer) => answer.form))
  const lists = await keepLists(answers, hide, major, context)
  const sounds = await lookSounds(source, boxes, { form: answers[0]!.form, hide }, context)
  const seen = newestOf(lists.map((list) => list.feed))
  const warnings = [
    ...untoldPhp(source, boxes),
    ...lists.flatMap((list) => list.feed.problems.map((problem) => `module list: ${problem}`)),
    ...answers.flatMap(({ bytes, form }) => deploymentNamed(bytes, form)),
    ...changesSince(context.memory.noted(seenKind(context.name)), seen),
    ...sounds.warnings,
  ]
  context.memory.note(seenKind(context.name), seen)
  return { feed, major, lists, sounds: sounds.found, warnings: [...new Set(warnings)] }
}

/** Boxes that get the same answer, and the one that asks for them. */
interface Asker {
  boxes: string[]
  facts?: FreepbxFacts
  captured?: string
}

function refuseOtherMajor({ name, facts }: LookedBox, major: number): void {
  if (facts.framework === undefined || Number.parseInt(facts.framework, 10) === major) return
  throw new GapferryError(
    'INVENTORY_MISMATCH',
    `box ${name} has FreePBX ${facts.framework}; its group has the modules of ${major}`,
    { hint: 'put it into another group: gapferry inventory add --help' },
  )
}

function refuseOtherRequest({ request, major }: ModuleSource, name: string): void {
  const told = new URLSearchParams(request).get('pbxver')
  if (told === null || Number.parseInt(told, 10) === major) return
  throw new GapferryError(
    'INVENTORY_MISMATCH',
    `group ${name}: its request was sent by a box of another major than ${major}`,
    {
      hint: 'give modules the request: of a box of this group',
    },
  )
}

/** Of boxes with one profile the one with most modules asks: the vendor may list what somebody has. */
function askersOf({ request }: ModuleSource, boxes: readonly LookedBox[]): Asker[] {
  const sorted = [...boxes].sort((a, b) => (a.name < b.name ? -1 : 1))
  if (request !== undefined) return [{ boxes: sorted.map((box) => box.name), captured: request }]
  return [...Map.groupBy(sorted, (box) => profileOf(box.facts)).values()].map((same) => {
    const most = same.reduce((best, box) => (box.facts.modules.length > best.facts.modules.length ? box : best))
    return { boxes: same.map((box) => box.name), facts: most.facts }
  })
}

function nobodyAsks({ policy }: ModuleSource, { name }: ModuleLook): string[] {
  const wanted = policy.find(([, { kind }]) => kind === 'want' || kind === 'pin')
  const why = `group ${name}: no inventory tells what its boxes have of FreePBX, and modules have no request`
  const hint = 'run gapferry-box inventory on a box and gapferry inventory add here, or give modules a request:'
  if (wanted !== undefined)
    throw new GapferryError('MODULE_REQUEST_MISSING', `${why}; the policy has ${wanted[1].kind} for ${wanted[0]}`, {
      hint,
    })
  return [`${why}: no modules are carried; ${hint}`]
}

/** Groups whose boxes have one profile get one answer, whichever of them asks. */
function askForList(
  asker: Asker,
  source: ModuleSource,
  context: ModuleLook,
): Promise<{ form: string; bytes: Buffer; sha256: Sha256; what: string }> {
  const who = asker.captured ?? profileOf(asker.facts!)
  const key = JSON.stringify(['module list', source.feed, source.major, asker.captured === undefined, who])
  const ask = (): ReturnType<typeof askAnew> => askAnew(asker, source, context)
  return context.asked === undefined ? ask() : context.asked.get(key, context.signal, ask)
}

async function askAnew(
  { facts, captured }: Asker,
  { feed, major }: ModuleSource,
  { fetcher, memory, signal, name }: ModuleLook,
): Promise<{ form: string; bytes: Buffer; sha256: Sha256; what: string }> {
  const ids = { ...ownIds(memory), currentuuid: randomUUID() }
  const form = listForm({ ...(facts && { facts }), ...(captured && { captured }), ids, major })
  const url = `${feed}/all-${major}.0.xml`
  const what = `module list of ${name}`
  const file = { urls: [url], form, acceptsGzip: true, maxBytes: MAX_MODULE_LIST_BYTES, what }
  const answer = await fetcher.get(file, signal)
  obeyVendor(memory, answer)
  return { form, bytes: answer.bytes, sha256: answer.sha256, what: `${what} (${url})` }
}

/** The laptop's own, made once: the vendor counts installations by them. */
function ownIds(memory: ModuleLook['memory']): RequestIds {
  const noted = memory.noted(IDS)
  const installid = noted.get('installid')
  const machineid = noted.get('machineid')
  const accessed = noted.get('accesseduuid')
  if (installid !== undefined && machineid !== undefined)
    return { installid, machineid, ...(accessed === undefined ? {} : { lastaccesseduuid: accessed }) }
  const made = { installid: randomUUID(), machineid: sha256Of(randomUUID()) }
  memory.note(IDS, new Map(Object.entries(made)))
  return made
}

/** As a box does: keeps the uuid that the vendor gives out, and takes a new id when it is told to. */
function obeyVendor(memory: ModuleLook['memory'], { headers }: FetchedBytes): void {
  const noted = memory.noted(IDS)
  const accessed = headers['x-current-uuid'] ?? ''
  if (UUID.test(accessed)) noted.set('accesseduuid', accessed)
  if (headers['x-regenerate-id'] !== undefined) noted.set('installid', randomUUID())
  memory.note(IDS, noted)
}

/** Equal answers are one list, parsed once. */
async function keepLists(
  answers: readonly (Asker & { bytes: Buffer; sha256: Sha256; what: string })[],
  hide: Hide,
  major: number,
  { store, signal }: ModuleLook,
): Promise<ModuleUpstream['lists']> {
  const lists: ModuleUpstream['lists'] = []
  for (const same of Map.groupBy(answers, (answer) => answer.sha256).values()) {
    const { bytes, what } = same[0]!
    const feed = hidden(hide, () => parseModuleFeed(bytes, what, major))
    const blob = await store.put(bytes)
    signal.throwIfAborted()
    lists.push({ boxes: same.flatMap((answer) => answer.boxes).sort(), blob, feed })
  }
  return lists.sort((a, b) => ((a.boxes[0] ?? '') < (b.boxes[0] ?? '') ? -1 : 1))
}

/** An upstream without a list of sounds is no reason to carry no modules. */
async function lookSounds(
  { feed, major }: ModuleSource,
  boxes: readonly LookedBox[],
  { form, hide }: { form: string; hide: Hide },
  { fetcher, store, signal, name, asked = new Once() }: ModuleLook,
): Promise<{ found: ModuleUpstream['sounds']; warnings: string[] }> {
  if (!boxes.some((box) => box.facts.sounds.length > 0)) return { found: undefined, warnings: [] }
  const url = `${feed}/sounds-${major}.0.xml`
  const what = `sound list of ${name}`
  const file = { urls: [url], form: soundForm(form), acceptsGzip: true, maxBytes: MAX_SOUND_LIST_BYTES, what }
  try {
    // equal forms, with the ids of one request: groups that share an answer
    const key = JSON.stringify(['sound list', url, file.form])
    const { bytes } = await asked.get(key, signal, () => fetcher.get(file, signal))
    const found = hidden(hide, () => parseSoundFeed(bytes, `${what} (${url})`))
    return { found: { blob: await store.put(bytes), feed: found }, warnings: found.problems }
  } catch (error) {
    if (!isGapferryError(error, 'FETCH_STATUS', 'MODULE_LIST_INVALID')) throw error
    return { found: undefined, warnings: [`no sound packages are carried: ${error.message}`] }
  }
}

/** rawname → newest version that a box is offered. */
function newestOf(feeds: readonly ModuleFeed[]): Map<string, string> {
  const newest = new Map<string, string>()
  for (const { rawname, version, section } of feeds.flatMap((feed) => feed.entries)) {
    const known = newest.get(rawname)
    if (section === 'module' && (known === undefined || compareModuleVersions(known, version) < 0))
      newest.set(rawname, version)
  }
  return newest
}

function seenKind(name: string): string {
  return `module-list ${name}`
}

function changesSince(before: ReadonlyMap<string, string>, now: ReadonlyMap<string, string>): string[] {
  const warnings: string[] = []
  const gone = [...before.keys()].filter((rawname) => !now.has(rawname))
  if (gone.length > 0 && gone.length * 2 >= before.size)
    warnings.push(`the module list has ${gone.length} of the ${before.size} modules no more that it had last time`)
  const lower = [...before].filter(([rawname, version]) => {
    const found = now.get(rawname)
    return found !== undefined && compareModuleVersions(found, version) < 0
  })
  for (const [rawname, version] of lower.slice(0, MAX_TOLD))
    warnings.push(`module ${rawname}: the upstream offers ${now.get(rawname)}, and had ${version} last time`)
  if (lower.length > MAX_TOLD) warnings.push(`${lower.length - MAX_TOLD} more modules are lower than last time`)
  return warnings
}

/** Commercial modules are built for one PHP. */
function untoldPhp({ request }: ModuleSource, boxes: readonly LookedBox[]): string[] {
  if (request !== undefined) return []
  return boxes
    .filter((box) => !box.facts.profile.has('phpver'))
    .map(
      (box) => `box ${box.name}: its inventory does not tell its PHP; the list may lack modules that are built for it`,
    )
}

/** What is served is the vendor's text, and travels on a stick. */
function deploymentNamed(bytes: Buffer, form: string): string[] {
  const id = new URLSearchParams(form).get('deploymentid') ?? ''
  const escaped = id.replace(/[^0-9A-Za-z]/g, '\\$&')
  const isNamed = id.length > 3 && new RegExp(`(?<![0-9A-Za-z])${escaped}(?![0-9A-Za-z])`).test(String(bytes))
  return isNamed ? ['the module list names the deployment ID that it was asked for; it will stand in the bundle'] : []
}

type Hide = (text: string) => string

/** A server may have put what it was sent into its answer. */
function masker(forms: readonly string[]): Hide {
  const secrets = new Set(forms.flatMap(secretsOf).filter((secret) => secret.length > 3))
  return (text) => [...secrets].reduce((shown, secret) => shown.replaceAll(secret, '***'), text)
}

function hidden<T extends { problems: string[] }>(hide: Hide, parse: () => T): T {
  try {
    const found = parse()
    return { ...found, problems: found.problems.map(hide) }
  } catch (error) {
    if (!isGapferryError(error)) throw error
    throw new GapferryError(error.code, hide(error.message), error.hint === undefined ? {} : { hint: error.hint })
  }
}
