/**
 * The command line of `gapferry`: from arguments to an exit status.
 */
import { runProgram, type Surroundings } from '../manifests/program.ts'
import { addCommands } from './commands.ts'

/** @param args  without the program's name
 *  @returns the exit status */
export function runGapferry(args: string[], around: Surroundings): Promise<number> {
  const shape = {
    name: 'gapferry',
    description: 'collects, signs and packs updates for isolated PBXact and FreePBX systems',
    config: 'the settings (default: ./gapferry.yaml)',
    example: 'bundle --to /media/stick',
    whatRemains: 'the same command goes on where it was',
    addCommands,
  }
  return runProgram(shape, args, around)
}
