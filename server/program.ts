/**
 * The command line of `gapferry-mirror`: from arguments to an exit status.
 */
import { exitStatus } from '../manifests/errors.ts'
import { runProgram, type ProgramShape, type Surroundings } from '../manifests/program.ts'

export const MIRROR: ProgramShape = {
  name: 'gapferry-mirror',
  description: 'verifies, imports and serves updates inside an isolated network',
  config: 'the settings (default: ./mirror.yaml, then /etc/gapferry/mirror.yaml)',
  example: 'import --release /media/stick',
  whatRemains: 'nothing half-done is kept',
  hint: (error, command) =>
    command === 'import' && exitStatus(error) === 3 && /^(?:BUNDLE|BLOB)_/.test(error.code)
      ? 'nothing of this file was kept; copy it again, and check it there: gapferry verify FILE'
      : undefined,
  commands: [
    {
      names: [
        'init',
        'import',
        'release',
        'rollback',
        'serve',
        'status',
        'bundles',
        'parity',
        'boxes',
        'report',
        'verify',
        'prune',
        'backup',
        'restore',
        'audit',
        'doctor',
      ],
      load: async () => (await import('./commands.ts')).addCommands,
    },
  ],
}

/** @param args  without the program's name
 *  @returns the exit status */
export function runMirror(args: string[], around: Surroundings): Promise<number> {
  return runProgram(MIRROR, args, around)
}
