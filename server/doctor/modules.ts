/** The module list and everything it names, as FreePBX asks for them. */
import { formatBytes, plural } from '../../manifests/console.ts'
import { sha256Of } from '../../manifests/digest.ts'
import { GapferryError, isGapferryError } from '../../manifests/errors.ts'
import type { Inventory } from '../../manifests/inventory.ts'
import {
  MAX_MODULE_LIST_BYTES,
  parseModuleFeed,
  type ModuleEntry,
  type ModuleFeed,
} from '../../manifests/module-feed.ts'
import type { TreePath } from '../../manifests/path.ts'
import type { Progress } from '../../manifests/progress.ts'
import { MAX_BLOB_BYTES, type Tree } from '../../manifests/tree.ts'
import type { BoxClient, Payload, Reply } from './ask.ts'
import { listForm, tagForm } from './form.ts'
import type { Sheet } from './sheet.ts'

export interface ModuleArgs {
  sheet: Sheet
  client: BoxClient
  /** as the group's boxes are told */
  origin: string
  /** what is released for the group */
  tree: Tree
  /** the box that is played; a fresh one where none is given */
  box: Inventory | undefined
  progress: Progress
}

const MAX_ANSWER_BYTES = 1024 * 1024
/** A single one loses its list: PHP turns it into something else. */
const LEAST = 2
const NEW_BUNDLE = 'on the laptop: gapferry bundle; here: gapferry-mirror import --release STICK'
const VERIFY = 'gapferry-mirror verify; what it names comes back with gapferry-mirror import'
const LIST_HEADERS = { 'User-Agent': 'php-requests/1.7', 'Accept-Encoding': 'deflate, gzip' }
const UNREACHED = 'fwconsole says that the online server cannot be reached, and goes on with the list it had'

/** The majors whose list is in a tree: 15, 16, 17. */
export function majorsOf(tree: Tree): number[] {
  return [...tree.entries.keys()].flatMap((path) => Number(/^all-(\d+)\.0\.xml$/.exec(path)?.[1] ?? []) || [])
}

/** Asks for the list of one major.
 *  @returns it; undefined where a box could not use it */
export async function checkList(args: ModuleArgs, major: number): Promise<ModuleFeed | undefined> {
  const { sheet, client, origin, tree, box } = args
  const path = `all-${major}.0.xml` as TreePath
  const asked = `POST /${path}`
  const form = listForm(box?.freepbx)
  const headers = { ...LIST_HEADERS, Referer: `${origin}/${path}` }
  const answer = await ask(() => client.post(`/${path}`, { form, maxBytes: MAX_MODULE_LIST_BYTES, headers }))
  if (answer instanceof GapferryError) {
    sheet.found('module list', { asked, text: answer.message, effect: UNREACHED, remedy: VERIFY })
    return undefined
  }
  if (!judgeListAnswer(sheet, asked, answer)) return undefined
  const feed = parsedList(sheet, asked, answer.body)
  if (feed === undefined) return undefined
  if (sha256Of(answer.body) !== tree.entries.get(path)?.sha256) {
    const effect = 'it updates by a list that nobody signed'
    const remedy = 'gapferry-mirror status; let nothing before the mirror change what it answers'
    sheet.found('module list', { asked, text: 'it is not the list that was released', effect, remedy })
    return undefined // whoever made it says what would be downloaded, and how much
  }
  judgeCounts(sheet, asked, feed)
  if (sheet.isClean('module list')) sheet.passed('module list', describeList(path, feed, answer))
  return feed
}

/** Downloads every file that the list offers. Older and newer versions beside it may be looked up and need not be here. */
export async function checkFiles({ sheet, client, tree, box, progress }: ModuleArgs, feed: ModuleFeed): Promise<void> {
  const isEdgy = box?.freepbx?.settings.get('MODULEADMINEDGE') === '1'
  const isOffered = ({ section, location }: ModuleEntry): boolean =>
    section === 'module' || (section === 'edge' && isEdgy) || tree.entries.has(`modules/${location}` as TreePath)
  const wanted = new Map(feed.entries.filter(isOffered).map((entry) => [entry.location, entry]))
  const sizeOf = (location: string): number | undefined => tree.entries.get(`modules/${location}` as TreePath)?.bytes
  const total = [...wanted.keys()].reduce((sum, location) => sum + (sizeOf(location) ?? 0), 0)
  const form = listForm(box?.freepbx).replace(/&sv=2$/, '')
  const step = progress.step('modules', total)
  let bytes = 0
  try {
    for (const [location, entry] of wanted) {
      const maxBytes = sizeOf(location) ?? MAX_BLOB_BYTES
      const onBytes = (count: number): void => step.add(count)
      bytes += await checkFile(sheet, client, { location, entry, form, maxBytes, onBytes })
    }
  } finally {
    step.end()
  }
  if (!sheet.isClean('modules')) return
  sheet.passed('modules', `${plural(wanted.size, 'file')} came as the list says, ${formatBytes(bytes)}`)
}

