/**
 * The commands of `gapferry-mirror`: arguments → the mirror's steps → what a person or a script reads. Standard output
 * carries results, standard error the talk.
 */
import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import type { Command } from 'commander'
import { formatTable } from '../manifests/console.ts'
import { GapferryError, isGapferryError } from '../manifests/errors.ts'
import { addAudit } from '../storage/audit-command.ts'
import { auditedRelease, auditedRollback, noteSettings } from './audit.ts'
import { addBackupCommands } from './backup-commands.ts'
import { addBoxes } from './boxes-command.ts'
import { loadMirrorConfig, type MirrorConfig } from './config.ts'
import { addImport } from './import-command.ts'
import { addDoctor } from './doctor/command.ts'
import { ensureIdentity } from './identity.ts'
import { addInit } from './init-command.ts'
import { addParity } from './parity-command.ts'
import { addReport } from './report-command.ts'
import { AND_NAMES, renderBundles, renderRelease, renderRollback, renderStatus } from './render.ts'
import { bundleStatuses, originWarnings, readFacts, siteStatus } from './status.ts'
import type { ServedUrls } from './serve.ts'
import { addStoreCommands } from './store-commands.ts'
import { judgeClock, openStore, openStoreForWriting, openStoreToServe, type MirrorStore } from './store.ts'
import { append, examples, print, talk, type GlobalOptions, type Surroundings } from '../manifests/program.ts'

const CONFIG_PLACES = ['mirror.yaml', '/etc/gapferry/mirror.yaml']

export function addCommands(program: Command, around: Surroundings): void {
  addInit(program, around)
  addImport(program, around, { withStore, clockOf })
  addRelease(program, around)
  addRollback(program, around)
  addServe(program, around)
  addStatus(program, around)
  addBundles(program, around)
  addStoreCommands(program, around, { withStore, clockOf })
  addBackupCommands(program, around, { withStore, clockOf, configFile })
  addParity(program, around, (command, open, work) =>
    withStore(around, command, open, (store, _, json) => work(store, json)),
  )
  addDoctor(program, around, { withStore })
  addBoxes(program, around, { withStore, clockOf })
  addReport(program, around, { withStore, clockOf })
  addAudit(program, around, 'this mirror', (command, work) =>
    withStore(around, command, openStore, async ({ site, catalog }, _, json) =>
      work({ trail: catalog.audit, title: `site ${site}`, facts: { site } }, json),
    ),
  )
}

function addRelease(program: Command, around: Surroundings): void {
  program
    .command('release')
    .description('make a bundle what is served')
    .argument('[NUMBER]', 'which bundle (default: the one that was imported last)')
    .option('--group <NAME>', 'only for this group of boxes; may be repeated', append)
    .addHelpText('after', examples(program, 'release', 'release 7 --group pbxact16'))
    .action(async (text: string | undefined, options: { group?: string[] }, command: Command) => {
      await withStore(around, command, openStoreForWriting, async (store, config, json) => {
        const number = text === undefined ? {} : { number: parseNumber(text) }
        const groups = options.group === undefined ? {} : { groups: options.group }
        const result = auditedRelease(store, { ...number, nowMs: clockOf(store, around), ...groups }, around)
        warnAboutOrigins(store, config, result.number, around)
        print(around, json ? JSON.stringify(result) : renderRelease(result))
      })
    })
}

function addRollback(program: Command, around: Surroundings): void {
  program
    .command('rollback')
    .description('serve the content before the released bundle again; boxes that updated already are not changed')
    .option('--return', 'take a rollback back')
    .option('--group <NAME>', 'only for this group of boxes; may be repeated', append)
    .addHelpText('after', examples(program, 'rollback', 'rollback --return'))
    .action(async (options: { return?: boolean; group?: string[] }, command: Command) => {
      await withStore(around, command, openStoreForWriting, async (store, _config, json) => {
        const groups = options.group === undefined ? {} : { groups: options.group }
        const role = options.return === true ? 'return' : 'previous'
        const result = auditedRollback(store, { role, nowMs: clockOf(store, around), ...groups }, around)
        print(around, json ? JSON.stringify(result) : renderRollback(result))
      })
    })
}

