/**
 * The commands of `gapferry`: arguments → the laptop's steps → what a person or a script reads.
 * Standard output carries results, standard error the talk.
 */
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
import { packSites } from './deliver.ts'
import { dueOf, renderDue, type SiteDue } from './due.ts'
import { parseNumber } from './keys/key-options.ts'
import { loadSite } from './keys/keys.ts'
import { pulledText, pullLicenses, type PulledLicenses } from './licenses/pull-licenses.ts'
import { licenseLines, licensesOf, type LicenseRow } from './licenses/states.ts'
import { checkStick } from './stick.ts'
import type { Plan, PlanSources } from './plan.ts'
import { proofFailure, provePlan, renderProof } from './prove-plan.ts'
import { pull, type PullResult } from './pull.ts'
import { explainItem, renderExplained, renderPacked, renderPlan, renderPull, type PlanFigures } from './render.ts'
import { eachSite, failureOfSites, failureRows, type SiteFailure } from './sites.ts'
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
  unmounted?: boolean
  renew?: boolean
  repair?: boolean
  full?: boolean
  passphraseFd?: string
  pinFd?: string
  numberAbove?: string
}

const BUDGET = 'let at most this much over the link, as in 200MB; otherwise what gapferry.yaml says'
const EVENTS = 'what happens, as lines of JSON on standard error'
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
    .option('--events', EVENTS)
    .option('--explain <ITEM>', 'why this package, module or path is carried')
    .option('--prove', 'let libsolv update each box from what is offered and from what is carried, and compare')
    .addHelpText(
      'after',
      examples(program, 'plan --items', 'plan --explain asterisk18', 'plan --explain core', 'plan --prove'),
    )
    .action(async (options: ShowOptions, command: Command) => {
      await withLaptop(around, command, async (opened, json) => {
        const laptop = withBudget(opened, options)
        const { plan, failures } = await planFleet(laptop, sourcesOf(laptop, options), namesOf(laptop, options.site))
        if (options.explain !== undefined) {
          for (const { site, error } of failures) laptop.warn(`${site}: ${error.message} [${error.code}]`)
          return print(around, explain(plan, options.explain, json))
        }
        const failure = failureOfSites(failures, plan.sites.length + failures.length)
        const figures = figuresOf(laptop, plan)
        const due = dueOf(laptop, plan)
        const licenses = licensesOf(laptop, plan)
        const shown = json ? { ...plan, ...figures, due, licenses, failures: failureRows(failures) } : undefined
        if (!json) print(around, planText(plan, figures, { due, failures, licenses }, options.items === true))
        if (options.prove === true) return proveAndPrint(around, laptop, plan, shown, failure)
        if (json) print(around, JSON.stringify({ ...shown, ...(failure && errorObject(failure)) }))
        finish(failure, json)
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
    .option('--events', EVENTS)
    .addHelpText('after', examples(program, 'pull', 'pull --budget 200MB'))
    .action(async (options: PlanOptions, command: Command) => {
      await withLaptop(around, command, async (opened, json) => {
        const laptop = withBudget(opened, options)
        const { failure, result, licenses } = await planAndPull(laptop, around, options, namesOf(laptop, options.site))
        const shown = { ...result, licenses, ...(failure && errorObject(failure)) }
        print(around, json ? JSON.stringify(shown) : [...pulledText(licenses), renderPull(result)].join('\n'))
        finish(failure, json)
      })
    })
}

function addPack(program: Command, around: Surroundings): void {
  packOptions(program.command('pack'))
    .description('sign what was pulled and write it to a stick, without any network')
    .option('--repair', 'sign nothing; of the parts that are there, write again only what is bad')
    .option('--events', EVENTS)
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
      await withLaptop(around, command, (laptop, json) =>
        packAndPrint(around, laptop, json, options, { sites: namesOf(laptop, options.site), failures: [] }),
      )
    })
}

function addBundle(program: Command, around: Surroundings): void {
  packOptions(program.command('bundle'))
    .description('plan, pull and pack: the main job in one command')
    .option('--security', SECURITY)
    .option('--budget <SIZE>', BUDGET)
    .option('--events', EVENTS)
    .addHelpText('after', examples(program, 'bundle --to /media/stick'))
    .action(async (options: PackOptions & PlanOptions, command: Command) => {
      await withLaptop(around, command, async (opened, json) => {
        const laptop = withBudget(opened, options)
        checkStick(resolve(around.cwd, options.to), { isUnmounted: options.unmounted === true })
        const { done, failures } = await eachSite(namesOf(laptop, options.site), laptop.signal, (site) =>
          refuseNoKeys(laptop, site),
        )
        const show = json ? undefined : (text: string): void => print(around, `${text}\n`)
        const { planned, result, failure, licenses } = await planAndPull(laptop, around, options, done, show)
        show?.([...pulledText(licenses), renderPull(result)].join('\n'))
        // Of several sites those that have all of theirs are packed.
        if (failure !== undefined && planned.length < 2) throw failure
        const before = [...failures, ...result.failures]
        await packAndPrint(around, laptop, json, options, { sites: planned, failures: before, failure })
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

/** All of them, or the one that is asked for, known or not. */
function namesOf({ fleet }: Laptop, site: string | undefined): string[] {
  return site === undefined ? fleet.sites.map(({ name }) => name) : [site]
}

/** @throws `failure`, where there is one; with `json` it was printed */
function finish(failure: GapferryError | undefined, json: boolean): void {
  if (failure !== undefined) throw json ? new PrintedError(failure.code, { cause: failure }) : failure
}

/** @param json  what is printed beside the proof; undefined for people */
async function proveAndPrint(
  around: Surroundings,
  laptop: Laptop,
  plan: Plan,
  json: object | undefined,
  before: GapferryError | undefined,
): Promise<void> {
  const proof = await provePlan(laptop, plan, around.environment['PATH'])
  const failure = proofFailure(proof) ?? before
  const printed = json && { ...json, proof, ...(failure && errorObject(failure)) }
  print(around, printed === undefined ? `\n${renderProof(proof)}` : JSON.stringify(printed))
  finish(failure, json !== undefined)
}

/** Planning is paid for by the budget, too.
 *  @returns `planned`: sites that have a plan; `failure` of any */
async function planAndPull(
  laptop: Laptop,
  around: Surroundings,
  options: PlanOptions,
  sites: readonly string[],
  show?: (text: string) => void,
): Promise<{
  planned: string[]
  result: Omit<PullResult, 'failure'>
  failure: GapferryError | undefined
  licenses: PulledLicenses[]
}> {
  laptop.fetcher.wire.limitBytes = laptop.fleet.budgetBytes
  const { plan, failures } = await planFleet(laptop, sourcesOf(laptop, options), sites)
  const planned = plan.sites.map(({ name }) => name)
  const licenses = await pullLicenses(laptop, around, planned)
  const shown = { due: dueOf(laptop, plan), failures, licenses: licensesOf(laptop, plan) }
  show?.(planText(plan, figuresOf(laptop, plan), shown, false))
  const { failure, ...result } = await pull(laptop, plan)
  const all = [...failures, ...result.failures]
  const ofSites = failureOfSites(all, sites.length)
  if (ofSites !== undefined && failure !== undefined) laptop.warn(failure.message)
  return { planned, result: { ...result, failures: all }, failure: ofSites ?? failure, licenses }
}

interface BeforePack {
  sites: readonly string[]
  /** sites that are not packed, and why */
  failures: readonly SiteFailure[]
  /** why something was not fetched */
  failure?: GapferryError | undefined
}

async function packAndPrint(
  around: Surroundings,
  laptop: Laptop,
  json: boolean,
  options: PackOptions,
  before: BeforePack,
): Promise<void> {
  const toDir = resolve(around.cwd, options.to)
  checkStick(toDir, { isUnmounted: options.unmounted === true })
  const { bundles, failures } = await packSites(laptop, around, before.sites, {
    toDir,
    renew: options.renew === true,
    isRepair: options.repair === true,
    isFull: options.full === true,
    ...(options.partSize === undefined ? {} : { partSizeBytes: parseSize(options.partSize, '--part-size') }),
    ...(options.passphraseFd === undefined ? {} : { passphraseFd: options.passphraseFd }),
    ...(options.pinFd === undefined ? {} : { pinFd: options.pinFd }),
    ...(options.numberAbove === undefined ? {} : { numberAbove: parseNumber(options.numberAbove) }),
  })
  const all = [...before.failures, ...failures]
  const ofSites = failureOfSites(all, bundles.length + all.length)
  // What did not come is why a site could not be packed.
  if (before.failure !== undefined && failures.length > 0) laptop.warn(ofSites!.message)
  const failure = before.failure ?? ofSites
  const shown = { bundles, failures: failureRows(all), ...(failure && errorObject(failure)) }
  if (json) print(around, JSON.stringify(shown))
  else if (bundles.length > 0) print(around, bundles.map(renderPacked).join('\n\n'))
  finish(failure, json)
}

function planText(
  plan: Plan,
  figures: PlanFigures,
  { due, failures, licenses }: { due: SiteDue[]; failures: SiteFailure[]; licenses: LicenseRow[] },
  items: boolean,
): string {
  const text = [renderPlan(plan, figures, items), ...licenseLines(licenses)].join('\n')
  return due.length + failures.length < 2 ? text : `${text}\n\n${renderDue(due, failures)}`
}

/** Before the metered link is spent on what could not be signed. @returns the site */
async function refuseNoKeys({ fleet }: Laptop, site: string): Promise<string> {
  if (fleet.sites.some(({ name }) => name === site)) loadSite(fleet.keysDir, site)
  return site
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
