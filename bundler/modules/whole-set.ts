import { parseTreePath } from '../../manifests/path.ts'
import type { PlannedFile } from '../plan.ts'
import { lookFileAt, type FileSources } from '../upstream-files.ts'
import type { GroupModules } from './module-settings.ts'

/** The vendor's archive of all modules of a major version, which a box may be installed from. @throws as lookFile */
export async function lookWholeSet({ feed, major }: GroupModules, sources: FileSources): Promise<PlannedFile> {
  const as = parseTreePath(`modules/packages/freepbx/freepbx-${major}.0-latest.tgz`, 'wholeSet')
  const { reason, ...file } = await lookFileAt({ url: new URL(`/${as}`, feed).href, as }, sources)
  return { ...file, reason: reason.replace('named in files', 'wholeSet') }
}
