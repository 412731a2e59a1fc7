/**
 * The command line of `gapferry`: from arguments to an exit status.
 */
import { runProgram, type ProgramShape, type Surroundings } from '../manifests/program.ts'

export const GAPFERRY: ProgramShape = {
  name: 'gapferry',
  description: 'collects, signs and packs updates for isolated PBXact and FreePBX systems',
  config: 'the settings (default: ./gapferry.yaml)',
  example: 'bundle --to /media/stick',
  whatRemains: 'the same command goes on where it was',
  commands: [
    {
      names: ['init', 'plan', 'pull', 'pack', 'bundle', 'upstreams'],
      load: async () => (await import('./commands.ts')).addCommands,
    },
    {
      names: ['inventory'],
      load: async () => (await import('./inventory-commands.ts')).addInventoryCommands,
    },
    {
      names: ['license'],
      load: async () => (await import('./licenses/license-commands.ts')).addLicenseCommands,
    },
    { names: ['box'], load: async () => (await import('./box-command.ts')).addBoxCommand },
    { names: ['report'], load: async () => (await import('./report-command.ts')).addReportCommands },
    { names: ['store'], load: async () => (await import('./store-commands.ts')).addStoreCommands },
    { names: ['audit'], load: async () => (await import('./audit-command.ts')).addAuditCommands },
    { names: ['keys'], load: async () => (await import('./keys/key-commands.ts')).addKeyCommands },
    { names: ['verify', 'inspect'], load: async () => (await import('./verify-commands.ts')).addVerifyCommands },
  ],
}

/** @param args  without the program's name
 *  @returns the exit status */
export function runGapferry(args: string[], around: Surroundings): Promise<number> {
  return runProgram(GAPFERRY, args, around)
}