/** `fwconsole ma downloadinstall framework --tag=VERSION`, and core's: how a broken box is repaired. */
export async function checkTags({ sheet, client, tree, box }: ModuleArgs, feed: ModuleFeed): Promise<void> {
  const entries = feed.entries.filter(
    ({ rawname, section }) => section === 'module' && ['framework', 'core'].includes(rawname),
  )
  for (const { rawname, version, location } of entries) {
    const asked = `POST /mversion.php for ${rawname} ${version}`
    const form = tagForm(box?.freepbx, rawname, version)
    const answer = await ask(() => client.post('/mversion.php', { form, maxBytes: MAX_ANSWER_BYTES }))
    const effect = `fwconsole ma downloadinstall ${rawname} --tag=${version} says that it does not exist`
    const found = (text: string): void => sheet.found('versions', { asked, text, effect, remedy: NEW_BUNDLE })
    if (answer instanceof GapferryError) found(answer.message)
    else if (answer.status !== 200) found(`it is answered ${answer.status}`)
    else {
      const told = jsonObject(answer.body)
      if (told === undefined) found(answer.body.length === 0 ? 'the answer is empty' : 'the answer is no JSON object')
      else if (told['rawname'] !== rawname || told['version'] !== version || told['location'] !== location)
        found('the answer is about another file than the list')
      else if (!tree.entries.has(`modules/${location}` as TreePath)) found(`${location} is not served`)
    }
  }
  if (entries.length === 0) sheet.skipped('versions', 'neither framework nor core is listed')
  else if (sheet.isClean('versions')) {
    sheet.passed(
      'versions',
      `--tag finds ${entries.map(({ rawname, version }) => `${rawname} ${version}`).join(' and ')}`,
    )
  }
}

/** The page that a box asks for beside each list. What it is answered does no harm, unless there is no answer. */
export async function checkAnnouncement({ sheet, client, box }: ModuleArgs, feed: ModuleFeed): Promise<void> {
  const listed = feed.entries.find(({ rawname }) => rawname === 'framework')?.version
  const version = box?.freepbx?.framework ?? listed
  if (version === undefined) return
  const path = `/version-${version}.html`
  const answer = await ask(() => client.post(path, { form: 'sv=2', maxBytes: MAX_ANSWER_BYTES, headers: LIST_HEADERS }))
  if (!(answer instanceof GapferryError)) {
    const note = answer.status === 200 ? '' : ', which does no harm'
    sheet.passed('announcement', `${path} is answered ${answer.status}${note}`)
    return
  }
  const effect = 'fwconsole ma listonline waits for it, up to 30 s'
  sheet.found('announcement', { asked: `POST ${path}`, text: answer.message, effect, remedy: VERIFY })
}

/** The answer, or why there is none. */
export async function ask<T>(question: () => Promise<T>): Promise<T | GapferryError> {
  try {
    return await question()
  } catch (error) {
    if (isGapferryError(error, 'FETCH_FAILED', 'FETCH_TIMEOUT', 'FETCH_TOO_LONG')) return error
    throw error
  }
}

/** What a status other than 200 says, with where a redirect leads. */
export function statusText({ status, headers }: Pick<Reply, 'status' | 'headers'>): string {
  const { location } = headers
  return location === undefined
    ? `it is answered ${status}`
    : `it is answered ${status}, and sent on to ${location.slice(0, 200)}`
}

function judgeListAnswer(sheet: Sheet, asked: string, answer: Reply): boolean {
  const found = (text: string, effect: string, remedy: string): boolean => {
    sheet.found('module list', { asked, text, effect, remedy })
    return false
  }
  const { status, body } = answer
  if (status >= 300 && status < 400) {
    return found(statusText(answer), 'it follows, out of this network', 'let the origin itself serve the list')
  }
  if (body.length === 0) {
    return found(
      `the answer is empty, with status ${status}`,
      `${UNREACHED}; upgradeall says that all is up to date`,
      VERIFY,
    )
  }
  if (status === 200) return true
  const effect = 'it does not look at the status, takes the text for the list, and ends with "Unable to Parse XML"'
  return found(statusText(answer), effect, status >= 500 ? VERIFY : NEW_BUNDLE)
}

