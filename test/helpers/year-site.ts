import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { request } from 'undici'
import { runGapferry } from '../../bundler/program.ts'
import { MAX_TREE_BYTES, parseTree } from '../../manifests/tree.ts'
import { sha256Of, type Sha256 } from '../../manifests/digest.ts'
import { runMirror } from '../../server/program.ts'
import { BlobStore } from '../../storage/blobs.ts'
import { Ledger } from '../../storage/ledger.ts'
import { freePorts } from './gap.ts'
import { inside } from './inside.ts'
import { must, start, type Outcome, type Running, type Teardown } from './process.ts'

const PROJECT = resolve(import.meta.dirname, '../..')

/** A laptop for several sites and a mirror at each. Both programs run in this process, at the machine's time (boxes refuse
 *  signatures of another); what a mirror serves comes from a process of its own, and of a replaced release nothing. */
export interface YearPair {
  laptopDir: string
  /** `gapferry …` in the laptop's folder */
  gapferry(...args: string[]): Promise<Outcome>
  mirrors: Record<string, YearMirror>
  /** What the bundle signed last for a site shall have boxes find: group → path → digest. */
  treesOf(site: string): Trees
}

export type Trees = ReadonlyMap<string, ReadonlyMap<string, Sha256>>

export interface YearMirror {
  dir: string
  /** by group */
  origins: Record<string, string>
  /** `gapferry-mirror …` in its folder */
  run(...args: string[]): Promise<Outcome>
  serve(): Promise<Running>
  /** the number of the bundle that it says it serves */
  servedNumber(): Promise<number>
  fetch(group: string, path: string): Promise<{ status: number; sha256: Sha256; text: string }>
}

/** @param dir    an empty folder
 *  @param sites  groups with what their settings say beside name and origin, YAML flow, by site */
export async function makeYearPair(
  t: Teardown,
  dir: string,
  sites: Record<string, Record<string, string>>,
): Promise<YearPair> {
  const laptopDir = join(dir, 'laptop')
  const gapferry = (...args: string[]) => inside(runGapferry, laptopDir, args)
  const mirrors: Record<string, YearMirror> = {}
  const admins = new Map<string, string>()
  const lines: string[] = []
  for (const [site, groups] of Object.entries(sites)) {
    const names = Object.keys(groups)
    const [admin, ...addresses] = (await freePorts(names.length + 1)).map((port) => `127.0.0.1:${port}`)
    const origins = Object.fromEntries(names.map((name, i) => [name, `http://${addresses[i]}`]))
    const run = (...args: string[]) =>
      inside(runMirror, join(dir, site), args, { environment: { GAPFERRY_PASSPHRASE: 'of the backup' } })
    mirrors[site] = yearMirror(t, { dir: join(dir, site), admin: admin!, origins, run })
    admins.set(site, admin!)
    const settings = names.map((name) => `{ name: ${name}, origin: '${origins[name]}', ${groups[name]} }`)
    lines.push(`  - { name: ${site}, groups: [${settings.join(', ')}] }`)
  }
  mkdirSync(laptopDir, { recursive: true })
  writeFileSync(join(laptopDir, 'gapferry.yaml'), `apiVersion: gapferry/v1\nkind: Fleet\nsites:\n${lines.join('\n')}\n`)
  must(await gapferry('init', '.', '--no-passphrase'))
  for (const [site, mirror] of Object.entries(mirrors)) {
    mkdirSync(mirror.dir, { recursive: true })
    const root = join(laptopDir, 'keys', site, '1.root.json')
    const listen = Object.entries(mirror.origins).flatMap(([group, url]) => ['--origin', `${group}=${url.slice(7)}`])
    must(await mirror.run('init', '.', '--trust', root, '--yes', '--admin', admins.get(site)!, ...listen))
    const settings = join(mirror.dir, 'mirror.yaml')
    writeFileSync(
      settings,
      readFileSync(settings, 'utf8').replace(/^#? ?keepPreviousHours: \d+/m, 'keepPreviousHours: 0'),
    )
  }
  return {
    laptopDir,
    gapferry,
    mirrors,
    treesOf: (site) => signedTrees(join(laptopDir, 'store'), site),
  }
}

function yearMirror(t: Teardown, args: Pick<YearMirror, 'dir' | 'origins' | 'run'> & { admin: string }): YearMirror {
  const { dir, origins, run, admin } = args
  return {
    dir,
    origins,
    run,
    serve: () => {
      const ready = async (): Promise<boolean> => {
        const answer = await request(`http://${admin}/healthz`).catch(() => undefined)
        await answer?.body.dump()
        return answer?.statusCode === 200
      }
      return start(t, process.execPath, [join(PROJECT, 'server/main.ts'), 'serve'], { cwd: dir, ready })
    },
    servedNumber: async () => {
      const { body } = await request(`http://${admin}/api/v1/status`)
      const { bundle } = (await body.json()) as { bundle: number | { number: number } }
      return typeof bundle === 'number' ? bundle : bundle.number
    },
    fetch: async (group, path) => {
      const { statusCode, body } = await request(`${origins[group]}/${path}`)
      const bytes = Buffer.from(await body.arrayBuffer())
      return { status: statusCode, sha256: sha256Of(bytes), text: bytes.toString() }
    },
  }
}

function signedTrees(storeDir: string, site: string): Trees {
  const ledger = new Ledger(join(storeDir, 'ledger.db'))
  try {
    const { trees } = ledger.lastBundle(site)!
    const current = [...trees].filter(([target]) => target.endsWith('/current'))
    const store = new BlobStore(storeDir)
    return new Map(
      current.map(([target, sha256]) => {
        const { entries } = parseTree(store.read(sha256, MAX_TREE_BYTES), target)
        const paths = [...entries].map(([path, entry]) => [path as string, entry.sha256] as const)
        return [target.slice(0, -'/current'.length), new Map(paths)]
      }),
    )
  } finally {
    ledger.close()
  }
}
