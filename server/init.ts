/**
 * `gapferry-mirror init`: pins the root that a person has compared, and writes settings where there are none. Harmless
 * when all is there; never touches a store that has pinned another root.
 */
import { existsSync, mkdirSync, readFileSync, statSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { GapferryError } from '../manifests/errors.ts'
import { MAX_METADATA_BYTES, pinRoot, type PinnedRoot } from '../manifests/metadata.ts'
import { parseListen, yamlText } from '../manifests/settings.ts'
import { parseFingerprint } from '../manifests/words.ts'
import type { Actor } from '../storage/audited.ts'
import { BlobStore } from '../storage/blobs.ts'
import type { CatalogState } from '../storage/catalog-state.ts'
import { Catalog } from '../storage/catalog.ts'
import { lockStore } from '../storage/database.ts'
import { replaceFile, syncFolder, systemCode } from '../storage/durable.ts'
import { isBehind, verifyState } from '../storage/state-check.ts'
import { readStateFile, stateFileOf } from '../storage/state-file.ts'
import {
  formatListen,
  loadMirrorConfig,
  parseMirrorConfig,
  parseOriginOption,
  type MirrorConfig,
  type OriginListener,
} from './config.ts'
import { audited, noteSettings } from './audit.ts'
import { ensureIdentity } from './identity.ts'
import { catalogFile, STAGING, stateBeside } from './store.ts'

export interface InitRequest {
  /** the settings file, made when absent */
  configFile: string
  /** the site's root, as `gapferry init` on the laptop made it */
  rootFile: string
  /** words that the file must have */
  fingerprint: string | undefined
  isConfirmed: boolean
  /** shows a root to a person; resolves to whether it is the right one. Undefined where there is nobody to ask. */
  ask: ((root: PinnedRoot) => Promise<boolean>) | undefined
  /** `GROUP=HOST:PORT` */
  origins: string[]
  /** further names of every origin */
  hosts: string[]
  /** `HOST:PORT` of the listener that boxes enrol at; undefined: none */
  boxes: string | undefined
  /** `HOST:PORT` */
  admin: string | undefined
  by: Actor
}

export interface Initialized {
  site: string
  fingerprint: string
  config: string
  store: string
  /** how many the settings have */
  origins: number
  /** of this mirror, in words: the laptop asks for them when its first report comes */
  identity: string
  /** what is public of it: the laptop seals licenses for it */
  identityFile: string
  /** false when this root was pinned here before */
  isNew: boolean
  /** the database was gone; what state.json says was put into a new one */
  isRecovered: boolean
}

/** @throws ROOT_INVALID, ROOT_FINGERPRINT, ROOT_NOT_CONFIRMED, ROOT_PINNED; CONFIG_EXISTS when the settings that are there
 *          say otherwise than the options; USAGE_INVALID; STORE_BUSY */
export async function initialize(request: InitRequest): Promise<Initialized> {
  const bytes = readRoot(request.rootFile)
  const root = pinRoot(bytes)
  const { config, text } = planSettings(request, root.site)
  await confirm(request, root, config)
  mkdirSync(dirname(config.file), { recursive: true })
  const { isNew, isRecovered, identity } = await pinInStore(config.storeDir, root.site, bytes, request)
  if (text !== undefined) replaceFile(config.file, Buffer.from(text))
  noteSettingsOf(config, request.by)
  return {
    site: root.site,
    fingerprint: root.fingerprint,
    config: config.file,
    store: config.storeDir,
    origins: config.origins.length,
    identity,
    identityFile: join(config.storeDir, 'mirror-identity.json'),
    isNew,
    isRecovered,
  }
}

/** From here on, changes of the settings leave rows. */
function noteSettingsOf(config: MirrorConfig, by: Actor): void {
  const catalog = new Catalog(catalogFile(config.storeDir))
  try {
    noteSettings(catalog, config, by)
  } finally {
    catalog.close()
  }
}

function readRoot(file: string): Buffer {
  try {
    const max = MAX_METADATA_BYTES.root
    const stats = statSync(file)
    // A stick may hold a pipe, or a link to a device that never ends.
    if (!stats.isFile()) throw new GapferryError('ROOT_INVALID', `${file}: expected a plain file`)
    if (stats.size > max) throw new GapferryError('ROOT_INVALID', `${file}: larger than ${max} bytes`)
    return readFileSync(file)
  } catch (cause) {
    if (systemCode(cause) === '') throw cause
    const why = systemCode(cause) === 'ENOENT' ? 'there is no such file' : (cause as Error).message
    throw new GapferryError('USAGE_INVALID', `--trust ${file}: ${why}`, {
      hint: 'name the root file that gapferry init made on the laptop: keys/SITE/1.root.json',
      cause,
    })
  }
}

/** Settings that are there stay as they are; `text` is what has to be written. */
function planSettings(request: InitRequest, site: string): { config: MirrorConfig; text: string | undefined } {
  const { configFile, hosts } = request
  const origins = request.origins.map((origin) => parseOriginOption(origin, hosts))
  if (!existsSync(configFile)) {
    const text = settingsText(site, origins, request)
    return { config: parseMirrorConfig(text, configFile), text }
  }
  const config = loadMirrorConfig(configFile)
  const other = origins.find(
    (origin) => !config.origins.some((there) => JSON.stringify(there) === JSON.stringify(origin)),
  )
  const isOtherAdmin =
    request.admin !== undefined && formatListen(config.admin) !== formatListen(parseListen(request.admin, '--admin'))
  const isOtherBoxes =
    request.boxes !== undefined &&
    (config.boxes === undefined || formatListen(config.boxes) !== formatListen(parseListen(request.boxes, '--boxes')))
  if (other === undefined && !isOtherAdmin && !isOtherBoxes) return { config, text: undefined }
  const what =
    other !== undefined
      ? `origin ${other.group} at ${formatListen(other)}`
      : isOtherAdmin
        ? `admin at ${request.admin}`
        : `boxes at ${request.boxes}`
  throw new GapferryError('CONFIG_EXISTS', `${configFile} is there and does not have ${what}`, {
    hint: `edit ${configFile}`,
  })
}

async function confirm(request: InitRequest, root: PinnedRoot, config: MirrorConfig): Promise<void> {
  const { fingerprint, isConfirmed, ask } = request
  if (fingerprint !== undefined) {
    const given = parseFingerprint(fingerprint)
    if (given === root.fingerprint) return
    throw new GapferryError('ROOT_FINGERPRINT', `${request.rootFile}: expected ${given}; found ${root.fingerprint}`, {
      hint: 'this is not the root those words belong to: get the file again, from another hand',
    })
  }
  if (isConfirmed || isPinned(config.storeDir, request.rootFile)) return
  if (ask === undefined) {
    const message = `nobody is at a terminal to compare the fingerprint: ${root.fingerprint}`
    throw new GapferryError('ROOT_NOT_CONFIRMED', message, {
      hint: 'compare it with what gapferry init shows on the laptop, then add --fingerprint "WORDS"',
    })
  }
  if (await ask(root)) return
  throw new GapferryError('ROOT_NOT_CONFIRMED', 'the fingerprint was not confirmed; nothing was pinned', {
    hint: 'where the words differ, do not use this file: get the root from the laptop again',
  })
}

/** Asked and answered before. */
function isPinned(storeDir: string, rootFile: string): boolean {
  const bytes = readFileSync(rootFile)
  const isKnown = (roots: readonly Buffer[]): boolean => roots.some((root) => root.equals(bytes))
  if (isKnown(stateBeside(storeDir)?.roots ?? [])) return true
  if (!existsSync(catalogFile(storeDir))) return false
  const catalog = new Catalog(catalogFile(storeDir))
  try {
    return isKnown(catalog.trusted().roots)
  } finally {
    catalog.close()
  }
}

async function pinInStore(
  storeDir: string,
  site: string,
  root: Buffer,
  { rootFile, by }: InitRequest,
): Promise<Pick<Initialized, 'isNew' | 'isRecovered' | 'identity'>> {
  const unlock = lockStore(storeDir)
  try {
    const blobs = new BlobStore(storeDir)
    blobs.sweep()
    const catalog = new Catalog(catalogFile(storeDir))
    try {
      const state = await stateToRecover(storeDir, catalog, root)
      const asked = { command: state === undefined ? 'init' : 'init: from state.json', files: [basename(rootFile)] }
      const isNew = audited({ catalog, by, asked }, () => {
        if (state !== undefined) catalog.replaceState(state)
        return catalog.pin({ site, root, nowMs: by.nowMs() })
      })
      const { words } = ensureIdentity({ dir: storeDir, site }, by.nowMs())
      return { isNew, isRecovered: state !== undefined, identity: words }
    } finally {
      catalog.close()
      syncFolder(dirname(storeDir))
    }
  } finally {
    unlock()
  }
}

/** What has to come back, so that no number is forgotten, where a new database has taken the place of one that was lost.
 *  @throws ROOT_PINNED when state.json is of another site; STORE_DAMAGED where it, or a database that is no new one, cannot
 *          be believed */
async function stateToRecover(storeDir: string, catalog: Catalog, root: Buffer): Promise<CatalogState | undefined> {
  if (catalog.site() !== undefined) {
    isBehind(stateBeside(storeDir), catalog.state(), catalogFile(storeDir))
    return undefined
  }
  const state = readStateFile(storeDir)
  if (state === undefined) return undefined
  const file = stateFileOf(storeDir)
  if (!state.roots.some((known) => known.equals(root))) {
    throw new GapferryError(
      'ROOT_PINNED',
      `${file} is of a mirror that has pinned another root, of site ${state.site}`,
      {
        hint: 'give the root of its site, or make another mirror elsewhere',
      },
    )
  }
  const [fault] = await verifyState(state, join(storeDir, STAGING))
  if (fault === undefined) return state
  const message = `${file}: group ${fault.group}: ${fault.error.message}`
  throw new GapferryError('STORE_DAMAGED', message, { hint: 'gapferry-mirror restore BACKUP --replace', cause: fault })
}

function settingsText(
  site: string,
  origins: OriginListener[],
  { admin = '127.0.0.1:8480', boxes, hosts }: Pick<InitRequest, 'admin' | 'boxes' | 'hosts'>,
): string {
  parseListen(admin, '--admin')
  if (boxes !== undefined) parseListen(boxes, '--boxes')
  const rows = origins.map(
    (origin) =>
      `  - group: ${yamlText(origin.group)}\n    listen: ${yamlText(formatListen(origin))}\n` +
      `    hosts: [${origin.hosts.map(yamlText).join(', ')}]`,
  )
  const none = `  # - group: pbxact16\n  #   listen: 0.0.0.0:8416\n  #   hosts: [mirror.${site}.lan]`
  return `# The mirror of site ${site}. All keys: the manual, server/README.md.
apiVersion: gapferry/v1
kind: Mirror
store: ./store              # what was imported, and what is known of it

admin:
  listen: ${yamlText(admin)}    # for the operator: /healthz, /api/v1/status

# One origin for each group of boxes. hosts: the names by which its boxes reach it, beside the address itself.
origins:${origins.length === 0 ? ` []\n${none}` : `\n${rows.join('\n')}`}

${boxesText(boxes, site, hosts)}

keepPreviousHours: 48       # files of a replaced release stay fetchable for boxes that were in the middle of an update
`
}

function boxesText(boxes: string | undefined, site: string, hosts: readonly string[]): string {
  const about = '# Where boxes enrol and fetch their licenses, over TLS; hosts: names of it, for its certificate.'
  if (boxes === undefined) return `${about}\n# boxes: { listen: 0.0.0.0:8490, hosts: [mirror.${site}.lan] }`
  const names = hosts.map((host) => yamlText(host.replace(/:\d+$/, '')))
  return `${about}\nboxes: { listen: ${yamlText(boxes)}, hosts: [${names.join(', ')}] }`
}
