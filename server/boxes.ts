/**
 * What the boxes that asked tell an operator.
 */
import { isGapferryError } from '../manifests/errors.ts'
import { readContacts, type BoxContact, type Oddity } from '../storage/contacts.ts'

export const ODDITIES: Record<Oddity, string> = {
  slash: 'its MODULE_REPO ends with a slash',
  prefix: 'its MODULE_REPO has a path behind the host',
  list: 'asked for a module list that is not served here',
}
/** An oddity that was seen so long before the last request is mended, as far as anybody can tell. */
const MENDED_MS = 14 * 86_400_000

/** Those that still hold, as far as its requests tell. */
export function currentOddities(box: BoxContact): Oddity[] {
  return [...box.oddities].filter(([, atMs]) => box.lastMs - atMs < MENDED_MS).map(([oddity]) => oddity)
}

/** The boxes that asked, as readContacts gives them. They are a help, and none that anything depends on.
 *  @returns undefined where they cannot be read */
export function knownContacts(storeDir: string): BoxContact[] | undefined {
  try {
    return readContacts(storeDir)
  } catch (error) {
    if (isGapferryError(error)) return undefined
    throw error
  }
}

/** How many boxes asked, when the last did, and how many of them are set up wrongly.
 *  @returns null where that cannot be read */
export function boxSummary(storeDir: string): { asked: number; lastMs: number | null; odd: number } | null {
  const all = knownContacts(storeDir)
  if (all === undefined) return null
  const odd = all.filter((box) => currentOddities(box).length > 0).length
  return { asked: all.length, lastMs: all[0]?.lastMs ?? null, odd }
}