function addServe(program: Command, around: Surroundings): void {
  program
    .command('serve')
    .description('serve the boxes until Ctrl-C; logs go to standard error')
    .addHelpText('after', examples(program, 'serve --config /etc/gapferry/mirror.yaml'))
    .action(async (_options: object, command: Command) => {
      await withStore(around, command, openStoreToServe, async (store, config, json) => {
        if (config.origins.length === 0) {
          throw new GapferryError('CONFIG_INVALID', `${config.file}: there are no origins, so no box could be served`, {
            hint: `add one under origins in ${config.file}`,
          })
        }
        if (!('damage' in store)) noteSettings(store.catalog, config, around)
        const { bundle } = siteStatus({ store, config, nowMs: clockOf(store, around) })
        if (bundle !== null) warnAboutOrigins(store, config, bundle, around)
        const { serve } = await import('./serve.ts') // fastify takes longer to load than all other commands to run
        await serve({
          store,
          config,
          around,
          onUp: (urls) => print(around, json ? JSON.stringify(urls) : renderUrls(urls)),
        })
      })
    })
}

function addStatus(program: Command, around: Surroundings): void {
  program
    .command('status')
    .description('what is served, and from where')
    .addHelpText('after', examples(program, 'status --json'))
    .action(async (_options: object, command: Command) => {
      await withStore(around, command, openStoreToServe, async (store, config, json) => {
        const nowMs = clockOf(store, around)
        const status = siteStatus({ store, config, nowMs })
        print(around, json ? JSON.stringify(status) : renderStatus(status, nowMs, around.stdout.columns))
      })
    })
}

function addBundles(program: Command, around: Surroundings): void {
  program
    .command('bundles')
    .description('the bundles that were imported')
    .addHelpText('after', examples(program, 'bundles'))
    .action(async (_options: object, command: Command) => {
      await withStore(around, command, openStore, async (store, _config, json) => {
        const bundles = bundleStatuses(store)
        print(around, json ? JSON.stringify({ site: store.site, bundles }) : renderBundles(bundles))
      })
    })
}

/** Opens the store for one command and closes it whatever happens. */
async function withStore(
  around: Surroundings,
  command: Command,
  open: (dir: string) => MirrorStore | Promise<MirrorStore>,
  work: (store: MirrorStore, config: MirrorConfig, json: boolean) => Promise<void>,
): Promise<void> {
  const { config: file, json } = command.optsWithGlobals<GlobalOptions>()
  const config = loadMirrorConfig(configFile(around, file))
  const store = await open(config.storeDir)
  try {
    if (open === openStoreForWriting) {
      noteSettings(store.catalog, config, around)
      keepIdentity(store, around)
    }
    await work(store, config, json === true)
  } finally {
    store.close()
  }
}

/** Stores that are older than identities get one; nothing but a report depends on it. */
function keepIdentity(store: MirrorStore, around: Surroundings): void {
  try {
    ensureIdentity(store, judgeClock(store.catalog, around.nowMs()).nowMs)
  } catch (error) {
    if (!isGapferryError(error)) throw error
    talk(around, `warning: ${error.message}`)
  }
}

function warnAboutOrigins(store: MirrorStore, config: MirrorConfig, number: number, around: Surroundings): void {
  const facts = readFacts(store, number)
  for (const line of facts === undefined ? [] : originWarnings(config, facts)) talk(around, `warning: ${line}`)
}

function configFile(around: Surroundings, given: string | undefined): string {
  const named = given ?? around.environment['GAPFERRY_CONFIG']
  if (named !== undefined) return resolve(around.cwd, named)
  const places = CONFIG_PLACES.map((place) => resolve(around.cwd, place))
  return places.find((place) => existsSync(place)) ?? places[0]!
}

function clockOf(store: MirrorStore, around: Surroundings): number {
  const { nowMs, warning } = judgeClock(store.catalog, around.nowMs())
  if (warning !== undefined) talk(around, `warning: ${warning}`)
  return nowMs
}

function parseNumber(text: string): number {
  if (/^[1-9][0-9]{0,12}$/.test(text)) return Number(text)
  throw new GapferryError('USAGE_INVALID', `"${text}" is not the number of a bundle`, {
    hint: 'gapferry-mirror bundles',
  })
}

function renderUrls({ admin, origins, boxes }: ServedUrls): string {
  const rows = origins.map(({ group, url, vendorNames }) => [group, `${url}${vendorNames ? AND_NAMES : ''}`])
  return formatTable([...rows, ...(boxes === null ? [] : [['boxes', boxes]]), ['admin', admin]])
}
