/**
 * `gapferry.yaml`: the laptop's sites, their groups and what each group wants from which upstream. Strict; see README.md.
 */
import { readFileSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import * as v from 'valibot'
import type { Sha256 } from '../manifests/digest.ts'
import { dictionary, strictObject } from '../manifests/document.ts'
import { GapferryError } from '../manifests/errors.ts'
import { digestSettings, parseSettings, parseSize } from '../manifests/settings.ts'
import { parseName } from '../manifests/tree.ts'
import { parseFilePath } from './file-path.ts'
import { checkLicenseSource, LicenseEntry, type LicenseUpstream } from './licenses/license-settings.ts'
import { LinkEntry, parseLink, type LinkSettings } from './link-settings.ts'
import { checkModules, ModuleEntry, type GroupModules } from './modules/module-settings.ts'
import { checkOrigin, checkUrl, invalidSetting, readKey, refuseTwice, type NamedFiles } from './settings-checks.ts'

const Text = v.pipe(v.string(), v.minLength(1), v.maxLength(2048))
const Path = v.pipe(v.string(), v.minLength(1))
const Globs = v.pipe(v.array(Text), v.minLength(1), v.maxLength(10_000))
const Variable = v.pipe(v.string(), v.regex(/^[A-Za-z0-9_]{1,64}$/))

/** One yum repository. In a preset `id` and a place are given; in `gapferry.yaml` an entry with a preset's id overrides its fields. */
const YumEntry = strictObject({
  id: v.pipe(v.string(), v.regex(/^[A-Za-z0-9][A-Za-z0-9._:-]{0,63}$/)),
  enabled: v.exactOptional(v.boolean()),
  baseurl: v.exactOptional(v.pipe(v.array(Text), v.minLength(1), v.maxLength(100))),
  mirrorlist: v.exactOptional(Text),
  metalink: v.exactOptional(Text),
  vars: v.exactOptional(dictionary(Variable, v.pipe(v.string(), v.maxLength(256)))),
  gpgkey: v.exactOptional(Text),
  gpgcheck: v.exactOptional(v.boolean()),
  repoGpgcheck: v.exactOptional(v.boolean()),
  include: v.exactOptional(Globs),
  exclude: v.exactOptional(Globs),
  newest: v.exactOptional(v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(1000))),
})

const FileEntry = strictObject({
  url: Text,
  as: Text,
  sha256: v.exactOptional(v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/))),
})

const Group = strictObject({
  name: Text,
  origin: Text,
  preset: v.exactOptional(Text),
  yum: v.exactOptional(v.pipe(v.array(YumEntry), v.maxLength(200)), []),
  modules: v.exactOptional(ModuleEntry),
  files: v.exactOptional(v.pipe(v.array(FileEntry), v.maxLength(10_000)), []),
  boxes: v.exactOptional(Globs),
})

const Groups = v.pipe(v.array(Group), v.minLength(1), v.maxLength(100))

const FleetSettings = strictObject({
  apiVersion: v.literal('gapferry/v1'),
  kind: v.literal('Fleet'),
  store: v.exactOptional(Path, './store'),
  keys: v.exactOptional(Path, './keys'),
  inventories: v.exactOptional(Path, './inventories'),
  budget: v.exactOptional(v.string(), '600MB'),
  link: v.exactOptional(LinkEntry),
  sites: v.pipe(
    v.array(strictObject({ name: Text, groups: Groups, licenses: v.exactOptional(LicenseEntry) })),
    v.minLength(1),
    v.maxLength(1000),
  ),
})

const PresetSettings = strictObject({ yum: v.array(YumEntry), modules: v.exactOptional(ModuleEntry) })
type Preset = v.InferOutput<typeof PresetSettings>

export interface YumRepo {
  id: string
  baseurl?: string[]
  mirrorlist?: string
  metalink?: string
  /** yum variables, without the `$` */
  vars: Record<string, string>
  /** the vendor's OpenPGP key, armored */
  gpgkey?: string
  /** what the box's `.repo` says about package signatures: the upstream's own policy */
  gpgcheck: boolean
  /** refuse the upstream when its repomd.xml is not signed by `gpgkey` */
  repoGpgcheck: boolean
  include?: string[]
  exclude?: string[]
  newest?: number
}

export type VendorFile = v.InferOutput<typeof FileEntry>

export interface GroupPlan {
  name: string
  /** scheme, host and port under which the boxes reach this group, without a slash at the end */
  origin: string
  yum: YumRepo[]
  modules?: GroupModules
  files: VendorFile[]
  /** globs over names of boxes that belong to this group */
  boxes?: string[]
}

export interface Fleet {
  /** the settings file, for messages */
  file: string
  storeDir: string
  keysDir: string
  inventoriesDir: string
  budgetBytes: number
  link: LinkSettings
  /** `licenses`: where licenses can be asked for */
  sites: { name: string; groups: GroupPlan[]; licenses?: LicenseUpstream }[]
}

/** Reads and checks `file`; relative paths in it are taken from its folder.
 *  @throws CONFIG_MISSING, CONFIG_INVALID, CONFIG_KEY_UNKNOWN */
export function loadFleet(file: string): Fleet {
  return parseFleet(readSettings(file), file)
}

/** `digestSettings` of what `file` says. @throws as loadFleet */
export function settingsDigests(file: string): Map<string, Sha256> {
  const text = readSettings(file)
  return digestSettings(text, parseSettings(FleetSettings, text, file))
}

/** The same as loadFleet for settings that are not in their file yet.
 *  @param isRead  false: the files that they name (keys, requests) are not there yet either */
