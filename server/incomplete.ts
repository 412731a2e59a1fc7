/** What a person is told of a bundle that is not all here. */
import { basename } from 'node:path'
import { formatBytes, plural } from '../manifests/console.ts'
import { GapferryError } from '../manifests/errors.ts'
import { missingBytes, type MissingPath } from '../storage/completeness.ts'
import type { DamagedBlob } from './import.ts'

const MAX_PARTS_NAMED = 5

/** @param missing  `part`: the file that should have it, null where that is not known
 *  @returns BUNDLE_INCOMPLETE, with those files in its hint */
export function incompleteBundle(
  number: number,
  missing: readonly (MissingPath & { part: string | null })[],
): GapferryError {
  const parts = [...new Set(missing.flatMap(({ part }) => (part === null ? [] : [part])))].sort()
  const named = parts.slice(0, MAX_PARTS_NAMED).join(', ')
  const more = parts.length > MAX_PARTS_NAMED ? ` and ${parts.length - MAX_PARTS_NAMED} more parts` : ''
  return new GapferryError(
    'BUNDLE_INCOMPLETE',
    `bundle ${number} is incomplete: ${plural(missing.length, 'path')}, ${formatBytes(missingBytes(missing))} are missing`,
    {
      hint:
        parts.length === 0
          ? `no part that came has them: on the laptop: gapferry pack --full --to DIR; or gapferry report add with a report that gapferry-mirror report writes here, then gapferry pack --to DIR`
          : `import ${named}${more} too`,
    },
  )
}

/** @returns the code of the first damage, with all that it cost and the ways out in its hint */
export function damagedParts(damaged: readonly DamagedBlob[], missing: readonly MissingPath[]): GapferryError {
  const files = [...new Set(damaged.map(({ file }) => basename(file)))]
  const first = damaged[0]!.error
  const also = files.length > 1 ? `; damaged too: ${files.slice(1, MAX_PARTS_NAMED).join(', ')}` : ''
  const what =
    missing.length > 0 ? `; ${plural(missing.length, 'path')}, ${formatBytes(missingBytes(missing))} are missing` : ''
  return new GapferryError(first.code, `${first.message}${also}${what}`, {
    hint: `the rest was taken; on the laptop: gapferry pack --repair --to STICK, then import ${files.slice(0, MAX_PARTS_NAMED).join(', ')} again`,
    cause: first,
  })
}
