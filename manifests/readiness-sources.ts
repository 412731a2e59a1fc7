/** Whether what a box updates from is the mirror, and it believes what it gets there. */
import type { Sha256 } from './digest.ts'
import { isOn } from './ini.ts'
import { words } from './inside.ts'
import type { FreepbxFacts, Inventory } from './inventory.ts'
import { isOlder, not, pairs, ready, unknown, type ReadinessRow } from './readiness-rows.ts'

/** The key that signs the vendor's module packages since December 2019. */
const MODULE_KEY = 'B53D215A755231A3'
/** What the vendor calls his servers: a box that was set up by names asks them, and the mirror answers. */
const VENDOR_MODULES = /^http:\/\/mirror\.freepbx\.org$/
const VENDOR_PACKAGES =
  /^http:\/\/(?:mirrorlist\.sangoma\.net|package1\.sangoma\.net|sng7\.com|deb\.freepbx\.org)(?:\/|$)/

/** What stands between the box and the mirror. */
export function proxies({ readiness: facts, mainOptions, isGuess }: Inventory): ReadinessRow {
  const fact = 'proxies'
  const remedy =
    'fwconsole setting PROXY_ENABLED 0; take proxy= out of the manager’s configuration and http_proxy out of /etc/environment'
  const proxy = mainOptions.get('proxy') ?? ''
  const own = facts.get('proxy')
  const found = [
    ...(own === undefined ? [] : [own]),
    ...(proxy === '' || proxy === '_none_' ? [] : [`packages=${proxy}`]),
  ]
  if (found.length > 0) return not(fact, `requests go through ${found.join(' | ')}`, remedy)
  if (isGuess || isOlder(facts)) return unknown(fact, 'the inventory does not tell', remedy)
  return ready(fact, 'none is set up')
}

export function moduleRepository(
  { freepbx, readiness }: Inventory,
  origin: string | undefined,
): ReadinessRow | undefined {
  if (freepbx === undefined) return undefined
  const fact = 'module repository'
  const remedy = `fwconsole setting MODULE_REPO ${origin ?? 'ORIGIN'}`
  const [value, standard] = [readiness.get('module-repo'), readiness.get('module-repo-default')]
  const isMirror = (url: string | undefined): boolean =>
    url !== undefined && isServed(url, readiness, { origin, vendor: VENDOR_MODULES })
  if (value === undefined) return unknown(fact, 'the database was not read', remedy)
  if (origin === undefined)
    return unknown(fact, `it is ${value || 'empty'}; what it should be is not known here`, remedy)
  if (!isMirror(value)) return not(fact, `it is ${value || 'empty'}`, remedy)
  if (isMirror(standard)) return ready(fact, value)
  return not(
    fact,
    `it is ${value}, but the sounds module may set it back to ${standard}`,
    'set the default of MODULE_REPO, too',
  )
}

/** Whether what a URL leads to comes from a bundle: the mirror, the box itself, or the mirror under a vendor's name. */
function isServed(
  url: string,
  facts: Map<string, string>,
  { origin, vendor }: { origin: string | undefined; vendor: RegExp },
): boolean {
  const mode = facts.get('setup-mode')
  if (url === origin || url.startsWith(`${origin}/`)) return true
  if (mode === 'stick') return /^(?:file:|http:\/\/127\.0\.0\.1[:/])/.test(url)
  return mode === 'names' && vendor.test(url)
}

export function repositories(box: Inventory, origin: string | undefined): ReadinessRow {
  const fact = 'package repositories'
  const remedy = `the mirror’s repository file in /etc/yum.repos.d, the vendor’s switched off`
  if (box.manager === 'apt' || box.isGuess) return unknown(fact, 'what the box has is not known here', remedy)
  if (origin === undefined) return unknown(fact, 'where they should be is not known here', remedy)
  const seen = new Set<string>()
  const enabled = box.repositories.filter(({ id, options }) => {
    const isFirst = !seen.has(id)
    seen.add(id)
    return isFirst && isOn(options.get('enabled'), true)
  })
  if (enabled.length === 0) return not(fact, 'none is enabled', remedy)
  const byNames = box.readiness.get('setup-mode') === 'names'
  const isHere = (url: string): boolean =>
    url.startsWith('file:') || isServed(url, box.readiness, { origin, vendor: VENDOR_PACKAGES })
  const elsewhere = enabled.filter(({ options }) => {
    const lists = ['mirrorlist', 'metalink'].flatMap((key) => words(options.get(key)))
    const urls = words(options.get('baseurl'))
    return (
      ![...urls, ...lists].every(isHere) ||
      (byNames ? urls.length + lists.length === 0 : urls.length === 0 || lists.length > 0)
    )
  })
  const ids = elsewhere.map((one) => one.id).join(', ')
  return elsewhere.length === 0 ? ready(fact, origin) : not(fact, `not from the mirror: ${ids}`, remedy)
}

/** undefined where packages are not checked with it */
export function repositoryKey(box: Inventory, siteKey: Sha256 | undefined): ReadinessRow | undefined {
  const fact = 'package key'
  const { readiness: facts } = box
  if (box.manager === 'apt' || box.isGuess || facts.get('setup-mode') === 'names') return undefined
  const remedy = 'gapferry-box setup ORIGIN --fingerprint WORDS, with the words that gapferry-mirror status shows'
  const found = pairs(facts.get('package-keys'))
  if (isOlder(facts)) return unknown(fact, 'the inventory does not tell', remedy)
  if (found.size === 0) return not(fact, 'the site’s key is not on the box', remedy)
  if (siteKey === undefined)
    return unknown(fact, `${[...found.keys()].join(', ')}; the site’s own is not known here`, remedy)
  const [path] = [...found].find(([, digest]) => digest === siteKey) ?? []
  return path === undefined
    ? not(fact, `${[...found.keys()].join(', ')}: not the site’s key`, remedy)
    : ready(fact, path)
}

export function signingKey(freepbx: FreepbxFacts | undefined): ReadinessRow | undefined {
  if (freepbx === undefined) return undefined
  const fact = 'module signing key'
  if (freepbx.keys.includes(MODULE_KEY)) return ready(fact, MODULE_KEY)
  const remedy = `update the framework, or put ${MODULE_KEY}.key beside admin/libraries/BMO/GPG.class.php`
  if (freepbx.keys.length === 0) return unknown(fact, 'the folder of keys was not found', remedy)
  return not(fact, `${MODULE_KEY} is missing: packages signed since 2019 are refused without a key server`, remedy)
}
