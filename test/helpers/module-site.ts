import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { stringify } from 'yaml'
import type { Gap } from './gap.ts'
import type { Catalogue, ModuleUpstream } from './module-upstream.ts'
import type { BoxRun, BoxSpec, PhpBox } from './php-box.ts'
import { must } from './process.ts'

/** What the vendor has for a major at first, or, a `month` later, of some modules a newer version; the bytes are the same
 *  whenever it is asked for. Boxes of {@link oldBox} are behind all of it. */
export function catalogue(major: number, month = 0): Catalogue {
  const v = (rest: number): string => `${major}.0.${rest}`
  return {
    major,
    modules: [
      { rawname: 'voicemail', version: v(20 + month), depends: { module: 'helper' } },
      {
        rawname: 'core',
        version: v(60 + month),
        depends: { version: v(1), module: [`framework ge ${v(30)}`, `sipsettings ${v(3)}`] },
      },
      { rawname: 'framework', version: v(40 + month), sig: true, payloadBytes: 20_000 },
      { rawname: 'sipsettings', version: v(5) },
      { rawname: 'helper', version: v(2), depends: { module: 'deeper', phpversion: '5.3' } },
      { rawname: 'deeper', version: v(1) },
      { rawname: 'endpoint', version: v(90), php: ['5.6', '7.4', '8.2'], repo: 'commercial', payloadBytes: 5000 },
      { rawname: 'soundlang', version: v(7) },
      { rawname: 'conferences', version: v(9), section: 'module' },
      { rawname: 'unwanted', version: v(1) },
      { rawname: 'core', version: v(61 + month), section: 'edge' },
      { rawname: 'core', version: v(62), section: 'beta' },
      { rawname: 'core', version: v(59), section: 'previous' },
      { rawname: 'sipsettings', version: v(4), section: 'previous' },
    ],
    issues: [{ id: 'SEC-2026-0001', vulnerable: true, fixes: { core: v(50) } }, { id: 'SEC-2026-0002' }],
    sounds: [
      { version: '1.6.1' },
      { version: '1.6.1', format: 'g722' },
      { version: '1.6.1', format: 'sln16' },
      { version: '2.0', language: 'fr' },
    ],
  }
}

/** A box that is behind {@link catalogue} in everything it has. */
export function oldBox(major: 15 | 16 | 17): BoxSpec {
  const v = (rest: number): string => `${major}.0.${rest}`
  return {
    major,
    modules: {
      framework: v(2),
      core: v(3),
      sipsettings: v(2),
      voicemail: v(4),
      endpoint: { version: v(80), php: ['x'] },
      soundlang: v(7),
      conferences: { version: v(9), state: 'disabled' },
    },
    sounds: [{ version: '1.6' }, { version: '1.6', format: 'g722' }],
  }
}

/** The `modules` of a group. */
export function moduleSettings(vendor: ModuleUpstream, major: number, more: Record<string, unknown> = {}): string {
  return stringify({ modules: { feed: vendor.url, major, keys: [vendor.keyFile], ...more } })
}

/** Takes the boxes' inventories to the laptop, as they are now; a name says the box's group by the rules in the settings.
 *  @param sections  of some boxes, beside what a box says of its modules */
export async function bringInventories(
  gap: Gap,
  boxes: Record<string, PhpBox>,
  sections: Record<string, Record<string, string[]>> = {},
): Promise<void> {
  const folder = join(gap.dir, 'inventories')
  mkdirSync(folder, { recursive: true })
  const files = Object.entries(boxes).map(([name, box]) => {
    writeFileSync(join(folder, `${name}.gfi`), box.inventory(name, sections[name]))
    return join(folder, `${name}.gfi`)
  })
  must(await gap.gapferry('inventory', 'add', '--force', ...files))
}

/** What two boxes that update from different servers have to agree in. */
export function outcome(run: BoxRun): Record<string, unknown> {
  const { status, upgraded, fetched, pending, installed, signatures, vulnerable } = run
  return { status, upgraded, fetched, pending, installed, signatures, vulnerable }
}
