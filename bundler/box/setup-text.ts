/** What `gapferry-box setup` asks an origin first. */
import type { PlannedGroup } from '../plan.ts'

/** Below an origin. */
export const SETUP_PATH = 'gapferry/setup.txt'

const MODULE_LIST = /^all-(\d+)\.0\.xml$/
const MODULE_KEY = /^keys\/modules\/([0-9A-Fa-f]{16})\.key$/

/** Lines of words; FORMAT.md#set-up.
 *  @param paths  of the group's tree */
export function setupText(
  { name, yum }: Pick<PlannedGroup, 'name'> & { yum: Pick<PlannedGroup['yum'][number], 'id' | 'gpgcheck'>[] },
  paths: readonly string[],
): string {
  const found = (pattern: RegExp): string[] => paths.flatMap((path) => pattern.exec(path)?.[1] ?? []).sort()
  const lines = [
    'gapferry-setup 1',
    `group ${name}`,
    ...yum.map(({ id, gpgcheck }) => `repository ${id} ${gpgcheck ? 'checked' : 'unchecked'}`),
    ...found(MODULE_LIST).map((major) => `modules ${major}`),
    ...found(MODULE_KEY).map((key) => `module-key ${key}`),
  ]
  return [...lines, `end ${lines.length}`, ''].join('\n')
}
