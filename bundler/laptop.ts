/**
 * Opens what the laptop's steps need: the store, its ledger, the way to the upstreams.
 */
import { chmodSync, mkdirSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { PassThrough } from 'node:stream'
import type { Command } from 'commander'
import { talk, type GlobalOptions, type Surroundings } from '../manifests/program.ts'
import { BlobStore } from '../storage/blobs.ts'
import { StringPool } from '../manifests/string-pool.ts'
import { lockStore } from '../storage/database.ts'
import { Ledger } from '../storage/ledger.ts'
import { noteLaptop } from './audit.ts'
import { lookAdvisories } from './yum/advisories.ts'
import type { BoxInventory } from './yum/box-state.ts'
import { carriedBefore } from './yum/carried-before.ts'
import type { Laptop } from './carry.ts'
import { loadFleet, type Fleet } from './config.ts'
import { Fetcher, makeDispatcher } from './fetch.ts'
import { boxesByGroup, laterBundle } from './inventories.ts'
import { proxiesOf } from './link-settings.ts'
import { verifySignature } from './keys/openpgp.ts'
import type { GroupModules } from './modules/module-settings.ts'
import { moduleTrust, withoutKeys } from './modules/module-trust.ts'
import { lookWholeSet, planModules } from './modules/plan-modules.ts'
import { Once } from './once.ts'
import { openPages } from './pages.ts'
import type { PlanSources } from './plan.ts'
import { makeProgress } from '../manifests/progress.ts'
import { treesBefore } from './report-base.ts'
import { openRunLog } from './run-log.ts'
import { lookFile } from './upstream-files.ts'
import { findUnprovided } from './yum/unprovided.ts'
import { lookYum } from './upstream-yum.ts'
import { findPaths } from './yum/yum-tables.ts'

const CONNECTIONS = 8

/** Opens the store that a command line names, for one command, and closes it whatever happens.
 *  @throws what loadFleet and openLaptop throw */
export async function withLaptop(
  around: Surroundings,
  command: Command,
  work: (laptop: Laptop, json: boolean) => Promise<void>,
): Promise<void> {
  const { config, json, events } = command.optsWithGlobals<GlobalOptions & { events?: boolean }>()
  // A script that reads events wants no bars between them.
  const shown = events === true ? { ...around, stderr: new PassThrough().resume() } : around
  const fleet = loadFleet(resolve(around.cwd, config ?? 'gapferry.yaml'))
  const { laptop, close } = openLaptop(fleet, shown)
  const log = openRunLog(fleet.storeDir, command.name(), around, events === true)
  const warn = (message: string): void => {
    laptop.warn(message)
    log.tell({ event: 'warning', message })
  }
  try {
    await work({ ...laptop, tell: log.tell, warn, progress: log.watch(laptop.progress) }, json === true)
    log.end()
  } catch (error) {
    log.end(error)
    throw error
  } finally {
    await close()
  }
}

/** @throws STORE_BUSY when another run works on this store; STORE_VERSION */
export function openLaptop(fleet: Fleet, around: Surroundings): { laptop: Laptop; close: () => Promise<void> } {
  mkdirSync(fleet.storeDir, { recursive: true, mode: 0o700 })
  chmodSync(fleet.storeDir, 0o700) // it may have been there before, with more rights
  const unlock = lockStore(fleet.storeDir)
  try {
    const store = new BlobStore(fleet.storeDir)
    store.sweep()
    store.partials.sweep(around.nowMs())
    const ledger = new Ledger(join(fleet.storeDir, 'ledger.db'))
    noteLaptop(fleet, ledger, around)
    const { retries, maxWaitMs, bytesPerSecond } = fleet.link
    const dispatcher = makeDispatcher({ connections: CONNECTIONS, proxy: proxiesOf(fleet.link, around.environment) })
    const userAgent = `gapferry/${around.version}`
    const pages = openPages(store, ledger, around.nowMs())
    const fetcher = new Fetcher({ dispatcher, userAgent, retries, maxWaitMs, bytesPerSecond, pages })
    const progress = makeProgress(around)
    const warn = (text: string): void => talk(around, `warning: ${text}`)
    const laptop = {
      fleet,
      store,
      ledger,
      fetcher,
      progress,
      tell: unheard,
      warn,
      nowMs: around.nowMs,
      signal: around.signal,
    }
    const close = async (): Promise<void> => {
      await dispatcher.destroy()
      ledger.close()
      unlock()
    }
    return { laptop, close }
  } catch (error) {
    unlock()
    throw error
  }
}

/** withLaptop keeps a log of what a command does. */
function unheard(): void {}

export function planSources(laptop: Laptop): PlanSources {
  const { fleet, store, ledger, fetcher, signal, nowMs } = laptop
  const pool = new StringPool()
  const asked = new Once()
  const context = { fetcher, store, signal, aliases: ledger, verifySignature, nowMs: nowMs(), pool }
  return {
    lookYum: (repo) => lookYum(repo, context),
    lookAdvisories: (upstream) => lookAdvisories(upstream, context),
    // A HEAD is two round trips, because the connection is not used again: at 60 ms, 40 of them in turn take 6 s.
    lookFiles: (files) =>
      fetcher.all(files, (file, either) => lookFile(file, { fetcher, store, memory: ledger, signal: either }), signal),
    planModules: (site, group, boxes) => planGroupModules({ ...laptop, asked }, site, group, boxes),
    findUnprovided: (parts) => findUnprovided(parts, { store, signal }),
    boxesOf: (site, group) =>
      boxesOf(fleet, site, group).map((box) => ({ ...box, stale: laterBundle(ledger, site, box) })),
    carriedBefore: (site, group) => {
      const before = treesBefore(ledger, site, ledger.lastBundle(site))(group)
      return carriedBefore(before?.sha256, group, { store, signal, pool })
    },
    findPaths: (repository, wanted) => findPaths(repository, wanted, { store, signal }),
    nowMs: nowMs(),
  }
}

async function planGroupModules(
  { fleet, fetcher, store, ledger, signal, asked }: Laptop & { asked: Once },
  site: string,
  { name: group, modules: settings }: { name: string; modules: GroupModules },
  boxes: readonly BoxInventory[],
): ReturnType<PlanSources['planModules']> {
  const way = { fetcher, store, memory: ledger, signal, asked }
  const last = ledger.lastBundle(site)
  const files = settings.wholeSet ? [await lookWholeSet(settings, way)] : []
  const modules = await planModules({ name: `${site} / ${group}`, group, settings, boxes, last }, way)
  if (typeof modules === 'string') return { modules, files }
  const why = withoutKeys(modules, await moduleTrust(fleet, site, group))
  return { modules: why === undefined ? modules : { ...modules, warnings: [...modules.warnings, why] }, files }
}

/** Inventories of a group's boxes, under the names that the laptop knows them by. @throws as boxesByGroup */
export function boxesOf(fleet: Fleet, site: string, group: string): BoxInventory[] {
  return (boxesByGroup(fleet, site).get(group) ?? []).map(({ name, inventory }) => ({ ...inventory, box: name }))
}

/** Every host that the settings name, with its port and what it is needed for. Mirrorlists may name more. */
export function upstreamHosts(fleet: Fleet): { host: string; port: number; reasons: string[] }[] {
  const hosts = new Map<string, { host: string; port: number; reasons: string[] }>()
  const add = (text: string, reason: string): void => {
    const url = new URL(text.replaceAll('$', ''))
    const port = url.port === '' ? (url.protocol === 'https:' ? 443 : 80) : Number(url.port)
    const key = `${url.hostname}:${port}`
    const row = hosts.get(key) ?? { host: url.hostname, port, reasons: [] }
    if (!row.reasons.includes(reason)) row.reasons.push(reason)
    hosts.set(key, row)
  }
  for (const group of fleet.sites.flatMap((site) => site.groups)) {
    for (const repo of group.yum) {
      for (const url of repo.baseurl ?? []) add(url, `yum ${repo.id}`)
      if (repo.mirrorlist !== undefined) add(repo.mirrorlist, `mirrorlist of yum ${repo.id}, and the hosts it names`)
      if (repo.metalink !== undefined) add(repo.metalink, `metalink of yum ${repo.id}, and the hosts it names`)
    }
    if (group.modules !== undefined) add(group.modules.feed, `modules ${group.modules.major}`)
    for (const file of group.files) add(file.url, `file ${file.as}`)
  }
  return [...hosts.values()]
}
