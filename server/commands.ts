/**
 * The commands of `gapferry-mirror`: arguments → the mirror's steps → what a person or a script reads. Standard output
 * carries results, standard error the talk.
 */
import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import type { Command } from 'commander'
import { errorObject, formatBytes, plural } from '../manifests/console.ts'
import { GapferryError } from '../manifests/errors.ts'
import { missingBytes } from '../storage/completeness.ts'
import { addAudit } from './audit-command.ts'
import { auditedRelease, auditedRollback, importAudit } from './audit.ts'
import { loadMirrorConfig, type MirrorConfig } from './config.ts'
import { importParts, type ImportResult } from './import.ts'
import { addInit } from './init-command.ts'
import {
  changesOf,
  type GroupChange,
  renderBundles,
  renderIgnored,
  renderImport,
  renderRelease,
  renderRollback,
  renderStatus,
} from './render.ts'
import { bundleStatuses, formatIso, originWarnings, readFacts, siteStatus } from './status.ts'
import { addParity } from './parity-command.ts'
import { addStoreCommands } from './store-commands.ts'
import { earliestNow, judgeClock, openStore, openStoreForWriting, type MirrorStore } from './store.ts'
import {
  append,
  examples,
  PrintedError,
  print,
  talk,
  type GlobalOptions,
  type Surroundings,
} from '../manifests/program.ts'
import { makeProgress, type ProgressStep } from '../manifests/progress.ts'

const CONFIG_PLACES = ['mirror.yaml', '/etc/gapferry/mirror.yaml']

export function addCommands(program: Command, around: Surroundings): void {
  addInit(program, around)
  addImport(program, around)
  addRelease(program, around)
  addRollback(program, around)
  addServe(program, around)
  addStatus(program, around)
  addBundles(program, around)
  addStoreCommands(program, around, { withStore, clockOf })
  addParity(program, around, (command, open, work) =>
    withStore(around, command, open, (store, _, json) => work(store, json)),
  )
  addAudit(program, around, (command, work) =>
    withStore(around, command, openStore, (store, _, json) => work(store, json)),
  )
}

function addImport(program: Command, around: Surroundings): void {
  program
    .command('import')
    .description('verify a bundle and stage it; nothing served changes')
    .argument('<FILE or DIR...>', 'parts in any order, or where the stick is mounted')
    .option('--dry-run', 'verify everything, keep nothing')
    .option('--release', 'release the bundle once it is complete')
    .addHelpText('after', examples(program, 'import /media/stick', 'import --release /media/stick'))
    .action(async (inputs: string[], options: ImportOptions, command: Command) => {
      if (options.dryRun === true && options.release === true) {
        throw new GapferryError('USAGE_INVALID', '--dry-run and --release exclude each other', {
          hint: 'gapferry-mirror import --help',
        })
      }
      await withStore(around, command, openStoreForWriting, async (store, config, json) => {
        const nowMs = clockOf(store, around)
        const result = await stage(
          store,
          inputs,
          { isDryRun: options.dryRun === true, nowMs, clockMs: earliestNow(around.nowMs()) },
          around,
        )
        const changes = changesOf(result, store.releases.served(Number.MAX_SAFE_INTEGER))
        for (const line of renderIgnored(result.ignored)) talk(around, line)
        for (const line of originWarnings(config, result.facts)) talk(around, `warning: ${line}`)
        const failure = result.missing.length > 0 ? incomplete(result) : undefined
        const isReleasing = options.release === true && failure === undefined
        if (!json) print(around, renderImport(result, changes, isReleasing))
        const released = isReleasing ? auditedRelease(store, { number: result.number, nowMs }, around) : undefined
        if (json) print(around, JSON.stringify({ ...importObject(result, changes), released, ...errorOf(failure) }))
        else if (released !== undefined) print(around, renderRelease(released))
        else if (failure === undefined && !result.isDryRun && !isServed(store, result)) {
          talk(around, `next: gapferry-mirror release ${result.number}`)
        }
        if (failure !== undefined) throw json ? new PrintedError('incomplete', { cause: failure }) : failure
      })
    })
}