function parsedList(sheet: Sheet, asked: string, body: Buffer): ModuleFeed | undefined {
  try {
    const feed = parseModuleFeed(body, 'the list')
    for (const problem of feed.problems) {
      const text = problem.replace(/: left out$/, '')
      const effect = 'it cannot download that module, or asks elsewhere for it'
      sheet.found('module list', { asked, text, effect, remedy: NEW_BUNDLE })
    }
    return feed
  } catch (error) {
    if (!isGapferryError(error, 'MODULE_LIST_INVALID')) throw error
    const effect = 'it ends with "Unable to Parse XML response from Mirror"'
    sheet.found('module list', { asked, text: error.message, effect, remedy: NEW_BUNDLE })
    return undefined
  }
}

function judgeCounts(sheet: Sheet, asked: string, feed: ModuleFeed): void {
  const modules = listed(feed).length
  if (modules < LEAST) {
    const text = `it has ${plural(modules, 'module')}, and needs ${LEAST}`
    const effect = 'FreePBX 17 takes a single one for a list of its fields, and fails'
    sheet.found('module list', {
      asked,
      text,
      effect,
      remedy: 'on the laptop, want one more module; then a new bundle',
    })
  }
  if (feed.issues.length < LEAST) {
    const text = `it has ${plural(feed.issues.length, 'security issue')}, and needs ${LEAST}`
    const effect = 'FreePBX 17 ends in the middle of Module Admin; 15 forgets the issue'
    sheet.found('module list', { asked, text, effect, remedy: NEW_BUNDLE })
  }
}

function describeList(path: string, feed: ModuleFeed, { body, wireBytes, coding }: Reply): string {
  const sent = coding === '' ? '' : `, ${formatBytes(wireBytes)} as ${coding}`
  const counts = `${plural(listed(feed).length, 'module')}, ${plural(feed.issues.length, 'security issue')}`
  return `${path} has ${counts}; ${formatBytes(body.length)}${sent}`
}

function listed(feed: ModuleFeed): ModuleEntry[] {
  return feed.entries.filter(({ section }) => section === 'module')
}

interface FileQuestion {
  location: string
  entry: ModuleEntry
  form: string
  maxBytes: number
  onBytes: (bytes: number) => void
}

/** @returns bytes that came */
async function checkFile(sheet: Sheet, client: BoxClient, question: FileQuestion): Promise<number> {
  const { location, form, maxBytes, onBytes } = question
  const path = `/modules/${location}`
  const found = (asked: string, text: string): void => {
    const effect = 'the download fails its check, and the module stays as it is'
    sheet.found('modules', { asked: `${asked} ${path}`, text, effect, remedy: VERIFY })
  }
  const head = await ask(() => client.head(path))
  if (head instanceof GapferryError) {
    found('HEAD', head.message)
    return 0
  }
  const answer = await ask(() => client.payload(path, { form, maxBytes, onBytes }))
  if (answer instanceof GapferryError) {
    found('POST', answer.message)
    return 0
  }
  const fault = payloadFault(answer, question)
  if (fault !== undefined) found('POST', fault)
  return answer.bytes
}

function payloadFault(answer: Payload, { entry, maxBytes }: FileQuestion): string | undefined {
  const { status, headers, bytes, md5, sha1 } = answer
  if (status !== 200) return statusText(answer)
  const coding = headers['content-encoding']
  if (coding !== undefined) return `it comes with Content-Encoding ${coding.slice(0, 40)}, which changes its bytes`
  if (maxBytes !== MAX_BLOB_BYTES && bytes < maxBytes) return `${bytes} of ${maxBytes} bytes came`
  if (entry.signedSha1 !== undefined)
    return entry.signedSha1 === sha1 ? undefined : differs('sha1', entry.signedSha1, sha1)
  if (entry.md5 !== undefined && entry.md5 !== md5) return differs('md5', entry.md5, md5)
  return entry.sha1 !== undefined && entry.sha1 !== sha1 ? differs('sha1', entry.sha1, sha1) : undefined
}

function differs(name: string, expected: string, found: string): string {
  return `its ${name} is ${found}, the list says ${expected}`
}

function jsonObject(body: Buffer): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(body.toString())
    return typeof value === 'object' && value !== null && !Array.isArray(value)
      ? (value as Record<string, unknown>)
      : undefined
  } catch {
    return undefined
  }
}
