/**
 * `gapferry audit`: the trail of this laptop's store.
 */
import { mkdirSync } from 'node:fs'
import { join, resolve } from 'node:path'
import type { Command } from 'commander'
import type { GlobalOptions, Surroundings } from '../manifests/program.ts'
import { addAudit } from '../storage/audit-command.ts'
import { Ledger } from '../storage/ledger.ts'
import { loadFleet } from './config.ts'

export function addAuditCommands(program: Command, around: Surroundings): void {
  addAudit(program, around, 'the keys, bundles, boxes and settings of this laptop', async (command, work) => {
    const { config, json } = command.optsWithGlobals<GlobalOptions>()
    const { storeDir } = loadFleet(resolve(around.cwd, config ?? 'gapferry.yaml'))
    mkdirSync(storeDir, { recursive: true, mode: 0o700 })
    const ledger = new Ledger(join(storeDir, 'ledger.db'))
    try {
      work({ trail: ledger.audit, title: `store ${storeDir}`, facts: { store: storeDir } }, json === true)
    } finally {
      ledger.close()
    }
  })
}
