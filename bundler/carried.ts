/** What the last bundle has for a box, as far as it is newer than what the box has. */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import type { TreePath } from '../manifests/path.ts'
import { pendingUpdates } from '../manifests/pending.ts'
import type { Surrounding } from '../manifests/readiness.ts'
import { BlobStore } from '../storage/blobs.ts'
import { Ledger } from '../storage/ledger.ts'
import type { Fleet } from './config.ts'
import type { KnownBox } from './inventories.ts'
import { ifSound } from './rot.ts'
import { signedTree } from './signed-tree.ts'

const SITE_KEY = 'keys/site.asc' as TreePath

/** @returns nothing where no bundle was signed for the box's group yet, or its files are not here any more */
export function carriedFor(fleet: Fleet, box: KnownBox): Pick<Surrounding, 'pending' | 'siteKey'> {
  const file = join(fleet.storeDir, 'ledger.db')
  if (box.group === undefined || !existsSync(file)) return {}
  const ledger = new Ledger(file)
  try {
    const bundle = ledger.lastBundle(box.site)
    const target = `${box.group}/current`
    const sha256 = bundle?.trees.get(target)
    if (bundle === undefined || sha256 === undefined) return {}
    const store = new BlobStore(fleet.storeDir)
    const tree = signedTree(store, sha256, target)
    if (tree === undefined) return {}
    const read: BlobStore['read'] = (digest, maxBytes) => store.read(digest, maxBytes)
    const served = { number: bundle.number, entries: tree.entries, read }
    return {
      pending: ifSound(() => pendingUpdates(box.inventory, box.name, served)),
      siteKey: tree.entries.get(SITE_KEY)?.sha256,
    }
  } finally {
    ledger.close()
  }
}