export function parseFleet(text: string, file: string, isRead = true): Fleet {
  const settings = parseSettings(FleetSettings, text, file)
  const base = dirname(resolve(file))
  const files = { base, isRead }
  const sites = settings.sites.map((site) => ({
    name: checkName(site.name, `${file}: site`),
    groups: site.groups.map((group) => checkGroup(group, files, `${file}: group ${group.name}`)),
    ...(site.licenses === undefined
      ? {}
      : { licenses: checkLicenseSource(site.licenses, base, `${file}: licenses of ${site.name}`) }),
  }))
  refuseTwice(
    sites.map((site) => site.name),
    `${file}: site`,
  )
  for (const site of sites) {
    refuseTwice(
      site.groups.map((group) => group.name),
      `${file}: group of ${site.name}`,
    )
  }
  return {
    file,
    storeDir: resolve(base, settings.store),
    keysDir: resolve(base, settings.keys),
    inventoriesDir: resolve(base, settings.inventories),
    budgetBytes: parseSize(settings.budget, `${file}: budget`),
    link: parseLink(settings.link, file),
    sites,
  }
}

/** The names of the presets that ship. */
export const PRESETS = ['pbxact-14', 'pbxact-15', 'pbxact-16'] as const

function checkGroup(group: v.InferOutput<typeof Group>, files: NamedFiles, what: string): GroupPlan {
  const preset = group.preset === undefined ? { yum: [] } : loadPreset(group.preset, what)
  const merged = mergePreset(preset, group).filter((entry) => entry.enabled !== false)
  refuseTwice(
    merged.map((entry) => entry.id),
    `${what}: yum`,
  )
  const yum = merged.map((entry) => checkYum(entry, files, `${what}: yum ${entry.id}`))
  const modules = checkModules(preset.modules, group.modules, files, what)
  for (const file of group.files) checkFile(file, `${what}: files`)
  if (yum.length + group.files.length === 0 && modules === undefined)
    throw invalidSetting(what, 'wants nothing: give a preset, yum, modules or files')
  return {
    name: checkName(group.name, what),
    origin: checkOrigin('origin', group.origin, what),
    yum,
    ...(modules === undefined ? {} : { modules }),
    files: group.files,
    ...(group.boxes === undefined ? {} : { boxes: group.boxes }),
  }
}

/** Entries of the preset first, each with the fields that the group's entry of the same id gives; then the group's own. */
function mergePreset(preset: Preset, group: v.InferOutput<typeof Group>): v.InferOutput<typeof YumEntry>[] {
  const merged = preset.yum.map((entry) =>
    overrideYum(
      entry,
      group.yum.find((own) => own.id === entry.id),
    ),
  )
  return [...merged, ...group.yum.filter((own) => !preset.yum.some((entry) => entry.id === own.id))]
}

function overrideYum(
  entry: v.InferOutput<typeof YumEntry>,
  own: v.InferOutput<typeof YumEntry> | undefined,
): v.InferOutput<typeof YumEntry> {
  if (own === undefined) return entry
  const kept = { ...entry }
  if ((own.baseurl ?? own.mirrorlist ?? own.metalink) !== undefined) {
    delete kept.baseurl
    delete kept.mirrorlist
    delete kept.metalink
  }
  // Naming an entry of a preset switches it on: nobody writes out a repository that he does not want.
  return { ...kept, enabled: true, ...own, vars: { ...entry.vars, ...own.vars } }
}

function loadPreset(name: string, what: string): Preset {
  if (!(PRESETS as readonly string[]).includes(name)) {
    throw new GapferryError('CONFIG_INVALID', `${what}: unknown preset "${name}"`, {
      hint: `known presets: ${PRESETS.join(', ')}`,
    })
  }
  const file = new URL(`./presets/${name}.yaml`, import.meta.url)
  return parseSettings(PresetSettings, readFileSync(file, 'utf8'), `preset ${name}`)
}

function checkYum(entry: v.InferOutput<typeof YumEntry>, files: NamedFiles, what: string): YumRepo {
  const places = [entry.baseurl, entry.mirrorlist, entry.metalink].filter((place) => place !== undefined)
  if (places.length !== 1) throw invalidSetting(what, 'needs exactly one of baseurl, mirrorlist, metalink')
  for (const url of places.flat()) checkUrl(url.replaceAll('$', ''), what)
  const { enabled: _, gpgkey, ...rest } = entry
  if (gpgkey === undefined && entry.repoGpgcheck === true) throw invalidSetting(what, 'repoGpgcheck needs a gpgkey')
  if (gpgkey === undefined && entry.gpgcheck === true) throw invalidSetting(what, 'gpgcheck needs a gpgkey')
  return {
    ...rest,
    vars: entry.vars ?? {},
    gpgcheck: entry.gpgcheck ?? false,
    repoGpgcheck: entry.repoGpgcheck ?? false,
    ...(gpgkey === undefined ? {} : { gpgkey: readKey(gpgkey, 'gpgkey', what, files) }),
  }
}

function checkFile(file: VendorFile, what: string): void {
  parseFilePath(file.as, what)
  checkUrl(file.url, `${what} ${file.as}`)
}

function checkName(text: string, what: string): string {
  try {
    return parseName(text, what)
  } catch (cause) {
    throw new GapferryError('CONFIG_INVALID', (cause as Error).message, { cause })
  }
}

function readSettings(file: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch (cause) {
    throw new GapferryError('CONFIG_MISSING', `${file}: cannot be read`, { cause, hint: 'gapferry init --help' })
  }
}
