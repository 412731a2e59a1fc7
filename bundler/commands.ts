/**
 * The commands of `gapferry`: arguments → the laptop's steps → what a person or a script reads.
 * Standard output carries results, standard error the talk.
 */
import { statSync } from 'node:fs'
import { resolve } from 'node:path'
import type { Command } from 'commander'
import { errorObject } from '../manifests/console.ts'
import { GapferryError } from '../manifests/errors.ts'
import { examples, print, PrintedError, type GlobalOptions, type Surroundings } from '../manifests/program.ts'
import { parseSize } from '../manifests/settings.ts'
import { partDownloads, planFleet, type Laptop } from './carry.ts'
import { loadFleet } from './config.ts'
import { addInit } from './init-command.ts'
import { planSources, upstreamHosts, withLaptop } from './laptop.ts'
import { packPlan } from './deliver.ts'
import { parseNumber } from './keys/key-options.ts'
import { loadSite } from './keys/keys.ts'
import type { Plan, PlanSources } from './plan.ts'
import { proofFailure, provePlan, renderProof } from './prove-plan.ts'
import { keptPlan } from './plan-file.ts'
import { pull, type PullResult } from './pull.ts'
import { explainItem, renderExplained, renderPacked, renderPlan, renderPull, type PlanFigures } from './render.ts'
import { expensesOf, sumOf, sumsOf } from './spending.ts'

interface SiteOption {
  site?: string
}
interface PlanOptions extends SiteOption {
  security?: boolean
  budget?: string
}
interface ShowOptions extends PlanOptions {
  items?: boolean
  explain?: string
  prove?: boolean
}
interface PackOptions extends SiteOption {
  to: string
  partSize?: string
  renew?: boolean
  passphraseFd?: string
  pinFd?: string
  numberAbove?: string
}

const BUDGET = 'let at most this much over the link, as in 200MB; otherwise what gapferry.yaml says'
const SECURITY = 'carry only what security advisories name, and what that needs'

export function addCommands(program: Command, around: Surroundings): void {
  addInit(program, around)
  addPlan(program, around)
  addPull(program, around)
  addPack(program, around)
  addBundle(program, around)
  addUpstreams(program, around)
}

function addPlan(program: Command, around: Surroundings): void {
  program
    .command('plan')
    .description('look at the upstreams and show what would be carried, and why')
    .option('--site <NAME>', 'only this site')
    .option('--items', 'list every item with its reason')
    .option('--security', SECURITY)
    .option('--budget <SIZE>', BUDGET)
    .option('--explain <ITEM>', 'why this package, module or path is carried')
    .option('--prove', 'let libsolv update each box from what is offered and from what is carried, and compare')
    .addHelpText(
      'after',
      examples(program, 'plan --items', 'plan --explain asterisk18', 'plan --explain core', 'plan --prove'),
    )
    .action(async (options: ShowOptions, command: Command) => {
      await withLaptop(around, command, async (opened, json) => {
        const laptop = withBudget(opened, options)
        const plan = await planFleet(laptop, sourcesOf(laptop, options), options.site)
        const figures = figuresOf(laptop, plan)
        if (options.explain !== undefined) return print(around, explain(plan, options.explain, json))
        if (!json) print(around, renderPlan(plan, figures, options.items === true))
        if (options.prove === true)
          return proveAndPrint(around, laptop, plan, json ? { ...plan, ...figures } : undefined)
        if (json) print(around, JSON.stringify({ ...plan, ...figures }))
      })
    })
}

function addPull(program: Command, around: Surroundings): void {
  program
    .command('pull')
    .description('plan, then fetch what the store does not have, as far as the budget goes')
    .option('--site <NAME>', 'only this site')
    .option('--security', SECURITY)
    .option('--budget <SIZE>', BUDGET)
    .addHelpText('after', examples(program, 'pull', 'pull --budget 200MB'))
    .action(async (options: PlanOptions, command: Command) => {
      await withLaptop(around, command, async (opened, json) => {
        const { failure, ...result } = await planAndPull(withBudget(opened, options), options)
        print(around, json ? JSON.stringify({ ...result, ...(failure && errorObject(failure)) }) : renderPull(result))
        if (failure !== undefined) throw json ? new PrintedError('pull', { cause: failure }) : failure
      })
    })
}

function addPack(program: Command, around: Surroundings): void {
  packOptions(program.command('pack'))
    .description('sign what was pulled and write it to a stick, without any network')
    .addHelpText('after', examples(program, 'pack --to /media/stick --part-size 4GB'))
    .action(async (options: PackOptions, command: Command) => {
      await withLaptop(around, command, (laptop, json) => packAndPrint(around, laptop, json, options))
    })
}

function addBundle(program: Command, around: Surroundings): void {
  packOptions(program.command('bundle'))
    .description('plan, pull and pack: the main job in one command')
    .option('--security', SECURITY)
    .option('--budget <SIZE>', BUDGET)
    .addHelpText('after', examples(program, 'bundle --to /media/stick'))
    .action(async (options: PackOptions & PlanOptions, command: Command) => {
      await withLaptop(around, command, async (opened, json) => {
        const laptop = withBudget(opened, options)
        refuseNoFolder(resolve(around.cwd, options.to))
        refuseNoKeys(laptop, options.site)
        const result = await planAndPull(laptop, options, json ? undefined : (text) => print(around, `${text}\n`))
        if (!json) print(around, `${renderPull(result)}\n`)
        if (result.failure !== undefined) throw result.failure
        await packAndPrint(around, laptop, json, options)
      })
    })
}