/** True when every group of the bundle is served from it already. */
function isServed(store: MirrorStore, { number, facts }: ImportResult): boolean {
  const served = store.releases.served(Number.MAX_SAFE_INTEGER)
  return [...facts.groups.keys()].every((group) => served.get(group)?.released?.number === number)
}

interface ImportOptions {
  dryRun?: boolean
  release?: boolean
}

async function stage(
  store: MirrorStore,
  inputs: string[],
  options: { isDryRun: boolean; nowMs: number; clockMs: number },
  around: Surroundings,
): Promise<ImportResult> {
  const progress = makeProgress(around)
  let step: ProgressStep | undefined
  let shownBytes = 0
  const onProgress = (doneBytes: number, totalBytes: number): void => {
    step ??= progress.step('import', totalBytes)
    step.add(doneBytes - shownBytes)
    shownBytes = doneBytes
  }
  const { hooks, failed } = importAudit(store.catalog, around, inputs)
  try {
    const paths = inputs.map((input) => resolve(around.cwd, input))
    return await importParts(store, { ...options, inputs: paths, onProgress, signal: around.signal, hooks })
  } catch (error) {
    if (!options.isDryRun) failed(error)
    throw error
  } finally {
    step?.end()
  }
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
      await withStore(around, command, openStore, async (store, config, json) => {
        if (config.origins.length === 0) {
          throw new GapferryError('CONFIG_INVALID', `${config.file}: there are no origins, so no box could be served`, {
            hint: `add one under origins in ${config.file}`,
          })
        }
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
      await withStore(around, command, openStore, async (store, config, json) => {
        const nowMs = clockOf(store, around)
        const status = siteStatus({ store, config, nowMs })
        print(around, json ? JSON.stringify(status) : renderStatus(status, nowMs))
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
  open: (dir: string) => MirrorStore,
  work: (store: MirrorStore, config: MirrorConfig, json: boolean) => Promise<void>,
): Promise<void> {
  const { config: file, json } = command.optsWithGlobals<GlobalOptions>()
  const config = loadMirrorConfig(configFile(around, file))
  const store = open(config.storeDir)
  try {
    await work(store, config, json === true)
  } finally {
    store.close()
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

function incomplete({ number, missing }: ImportResult): GapferryError {
  const parts = [...new Set(missing.flatMap(({ part }) => (part === null ? [] : [part])))].sort()
  return new GapferryError(
    'BUNDLE_INCOMPLETE',
    `bundle ${number} is incomplete: ${plural(missing.length, 'path')}, ${formatBytes(missingBytes(missing))} are missing`,
    {
      hint:
        parts.length === 0
          ? 'no part of this bundle holds them: pack a new bundle on the laptop'
          : `import ${parts.slice(0, 5).join(', ')}${parts.length > 5 ? ` and ${parts.length - 5} more parts` : ''} too`,
    },
  )
}

/** Of the trees only what would change is of interest outside. */
function importObject(result: ImportResult, changes: GroupChange[]): object {
  const { trees: _trees, facts: _facts, createdAtMs, expiresAtMs, ...rest } = result
  const isComplete = rest.missing.length === 0
  return { ...rest, isComplete, createdAt: formatIso(createdAtMs), expiresAt: formatIso(expiresAtMs), changes }
}

function errorOf(failure: GapferryError | undefined): object {
  return failure === undefined ? {} : errorObject(failure)
}

function parseNumber(text: string): number {
  if (/^[1-9][0-9]{0,12}$/.test(text)) return Number(text)
  throw new GapferryError('USAGE_INVALID', `"${text}" is not the number of a bundle`, {
    hint: 'gapferry-mirror bundles',
  })
}

function renderUrls({ admin, origins }: { admin: string; origins: readonly { group: string; url: string }[] }): string {
  return [...origins.map(({ group, url }) => `${group}  ${url}`), `admin  ${admin}`].join('\n')
}
