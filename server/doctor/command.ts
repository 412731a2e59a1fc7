/** `gapferry-mirror doctor` as a person meets it. What it takes to examine is loaded when it is asked for. */
import type { Command } from 'commander'
import { errorObject } from '../../manifests/console.ts'
import { append, examples, print, PrintedError, talk, type Surroundings } from '../../manifests/program.ts'
import type { StoreTools } from '../store-commands.ts'
import { openStoreToServe } from '../store.ts'
import type { DoctorOptions } from './round.ts'

export function addDoctor(program: Command, around: Surroundings, { withStore }: Pick<StoreTools, 'withStore'>): void {
  program
    .command('doctor')
    .description('play a box against the running mirror, and say what an unmodified box would trip over')
    .option('--group <NAME>', 'only this group of boxes; may be repeated', append)
    .option('--box <INVENTORY>', 'play this box: what gapferry-box inventory wrote')
    .option('--module-repo <URL>', 'what boxes have as MODULE_REPO')
    .addHelpText('after', examples(program, 'doctor', 'doctor --group pbxact16 --box pbx1.gfi'))
    .action(async (options: DoctorOptions, command: Command) => {
      const [{ examineAll, failureOf, toObject }, { renderExamined }] = await Promise.all([
        import('./round.ts'),
        import('./render.ts'),
      ])
      await withStore(around, command, openStoreToServe, async (store, config, json) => {
        const before = store.releases.version()
        const examined = await examineAll(around, store, config, options)
        const failure = failureOf(examined)
        const error = failure === undefined ? {} : errorObject(failure)
        const object = { site: store.site, groups: toObject(examined), ...error }
        print(around, json ? JSON.stringify(object) : renderExamined(examined))
        if (store.releases.version() !== before) talk(around, 'something was released meanwhile: run it again')
        if (failure !== undefined) throw json ? new PrintedError('doctor', { cause: failure }) : failure
      })
    })
}
