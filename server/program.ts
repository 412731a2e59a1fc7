/**
 * The command line of `gapferry-mirror`: from arguments to an exit status.
 */
import { exitStatus } from '../manifests/errors.ts'
import { runProgram, type ProgramShape, type Surroundings } from '../manifests/program.ts'
import { addCommands } from './commands.ts'

/** @param args  without the program's name
 *  @returns the exit status */
export function runMirror(args: string[], around: Surroundings): Promise<number> {
  const shape: ProgramShape = {
    name: 'gapferry-mirror',
    description: 'verifies, imports and serves updates inside an isolated network',
    config: 'the settings (default: ./mirror.yaml, then /etc/gapferry/mirror.yaml)',
    example: 'import --release /media/stick',
    whatRemains: 'nothing half-done is kept',
    hint: (error, command) =>
      command === 'import' && exitStatus(error) === 3 && /^(?:BUNDLE|BLOB)_/.test(error.code)
        ? 'nothing of this file was kept; copy it again, and check it there: gapferry verify FILE'
        : undefined,
    addCommands,
  }
  return runProgram(shape, args, around)
}
