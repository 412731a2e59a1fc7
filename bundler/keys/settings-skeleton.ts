/**
 * Settings of a laptop that was lost, as far as a bundle tells them: sites, groups, origins, repositories, and where their
 * packages came from. What was narrowed (include, newest) no bundle knows.
 */
import type { Sha256 } from '../../manifests/digest.ts'
import { isGapferryError } from '../../manifests/errors.ts'
import { yamlText } from '../../manifests/settings.ts'
import type { Tree } from '../../manifests/tree.ts'
import type { PartBundle } from '../../storage/parts.ts'
import { parseFilePath } from '../file-path.ts'

/** Vendors' keys that the settings name: file name beside gapferry.yaml → digest of the blob. */
export interface Skeleton {
  text: string
  vendorKeys: Map<string, Sha256>
}

/** A place that nobody has: the settings can be read, and a pull says what is missing. */
const UNKNOWN_PLACE = 'http://fill-in.invalid/'

export function settingsSkeleton({ facts, trees }: PartBundle): Skeleton {
  const vendorKeys = new Map<string, Sha256>()
  const groups = [...facts.groups].map(([name, { origin, yum, files }]) => {
    const tree = trees.get(`${name}/current`)!
    const repositories = yum.map((id) => repositoryText(name, id, tree, vendorKeys))
    const urls = files
      .map((path) => ({ path, source: tree.entries.get(path)?.source }))
      .filter((one) => one.source !== undefined && isFilePath(one.path))
    return [
      `      - name: ${yamlText(name)}`,
      `        origin: ${yamlText(origin)}`,
      ...(repositories.length === 0 ? [] : ['        yum:', ...repositories.flat()]),
      ...modulesText(name, tree, vendorKeys),
      ...(urls.length === 0 ? [] : ['        files:']),
      ...urls.map(({ path, source }) => `          - { url: ${JSON.stringify(source)}, as: ${JSON.stringify(path)} }`),
    ]
  })
  const text = [
    '# Set up anew from a bundle. A bundle does not tell what was narrowed: before the first pull, compare with your notes and',
    '# the presets (bundler/presets/), and fill in include, exclude and newest, yum variables and credentials.',
    'apiVersion: gapferry/v1',
    'kind: Fleet',
    'store: ./store            # fetched files, shared by all sites',
    'keys: ./keys              # signing keys: back them up (gapferry keys backup)',
    'budget: 600MB             # what one pull may let over the link; the next goes on',
    '',
    'sites:',
    `  - name: ${yamlText(facts.site)}`,
    '    groups:',
    ...groups.flat(),
    '',
  ]
  return { text: text.join('\n'), vendorKeys }
}

function repositoryText(group: string, id: string, tree: Tree, vendorKeys: Map<string, Sha256>): string[] {
  const places = baseUrls(id, tree)
  const key = [...tree.entries].find(([path]) => path === `keys/${id}.asc`)?.[1]
  const keyFile = `vendor-${group}-${id.replaceAll(':', '_')}.asc`
  if (key !== undefined) vendorKeys.set(keyFile, key.sha256)
  return [
    `          - id: ${JSON.stringify(id)}`,
    ...(places.length === 0 ? ['            # no package of it was carried: fill in where it is'] : []),
    `            baseurl: [${(places.length === 0 ? [UNKNOWN_PLACE] : places).map((url) => JSON.stringify(url)).join(', ')}]`,
    ...(key === undefined
      ? []
      : [`            gpgkey: ${JSON.stringify(`./${keyFile}`)}`, '            gpgcheck: true']),
    '            # include: ["asterisk*"]',
    '            # newest: 1',
  ]
}

/** The feed that modules came from, and the keys that they were judged by. */
function modulesText(group: string, tree: Tree, vendorKeys: Map<string, Sha256>): string[] {
  const paths = [...tree.entries.keys()]
  const major = paths.map((path) => /^all-(\d+)\.0\.xml$/.exec(path)?.[1]).find((one) => one !== undefined)
  if (major === undefined) return []
  const sources = [...tree.entries].flatMap(([path, { source }]) => (path.startsWith('modules/') ? (source ?? []) : []))
  const feed = sources[0] === undefined ? new URL(UNKNOWN_PLACE).origin : new URL(sources[0]).origin
  const keys = paths.filter((path) => path.startsWith('keys/modules/'))
  const keyFiles = keys.map((path) => {
    const file = `vendor-${group}-${path.slice(path.lastIndexOf('/') + 1)}`
    vendorKeys.set(file, tree.entries.get(path)!.sha256)
    return JSON.stringify(`./${file}`)
  })
  return [
    '        modules:',
    `          feed: ${JSON.stringify(feed)}`,
    `          major: ${major}`,
    ...(keyFiles.length === 0 ? [] : [`          keys: [${keyFiles.join(', ')}]`]),
    '          # policy: { endpoint: pin 16.0.1.5 }',
  ]
}

function isFilePath(path: string): boolean {
  try {
    return parseFilePath(path, 'files') === path
  } catch (error) {
    if (!isGapferryError(error)) throw error
    return false
  }
}

/** Where packages came from, without their own place below it. */
function baseUrls(id: string, tree: Tree): string[] {
  const prefix = `yum/${id}/`
  const found = new Set<string>()
  for (const [path, { source }] of tree.entries) {
    const href = path.slice(prefix.length)
    if (path.startsWith(prefix) && source?.endsWith(`/${href}`) === true) found.add(source.slice(0, -href.length))
  }
  return [...found].sort().slice(0, 1)
}
