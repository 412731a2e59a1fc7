import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createServer, type AddressInfo } from 'node:net'
import { join, resolve } from 'node:path'
import { request } from 'undici'
import { fingerprintWords } from '../../manifests/words.ts'
import { must, run, start, type Outcome, type Running, type Teardown } from './process.ts'

const PROJECT = resolve(import.meta.dirname, '../..')

/** One site with everything that is ours on both sides of the gap, as the real programs: a laptop, a stick, a mirror with
 *  an origin for each group. Everything lies below one folder. */
export interface Gap {
  site: string
  group: string
  dir: string
  laptopDir: string
  stickDir: string
  mirrorDir: string
  /** `http://127.0.0.1:PORT`, as the boxes are told; listened on once `serve` was called */
  origin: string
  /** of every group, the first one too */
  origins: Record<string, string>
  admin: string
  rootFile: string
  /** `gapferry …` in the laptop's folder */
  gapferry(...args: string[]): Promise<Outcome>
  /** `gapferry-mirror …` in the mirror's folder */
  mirror(...args: string[]): Promise<Outcome>
  /** Settings of a group's upstreams (YAML flow or block, indented by the caller from column 0); the first group's unless
   *  another is named. */
  settings(text: string, group?: string): void
  /** `gapferry bundle`; rejects unless it ends with 0. @returns the parts written, in order */
  bundle(...args: string[]): Promise<{ number: number; isNew: boolean; files: string[] }>
  /** `gapferry-mirror import --release`; rejects unless it ends with 0 */
  deliver(...args: string[]): Promise<void>
  /** Starts the mirror and waits until it serves, or, where nothing was released, until it answers; ended in teardown. */
  serve(options?: { isEmpty?: boolean }): Promise<Running>
  /** A path of an origin, the first group's unless another is named; rejects unless the answer is 200. */
  fetch(path: string, group?: string): Promise<Buffer>
}

/** @param dir  an empty folder, removed by the caller
 *  @param yum  the group's `yum:`, `files:` and `modules:` settings, YAML from column 0
 *  @param options.more    further groups with theirs
 *  @param options.listen  HOST:PORT of the first group's origin, default a free port; its boxes are told the same */
export async function makeGap(
  t: Teardown,
  dir: string,
  yum: string,
  options: { site?: string; group?: string; more?: Record<string, string>; listen?: string } = {},
): Promise<Gap> {
  const { site = 'hq', group = 'pbxact16' } = options
  const settings = new Map([[group, yum], ...Object.entries(options.more ?? {})])
  const [adminPort, ...ports] = await freePorts(settings.size + 1)
  const names = [...settings.keys()]
  const places = names.map((name, i) => (name === group && options.listen) || `127.0.0.1:${ports[i]}`)
  const origins = Object.fromEntries(names.map((name, i) => [name, new URL(`http://${places[i]}`).origin]))
  const [laptopDir, stickDir, mirrorDir] = ['laptop', 'stick', 'mirror'].map((name) => join(dir, name)) as [
    string,
    string,
    string,
  ]
  for (const folder of [laptopDir, stickDir, mirrorDir]) mkdirSync(folder, { recursive: true })
  const program = (main: string, cwd: string) => (args: string[]) =>
    run(process.execPath, [join(PROJECT, main), ...args], { cwd, env: { no_proxy: '*' } })
  const gapferry = program('bundler/main.ts', laptopDir)
  const mirror = program('server/main.ts', mirrorDir)
  const writeSettings = (): void => {
    writeFileSync(join(laptopDir, 'gapferry.yaml'), settingsText(site, settings, origins))
  }
  const admin = `http://127.0.0.1:${adminPort}`
  const gap: Gap = {
    site,
    group,
    dir,
    laptopDir,
    stickDir,
    mirrorDir,
    origin: origins[group]!,
    origins,
    admin,
    rootFile: join(laptopDir, 'keys', site, '1.root.json'),
    gapferry: (...args) => gapferry(args),
    mirror: (...args) => mirror(args),
    settings: (text, of = group) => {
      settings.set(of, text)
      writeSettings()
    },
    bundle: async (...args) => {
      const { stdout } = must(await gapferry(['bundle', '--to', stickDir, '--json', ...args]))
      const [bundle] = (
        JSON.parse(stdout) as { bundles: { number: number; isNew: boolean; files: { path: string }[] }[] }
      ).bundles
      return { ...bundle!, files: bundle!.files.map((file) => file.path) }
    },
    deliver: async (...args) =>
      void must(await mirror(['import', '--release', ...(args.length > 0 ? args : [stickDir])])),
    serve: ({ isEmpty = false } = {}) => serve(t, mirrorDir, admin, isEmpty ? 503 : 200),
    fetch: async (path, of = group) => {
      const { statusCode, body } = await request(`${origins[of]}/${path}`)
      const bytes = Buffer.from(await body.arrayBuffer())
      if (statusCode !== 200) throw new Error(`${path}: ${statusCode} ${bytes.toString()}`)
      return bytes
    },
  }
  writeSettings()
  must(await gapferry(['init', '.', '--no-passphrase']))
  must(
    await mirror([
      ...['init', '.', '--trust', gap.rootFile, '--fingerprint', fingerprintWords(readFileSync(gap.rootFile))],
      ...['--admin', `127.0.0.1:${adminPort}`],
      ...names.flatMap((name, i) => ['--origin', `${name}=${places[i]}`]),
    ]),
  )
  return gap
}

/** All files below a folder with their bytes, to see that nothing changed. */
export function snapshot(folder: string): Map<string, string> {
  const names = readdirSync(folder, { recursive: true, withFileTypes: true })
  const files = names.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name))
  return new Map(files.sort().map((file) => [file.slice(folder.length + 1), readFileSync(file, 'base64')]))
}

/** Free ports of loopback. Another process could take one in between; nothing on a test machine does. */
export async function freePorts(count: number): Promise<number[]> {
  const servers = await Promise.all(
    Array.from({ length: count }, () => {
      const server = createServer()
      return new Promise<typeof server>((done) => server.listen(0, '127.0.0.1', () => done(server)))
    }),
  )
  const ports = servers.map((server) => (server.address() as AddressInfo).port)
  await Promise.all(servers.map((server) => new Promise((done) => server.close(done))))
  return ports
}

async function serve(t: Teardown, cwd: string, admin: string, status: number): Promise<Running> {
  const ready = async (): Promise<boolean> => {
    const answer = await request(`${admin}/healthz`).catch(() => undefined)
    await answer?.body.dump()
    return answer?.statusCode === status
  }
  return start(t, process.execPath, [join(PROJECT, 'server/main.ts'), 'serve'], { cwd, ready })
}

function settingsText(site: string, settings: Map<string, string>, origins: Record<string, string>): string {
  const groups = [...settings].map(([group, text]) => {
    return `      - name: ${group}\n        origin: ${origins[group]}\n${text.replace(/^(?=.)/gm, '        ')}\n`
  })
  return `apiVersion: gapferry/v1
kind: Fleet
sites:
  - name: ${site}
    groups:
${groups.join('')}`
}
