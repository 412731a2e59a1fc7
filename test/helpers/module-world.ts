import { parseModuleFeed, type ModuleFeed, type ModuleSection } from '../../manifests/module-feed.ts'
import {
  resolveModules,
  type ModuleBox,
  type ModuleQuestion,
  type Policy,
  type ResolvedModules,
} from '../../bundler/resolve-modules.ts'

/** What a list says of one version of a module. */
export interface ModuleSpec {
  rawname: string
  version: string
  section: ModuleSection
  location: string
  sha1: string | undefined
  /** kind → texts */
  depends: Record<string, string[]>
  breaking: { type?: string; rawname: string; version?: string }[]
}

type More = Partial<Omit<ModuleSpec, 'rawname' | 'version'>>

/** @param name  `rawname version` */
export function listed(name: string, more: More = {}): ModuleSpec {
  const [rawname = '', version = ''] = name.split(' ')
  const location = `packages/${rawname}/${rawname}-${version}.tgz`
  return { rawname, version, section: 'module', location, sha1: undefined, depends: {}, breaking: [], ...more }
}

/** A listed module that demands modules. */
export function needing(name: string, ...module: string[]): ModuleSpec {
  return listed(name, { depends: { module } })
}

/** @param entries  texts for those that demand nothing
 *  @param issues  id → fixes */
export function feedOf(
  entries: readonly (string | ModuleSpec)[],
  issues: Record<string, Record<string, string>> = {},
): ModuleFeed {
  const specs = entries.map((one) => (typeof one === 'string' ? listed(one) : one))
  const inSection = (section: ModuleSection): ModuleSpec[] => specs.filter((one) => one.section === section)
  const previous = [...Map.groupBy(inSection('previous'), ({ rawname }) => rawname)].map(([rawname, releases]) =>
    element(rawname, element('releases', ...releases.map((one) => elementOf(one, 'module')))),
  )
  const text = element(
    'xml',
    ...inSection('module').map((one) => elementOf(one, 'module')),
    element('edge', ...inSection('edge').map((one) => elementOf(one, one.rawname))),
    element('beta', ...inSection('beta').map((one) => elementOf(one, one.rawname))),
    element('previous', ...previous),
    element('security', ...Object.entries(issues).map(([id, fixes]) => issueOf(id, fixes))),
  )
  return parseModuleFeed(Buffer.from(text), 'list', MAJOR)
}

const MAJOR = 16

function elementOf(one: ModuleSpec, name: string): string {
  return element(
    name,
    element('rawname', escaped(one.rawname)),
    element('version', escaped(one.version)),
    element('location', escaped(one.location)),
    one.sha1 === undefined ? '' : element('sha1sum', one.sha1),
    element(
      'depends',
      ...Object.entries(one.depends).flatMap(([kind, texts]) => texts.map((text) => element(kind, escaped(text)))),
    ),
    one.breaking.length === 0 ? '' : element('breaking', ...one.breaking.map((broken) => breakingOf(broken))),
  )
}

function breakingOf(broken: ModuleSpec['breaking'][number]): string {
  return element('module', ...Object.entries(broken).map(([name, text]) => element(name, escaped(text))))
}

function issueOf(id: string, fixes: Record<string, string>): string {
  const fixed = element('fixes', ...Object.entries(fixes).map(([rawname, version]) => element(rawname, version)))
  return element(
    'issue',
    element('id', id),
    element('versions', element(`v${MAJOR}.0`, '<vulnerable>yes</vulnerable>', fixed)),
  )
}

function element(name: string, ...inside: string[]): string {
  return `<${name}>${inside.join('')}</${name}>`
}

function escaped(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;')
}

/** @param modules  `rawname version`, `rawname version state` */
export function boxOf(name: string, modules: readonly string[], more: Partial<ModuleBox> = {}): ModuleBox {
  return {
    name,
    edge: false,
    ...more,
    modules: modules.map((text) => {
      const [rawname = '', version = '', state = 'enabled'] = text.split(' ')
      return { name: rawname, version, state }
    }),
  }
}

/** @param policy  as in the settings */
function policyOf(policy: Record<string, string>): Map<string, Policy> {
  return new Map(
    Object.entries(policy).map(([rawname, text]): [string, Policy] => {
      const [kind, version = ''] = text.split(' ')
      return [rawname, kind === 'pin' ? { kind, version } : { kind: kind as 'latest' | 'block' | 'want' }]
    }),
  )
}

export interface Asked {
  /** for all boxes */
  list?: ModuleFeed
  lists?: ModuleQuestion['lists']
  boxes?: ModuleBox[]
  policy?: Record<string, string>
  before?: Record<string, string>
}

export function resolve({ list, lists, boxes = [], policy = {}, before = {} }: Asked): ResolvedModules {
  return resolveModules({
    lists: lists ?? [{ boxes: boxes.map(({ name }) => name), feed: list! }],
    boxes,
    policy: policyOf(policy),
    before: new Map(Object.entries(before)),
  })
}

/** `rawname version reason` of what is carried, with the section where it is another than `module`. */
export function carriedIn({ carried }: ResolvedModules): string[] {
  return carried.map(({ entry, reason }) => {
    return `${entry.rawname} ${entry.version} ${reason}${entry.section === 'module' ? '' : ` (${entry.section})`}`
  })
}