function addUpstreams(program: Command, around: Surroundings): void {
  program
    .command('upstreams')
    .description('hosts and ports that the laptop must reach, for its firewall')
    .addHelpText('after', examples(program, 'upstreams'))
    .action((_options: object, command: Command) => {
      const { config, json } = command.optsWithGlobals<GlobalOptions>()
      const hosts = upstreamHosts(loadFleet(resolve(around.cwd, config ?? 'gapferry.yaml')))
      const text = hosts.map((one) => `${one.host}:${one.port}  ${one.reasons.join(', ')}`).join('\n')
      print(around, json === true ? JSON.stringify({ upstreams: hosts }) : text)
    })
}

function packOptions(command: Command): Command {
  return command
    .requiredOption('--to <DIR>', 'the stick; parts go to DIR/gapferry/<site>/')
    .option('--site <NAME>', 'only this site')
    .option('--part-size <SIZE>', 'cut into parts of at most this size, as in 4GB')
    .option('--renew', 'sign a new bundle even where nothing changed')
    .option('--number-above <N>', 'give new bundles a number above N, which another laptop has used')
    .option('--passphrase-fd <N>', 'read the passphrase from this file descriptor')
    .option('--pin-fd <N>', 'read the PIN of a token from this file descriptor')
}

function sourcesOf(laptop: Laptop, { security }: PlanOptions): PlanSources {
  return { ...planSources(laptop), isSecurityOnly: security === true }
}

function withBudget(laptop: Laptop, { budget }: PlanOptions): Laptop {
  return budget === undefined
    ? laptop
    : { ...laptop, fleet: { ...laptop.fleet, budgetBytes: parseSize(budget, '--budget') } }
}

/** @param json  what is printed beside the proof; undefined for people */
async function proveAndPrint(
  around: Surroundings,
  laptop: Laptop,
  plan: Plan,
  json: object | undefined,
): Promise<void> {
  const proof = await provePlan(laptop, plan, around.environment['PATH'])
  const failure = proofFailure(proof)
  const printed = json && { ...json, proof, ...(failure && errorObject(failure)) }
  print(around, printed === undefined ? `\n${renderProof(proof)}` : JSON.stringify(printed))
  if (failure !== undefined) throw json === undefined ? failure : new PrintedError('proof', { cause: failure })
}

/** Planning is paid for by the budget, too. */
async function planAndPull(laptop: Laptop, options: PlanOptions, show?: (text: string) => void): Promise<PullResult> {
  laptop.fetcher.wire.limitBytes = laptop.fleet.budgetBytes
  const plan = await planFleet(laptop, sourcesOf(laptop, options), options.site)
  show?.(renderPlan(plan, figuresOf(laptop, plan), false))
  return pull(laptop, plan)
}

async function packAndPrint(around: Surroundings, laptop: Laptop, json: boolean, options: PackOptions): Promise<void> {
  const toDir = resolve(around.cwd, options.to)
  refuseNoFolder(toDir)
  const packed = await packPlan(laptop, around, keptPlan(laptop.fleet, options.site), {
    toDir,
    renew: options.renew === true,
    ...(options.partSize === undefined ? {} : { partSizeBytes: parseSize(options.partSize, '--part-size') }),
    ...(options.passphraseFd === undefined ? {} : { passphraseFd: options.passphraseFd }),
    ...(options.pinFd === undefined ? {} : { pinFd: options.pinFd }),
    ...(options.numberAbove === undefined ? {} : { numberAbove: parseNumber(options.numberAbove) }),
  })
  print(around, json ? JSON.stringify({ bundles: packed }) : packed.map(renderPacked).join('\n\n'))
}

/** Made by nobody but the person: a folder that springs up where no stick is mounted would look like one. */
function refuseNoFolder(dir: string): void {
  if (statSync(dir, { throwIfNoEntry: false })?.isDirectory() === true) return
  throw new GapferryError('MEDIUM_UNUSABLE', `${dir}: expected the folder of a mounted stick, found none`, {
    hint: 'mount the stick, or make the folder: mkdir',
  })
}

/** Before the metered link is spent on what could not be signed. */
function refuseNoKeys({ fleet }: Laptop, site: string | undefined): void {
  for (const { name } of fleet.sites) if (site === undefined || site === name) loadSite(fleet.keysDir, name)
}

function figuresOf(laptop: Laptop, plan: Plan): PlanFigures {
  const { here, toFetch } = partDownloads(laptop, plan)
  const { budgetBytes } = laptop.fleet
  const expenses = expensesOf(plan, toFetch, laptop.store)
  return {
    toFetch: sumOf(expenses),
    here: { count: here.length, bytes: here.reduce((total, { bytes }) => total + bytes, 0) },
    budgetBytes,
    kinds: sumsOf(expenses, budgetBytes),
  }
}

function explain(plan: Plan, item: string, json: boolean): string {
  const rows = explainItem(plan, item)
  if (rows.length > 0) return json ? JSON.stringify({ items: rows }) : renderExplained(rows)
  const groups = plan.sites.flatMap((site) => site.groups)
  const isBlocked = groups.some(({ modules }) => modules?.blocked.includes(item))
  const why = isBlocked ? ': policy keeps it off the list of modules' : ''
  throw new GapferryError('USAGE_INVALID', `the plan carries no "${item}"${why}`, { hint: 'gapferry plan --items' })
}
