/** Whether a box finds what the listed modules ask for: one requirement that is nowhere ends an installation. */
import { plural } from '../../manifests/console.ts'
import type { Inventory } from '../../manifests/inventory.ts'
import { missingModules } from '../../manifests/module-depends.ts'
import type { ModuleFeed } from '../../manifests/module-feed.ts'
import type { Sheet } from './sheet.ts'

const CHECK = 'dependencies'
const SHOWN = 6

/** @param box  the box that is played: what it has need not be listed */
export function checkDependencies(sheet: Sheet, feed: ModuleFeed, box: Inventory | undefined): void {
  const listed = feed.entries.filter(({ section }) => section === 'module')
  const has = box?.freepbx?.modules
  const installed = new Map(has?.map(({ name, version, state }) => [name, { version, state }]))
  const missing = missingModules(listed, installed)
  if (has !== undefined) {
    for (const { by, requirement, found } of missing) {
      sheet.found(CHECK, {
        asked: `what ${by} depends on: ${requirement}`,
        text: found === undefined ? 'it is neither listed nor installed' : `the box would have ${found}`,
        effect: `fwconsole ma upgrade ${by} ends with "Unable to resolve dependencies", and leaves it as it is`,
        remedy: `on the laptop: gapferry inventory add of box ${box!.box}, then gapferry bundle`,
      })
    }
    if (sheet.isClean(CHECK)) sheet.passed(CHECK, `all that ${box!.box} would take is listed or installed there`)
    return
  }
  if (missing.length === 0) return sheet.passed(CHECK, 'whatever a listed module depends on is listed, too')
  const names = [...new Set(missing.map(({ rawname }) => rawname))].sort()
  const more = names.length > SHOWN ? ` and ${names.length - SHOWN} more` : ''
  const text = `boxes must have ${plural(names.length, 'module')} that are not listed: ${names.slice(0, SHOWN).join(', ')}${more}`
  sheet.skipped(CHECK, `${text}; --box INVENTORY tells`)
}
