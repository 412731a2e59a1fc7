/** What a person is told of a bundle that is not all here. */
import { formatBytes, plural } from '../manifests/console.ts'
import { GapferryError } from '../manifests/errors.ts'
import { missingBytes, type MissingPath } from '../storage/completeness.ts'

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
          ? `import the other parts of bundle ${number}; where it has none that hold them, pack a new one on the laptop`
          : `import ${named}${more} too`,
    },
  )
}
