/** Whether boxes find what the listed modules ask for: one requirement that is nowhere ends an installation. */
import { plural, shortList } from '../../manifests/console.ts'
import {
  isMet,
  isUpgrade,
  missingModules,
  parseVersionDemand,
  type InstalledModule,
} from '../../manifests/module-depends.ts'
import type { ModuleFeed } from '../../manifests/module-feed.ts'
import type { Sheet } from './sheet.ts'

/** A box, and what it has; nothing of that need be listed. */
export interface ModuleOwner {
  /** as a person knows it */
  name: string
  modules: ReadonlyMap<string, InstalledModule>
  /** as 7.4.33; undefined where it is not known */
  php: string | undefined
}

const CHECK = 'dependencies'
const SHOWN = 6

/** @param boxes  those that are known; none: only a fresh one can be played */
export function checkDependencies(sheet: Sheet, feed: ModuleFeed, boxes: readonly ModuleOwner[]): void {
  const listed = feed.entries.filter(({ section }) => section === 'module')
  if (boxes.length === 0) return checkFresh(sheet, listed)
  for (const box of boxes) {
    checkPhp(sheet, listed, box)
    const { name, modules } = box
    for (const { by, requirement, found } of missingModules(listed, modules)) {
      sheet.found(CHECK, {
        asked: `what ${by} depends on: ${requirement}`,
        text: found === undefined ? `it is neither listed nor installed on ${name}` : `${name} would have ${found}`,
        effect: 'fwconsole ma ends with "Unable to resolve dependencies", and leaves that module as it is',
        remedy:
          'on the box: gapferry-box inventory > box.gfi; on the laptop: gapferry inventory add box.gfi, gapferry bundle',
      })
    }
  }
  const names = boxes.length > SHOWN ? plural(boxes.length, 'box') : boxes.map(({ name }) => name).join(', ')
  if (sheet.isClean(CHECK)) sheet.passed(CHECK, `all that ${names} would take is listed or installed there`)
}

/** A build for another PHP is a sign of a box that asks at another group's origin. */
function checkPhp(sheet: Sheet, listed: ModuleFeed['entries'], { name, modules, php }: ModuleOwner): void {
  if (php === undefined) return
  for (const { rawname, version, depends } of listed) {
    const has = modules.get(rawname)
    if (has === undefined || !isUpgrade(has, version)) continue
    const demand = depends.phpversion.find((text) => !isMet(php, parseVersionDemand(text)))
    if (demand === undefined) continue
    sheet.found(CHECK, {
      asked: `what ${rawname} ${version} depends on: PHP ${demand}`,
      text: `${name} has PHP ${php}`,
      effect: 'fwconsole ma downloads it, refuses to install it, and tries again each time',
      remedy: `let that box ask at the origin of its own group; or on the laptop, block ${rawname} by policy, and bundle`,
    })
  }
}

function checkFresh(sheet: Sheet, listed: ModuleFeed['entries']): void {
  const missing = missingModules(listed, new Map())
  if (missing.length === 0) return sheet.passed(CHECK, 'whatever a listed module depends on is listed, too')
  const names = [...new Set(missing.map(({ rawname }) => rawname))].sort()
  const text = `not listed, so boxes must have them already: ${shortList(names, SHOWN)}`
  sheet.skipped(CHECK, `${text}; --box INVENTORY tells`)
}
