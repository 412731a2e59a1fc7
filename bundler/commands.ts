/**
 * The commands of `gapferry`: arguments → the laptop's steps → what a person or a script reads.
 * Standard output carries results, standard error the talk.
 */
import { resolve } from 'node:path'
import type { Command } from 'commander'
import { errorObject, formatBytes, plural } from '../manifests/console.ts'
import { GapferryError } from '../manifests/errors.ts'
import { examples, print, PrintedError, type GlobalOptions, type Surroundings } from '../manifests/program.ts'
import { parseSize } from '../manifests/settings.ts'
import { partDownloads, planFleet, pull, type Laptop, type PullResult } from './carry.ts'
import { loadFleet } from './config.ts'
import { addInit } from './init-command.ts'
import { planSources, upstreamHosts, withLaptop } from './laptop.ts'
import { packPlan } from './deliver.ts'
import { parseNumber } from './keys/key-options.ts'
import { loadSite } from './keys/keys.ts'
import { checkStick } from './stick.ts'
import type { Plan, PlanSources } from './plan.ts'
import { proofFailure, provePlan, renderProof } from './prove-plan.ts'
import { keptPlan } from './plan-file.ts'
import { explainItem, renderExplained, renderPacked, renderPlan, type PlanFigures } from './render.ts'

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
  unmounted?: boolean
  renew?: boolean
  repair?: boolean
  full?: boolean
  passphraseFd?: string
  pinFd?: string
  numberAbove?: string
}

const BUDGET = 'fetch at most this much, as in 200MB; otherwise what gapferry.yaml says'
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
    .description('plan, then fetch what the store does not have')
    .option('--site <NAME>', 'only this site')
    .option('--security', SECURITY)
    .option('--budget <SIZE>', BUDGET)
    .addHelpText('after', examples(program, 'pull'))
    .action(async (options: PlanOptions, command: Command) => {
      await withLaptop(around, command, async (opened, json) => {
        const result = await planAndPull(withBudget(opened, options), options)
        print(around, json ? JSON.stringify(result) : renderPull(result))
      })
    })
}

function addPack(program: Command, around: Surroundings): void {
  packOptions(program.command('pack'))
    .description('sign what was pulled and write it to a stick, without any network')
    .option('--repair', 'sign nothing; of the parts that are there, write again only what is bad')
    .addHelpText(
      'after',
      examples(program, 'pack --to /media/stick --part-size 4GB', 'pack --repair --to /media/stick'),
    )
    .action(async (options: PackOptions, command: Command) => {
      if (options.repair === true && (options.renew === true || options.numberAbove !== undefined)) {
        throw new GapferryError(
          'USAGE_INVALID',
          '--repair signs nothing: --renew and --number-above do not go with it',
          {
            hint: 'gapferry pack --help',
          },
        )
      }
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
        checkStick(resolve(around.cwd, options.to), { isUnmounted: options.unmounted === true })
        refuseNoKeys(laptop, options.site)
        const result = await planAndPull(laptop, options, json ? undefined : (text) => print(around, `${text}\n`))
        if (!json) print(around, `${renderPull(result)}\n`)
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
    .option('--unmounted', 'DIR is meant, although no stick is mounted there')
    .option('--full', 'carry everything, also what a report says is at the site')
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

async function planAndPull(laptop: Laptop, options: PlanOptions, show?: (text: string) => void): Promise<PullResult> {
  const plan = await planFleet(laptop, sourcesOf(laptop, options), options.site)
  show?.(renderPlan(plan, figuresOf(laptop, plan), false))
  return pull(laptop, plan)
}

async function packAndPrint(around: Surroundings, laptop: Laptop, json: boolean, options: PackOptions): Promise<void> {
  const toDir = resolve(around.cwd, options.to)
  checkStick(toDir, { isUnmounted: options.unmounted === true })
  const packed = await packPlan(laptop, around, keptPlan(laptop.fleet, options.site), {
    toDir,
    renew: options.renew === true,
    isRepair: options.repair === true,
    isFull: options.full === true,
    ...(options.partSize === undefined ? {} : { partSizeBytes: parseSize(options.partSize, '--part-size') }),
    ...(options.passphraseFd === undefined ? {} : { passphraseFd: options.passphraseFd }),
    ...(options.pinFd === undefined ? {} : { pinFd: options.pinFd }),
    ...(options.numberAbove === undefined ? {} : { numberAbove: parseNumber(options.numberAbove) }),
  })
  print(around, json ? JSON.stringify({ bundles: packed }) : packed.map(renderPacked).join('\n\n'))
}

/** Before the metered link is spent on what could not be signed. */
function refuseNoKeys({ fleet }: Laptop, site: string | undefined): void {
  for (const { name } of fleet.sites) if (site === undefined || site === name) loadSite(fleet.keysDir, name)
}

function figuresOf(laptop: Laptop, plan: Plan): PlanFigures {
  const { here, toFetch } = partDownloads(laptop, plan)
  return { toFetch: sumOf(toFetch), here: sumOf(here), budgetBytes: laptop.fleet.budgetBytes }
}

function sumOf(list: { bytes: number }[]): { count: number; bytes: number } {
  return { count: list.length, bytes: list.reduce((total, one) => total + one.bytes, 0) }
}

function explain(plan: Plan, item: string, json: boolean): string {
  const rows = explainItem(plan, item)
  if (rows.length > 0) return json ? JSON.stringify({ items: rows }) : renderExplained(rows)
  const groups = plan.sites.flatMap((site) => site.groups)
  const isBlocked = groups.some(({ modules }) => modules?.blocked.includes(item))
  const why = isBlocked ? ': policy keeps it off the list of modules' : ''
  throw new GapferryError('USAGE_INVALID', `the plan carries no "${item}"${why}`, { hint: 'gapferry plan --items' })
}

function renderPull({ fetched, here }: PullResult): string {
  return `fetched ${plural(fetched.count, 'item')}, ${formatBytes(fetched.bytes)}; ${here.count} were in the store`
}
