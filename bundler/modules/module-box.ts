/** What is known of a box where modules are concerned: from its inventory, or from a request that it sent. */
import type { FreepbxFacts } from '../../manifests/inventory.ts'

/** Facts that are absent are not known: nothing is concluded from their absence. */
export interface ModuleBox {
  name: string
  /** FreePBX's version, as `16.0.40.11` */
  framework?: string
  phpver?: string
  /** Asterisk's version */
  astver?: string
  /** PHP components by their names in small letters: the version ('' where it tells none), or null for one that is known
   *  not to be there */
  components?: ReadonlyMap<string, string | null>
  /** `version` is the one in the box's database; `state` as in FORMAT.md#inventories */
  modules: { name: string; version: string; state: string }[]
  /** takes edge builds (MODULEADMINEDGE) */
  edge: boolean
  /** parts of the list (`repo` of an entry) of which the weekly installall takes everything */
  activeRepos?: ReadonlySet<string>
}

/** A box's own words on it, as its inventory has them. */
export function moduleBoxOf(
  name: string,
  facts: Pick<FreepbxFacts, 'framework' | 'modules' | 'profile'> &
    Partial<Pick<FreepbxFacts, 'settings' | 'activeRepos'>>,
): ModuleBox {
  const phpver = facts.profile.get('phpver')
  const astver = facts.profile.get('astver')
  const { activeRepos = [] } = facts
  return {
    name,
    ...(facts.framework === undefined ? {} : { framework: facts.framework }),
    ...(phpver === undefined ? {} : { phpver, components: loadersOf(facts.profile) }),
    ...(astver === undefined ? {} : { astver }),
    modules: facts.modules.map((one) => ({ ...one, version: one.version === NO_VERSION ? '' : one.version })),
    edge: !FALSE.has(facts.settings?.get('MODULEADMINEDGE') ?? ''),
    // No list at all is none that could be read: every box looks at one part at least.
    ...(activeRepos.length === 0 ? {} : { activeRepos: new Set(activeRepos) }),
  }
}

/** What a captured request tells of the box that sent it, which goes by the name `request`.
 *  @param form  urlencoded, as it was sent */
export function boxOfRequest(form: string): ModuleBox {
  const fields = new URLSearchParams(form)
  const modules: ModuleBox['modules'] = []
  for (const [key, version] of fields) {
    const name = /^modules\[([^\]]+)\]\[version\]$/.exec(key)?.[1]
    if (name === undefined || version === '') continue
    const status = fields.get(`modules[${name}][status]`) ?? ''
    modules.push({ name, version, state: STATES[status] ?? 'unknown' })
  }
  const [framework, phpver] = [fields.get('pbxver'), fields.get('phpver')]
  return {
    name: 'request',
    ...(framework ? { framework } : {}),
    ...(phpver ? { phpver } : {}),
    modules,
    edge: false,
  }
}

/** States by the number that a request has. Rule: `status` of a module there, protocols of FreePBX 15 to 17. */
const STATES: Readonly<Record<string, string>> = {
  '0': 'not-installed',
  '1': 'disabled',
  '2': 'enabled',
  '3': 'needs-upgrade',
  '-1': 'broken',
}

/** As `gapferry-box` writes a version that the box's database has not. */
const NO_VERSION = '?'
const FALSE: ReadonlySet<string> = new Set(['', '0', 'false'])

/** Where PHP told its version it also told its loaders. */
function loadersOf(profile: ReadonlyMap<string, string>): Map<string, string | null> {
  const zend = profile.get('zend')
  return new Map([
    ['zend guard loader', zend === undefined || zend === '' ? null : ''],
    ['ioncube loader', profile.get('ioncube') ?? null],
  ])
}
