/** What a store knows before a backup takes its place. */
import { existsSync } from 'node:fs'
import { GapferryError, isGapferryError } from '../manifests/errors.ts'
import type { AuditHead } from '../storage/audit.ts'
import type { CatalogState } from '../storage/catalog-state.ts'
import { Catalog } from '../storage/catalog.ts'
import type { EnrolledBox } from '../storage/enrolments.ts'
import { isBehind } from '../storage/state-check.ts'
import { catalogFile, stateBeside } from './store.ts'

export interface Present {
  isThere: boolean
  /** undefined where nothing of it can be read */
  state: CatalogState | undefined
  head: AuditHead | undefined
  /** who was enrolled and revoked: neither is undone by an older backup */
  boxes: EnrolledBox[]
}

/** From whichever of database and state.json knows more. @throws STORE_EXISTS without `isReplacing` */
export function presentState(storeDir: string, isReplacing: boolean): Present {
  const file = catalogFile(storeDir)
  const beside = stateBeside(storeDir)
  const isThere = existsSync(file) || beside !== undefined
  if (isThere && !isReplacing) {
    throw new GapferryError('STORE_EXISTS', `${storeDir}: there is a store already`, {
      hint: 'add --replace to put the backup in its place; numbers that it knows are kept',
    })
  }
  if (!existsSync(file)) return { isThere, state: beside, head: undefined, boxes: [] }
  try {
    const catalog = new Catalog(file)
    try {
      const own = catalog.state()
      const head = catalog.audit.head()
      return { isThere, state: isSound(own, beside, file) ? own : beside, head, boxes: catalog.enrolments.all() }
    } finally {
      catalog.close()
    }
  } catch (error) {
    if (!isGapferryError(error, 'STORE_DAMAGED', 'STORE_UNREADABLE', 'STORE_VERSION')) throw error
    return { isThere, state: beside, head: undefined, boxes: [] }
  }
}

/** A database that says something else than state.json at the same generation, or less, is no witness. */
function isSound(own: CatalogState | undefined, beside: CatalogState | undefined, file: string): boolean {
  try {
    isBehind(beside, own, file)
    return true
  } catch (error) {
    if (isGapferryError(error, 'STORE_DAMAGED')) return false
    throw error
  }
}
