/**
 * A root on its way: `pending.root.json` gathers signatures until it takes force as `<n>.root.json`. The new name appears
 * only with enough signatures under it, so a crash leaves the old root in force or the new one.
 */
import { existsSync, rmSync } from 'node:fs'
import { GapferryError } from '../../manifests/errors.ts'
import { checkSite, nextRoot, parseRoot, type RootFile } from '../../manifests/metadata.ts'
import { replaceFile, syncFolder } from '../../storage/durable.ts'
import { pendingFile, readSiteFile, rootFile, siteFolder } from './key-folder.ts'
import { isMet, quorums, type RootQuorum } from './root-change.ts'

/** What became of a root that was signed just now. */
export interface RootProgress {
  site: string
  version: number
  expiresAtMs: number
  isInForce: boolean
  /** of the root before, then its own */
  quorums: [RootQuorum, RootQuorum]
  file: string
}

/** The root that waits for signatures; undefined where none does.
 *  @throws ROLE_INVALID, SITE_MISMATCH for a file that is no such root */
export function readPending(dir: string, current: RootFile): RootFile | undefined {
  const file = pendingFile(siteFolder(dir, current.site))
  if (!existsSync(file)) return undefined
  const root = parsePending(readSiteFile(file))
  checkSite(root, current.site)
  // A crash between the two steps of `advanceRoot` leaves the file of a root that took force.
  return root.version === current.version + 1 ? root : undefined
}

/** @throws ROLE_INVALID, ROLE_KEYID */
export function parsePending(bytes: Buffer): RootFile {
  return parseRoot(bytes, 'pending.root.json')
}

/** Keeps a root with the signatures that it has: in force where they are enough, else pending. */
export function advanceRoot(dir: string, current: RootFile, root: RootFile): RootProgress {
  const folder = siteFolder(dir, current.site)
  const sides = quorums(current, root)
  const isInForce = sides.every(isMet)
  const file = isInForce ? rootFile(folder, root.version) : pendingFile(folder)
  if (isInForce) nextRoot(current, root.bytes)
  replaceFile(file, root.bytes, 0o600)
  if (isInForce) discardPending(dir, current.site)
  const { site, version, expiresAtMs } = root
  return { site, version, expiresAtMs, isInForce, quorums: sides, file }
}

/** Forgets the root that waits. @returns false where none did */
export function discardPending(dir: string, site: string): boolean {
  const folder = siteFolder(dir, site)
  if (!existsSync(pendingFile(folder))) return false
  rmSync(pendingFile(folder))
  syncFolder(folder)
  return true
}

/** For a root that is not in force yet: which keys may still sign. */
export function pendingError({ site, version, quorums: sides }: RootProgress): GapferryError {
  const lacking = describeLacks(sides)
  return new GapferryError('ROOT_PENDING', `root ${version} of ${site} waits for signatures: ${lacking.join('; ')}`, {
    hint: `gapferry keys sign --site ${site} --root-key FILE, here or wherever those keys are`,
  })
}

/** What lacks, as in `root 1 wants 2, has 1; a1b2c3d4 or e5f60718 may still sign`; once where both roots say the same. */
export function describeLacks(sides: [RootQuorum, RootQuorum]): string[] {
  const [before, own] = sides.map((side) => JSON.stringify({ ...side, by: 0 }))
  const shown = before === own ? [sides[0]] : sides
  return shown.filter((side) => !isMet(side)).map(describeLack)
}

function describeLack({ by, threshold, signed, open }: RootQuorum): string {
  const names = open.map((keyid) => keyid.slice(0, 8)).join(' or ')
  return `root ${by} wants ${threshold}, has ${signed.length}; ${names} may still sign`
}
