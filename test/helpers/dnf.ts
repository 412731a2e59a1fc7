import { mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { mustRun, run } from './process.ts'
import type { Outcome } from './process.ts'

/** One line of a transaction: `Upgrade`, `Install`, `Upgraded` (the version that goes) … with the package's NEVRA. */
export interface TransactionItem {
  action: string
  nevra: string
}

/** How a client is set up, besides its repositories. */
export interface DnfOptions {
  /** Repository files as a box has them in /etc/yum.repos.d: file name → text. May be changed later with `repoFile`. */
  repoFiles?: Record<string, string>
  /** Key files at their place on the box, below /etc: absolute path → armored text. See `keyFile`. */
  keyFiles?: Record<string, string>
  /** Default 7. */
  releasever?: string
  /** Default false, as on a box; true makes a newest version that cannot be installed an error. */
  best?: boolean
  /** Default true, as dnf has it; yum on EL7 knows none. */
  weakDependencies?: boolean
  /** Default true; false as in the vendor's own configuration, which looks for no signature of metadata. */
  repoGpgcheck?: boolean
  /** Lines of the versionlock plugin's list, which is loaded when there are some. */
  versionLocks?: readonly string[]
}

const DATABASE = '/var/lib/rpm'

/** A real dnf 4 with everything of its own below one folder: installroot, configuration, cache, rpm database, home. Its
 *  `gpgcheck` and `repo_gpgcheck` default to 1 as in the .repo files we serve; a repository file may say otherwise.
 *  No plugins; no network but loopback. It needs root, or user namespaces. Scripts of packages are not run: test packages
 *  have none. Commands resolve with status, stdout and stderr whatever the status; only `pending` and `installed` reject. */
export class DnfClient {
  readonly dir: string
  readonly root: string
  private readonly options: DnfOptions

  /** @param dir  made when absent; the caller removes it */
  constructor(dir: string, options: DnfOptions = {}) {
    this.dir = dir
    this.root = join(dir, 'root')
    this.options = options
    for (const folder of ['root', 'home', 'etc/vars', 'etc/yum.repos.d', 'tmp']) {
      mkdirSync(join(dir, folder), { recursive: true })
    }
    // Debian's rpm keeps its database in the home folder of whoever calls it
    writeFileSync(join(dir, 'home/.rpmmacros'), `%_dbpath ${DATABASE}\n`)
    writeFileSync(this.config, configText(dir, options))
    if (options.versionLocks !== undefined) lockVersions(dir, options.versionLocks)
    for (const [path, text] of Object.entries(options.keyFiles ?? {})) this.keyFile(path, text)
    for (const [name, text] of Object.entries(options.repoFiles ?? {})) this.repoFile(name, text)
  }

  /** Puts `text` at /etc/yum.repos.d/`name`, or takes the file away. */
  repoFile(name: string, text: string | undefined): void {
    const file = join(this.dir, 'etc/yum.repos.d', basename(name))
    if (text === undefined) rmSync(file, { force: true })
    else writeFileSync(file, this.withKeyPaths(text))
  }

  /** Puts a key (armored) where a repository file's `gpgkey=file:///etc/…` looks for it. (dnf would take such a path from
   *  the host, not from its installroot; in the files written by `repoFile` it is made to mean the box's.) */
  keyFile(path: string, armored: string): void {
    mkdirSync(dirname(join(this.root, path)), { recursive: true })
    writeFileSync(join(this.root, path), armored)
  }

  /** Sets an option of one repository in whichever file has it. */
  option(id: string, name: string, value: string): void {
    const folder = join(this.dir, 'etc/yum.repos.d')
    for (const file of readdirSync(folder)) {
      const text = readFileSync(join(folder, file), 'utf8')
      const lines = text.split('\n').filter((line) => !line.startsWith(`${name}=`))
      const at = lines.indexOf(`[${id}]`)
      if (at >= 0) writeFileSync(join(folder, file), lines.toSpliced(at + 1, 0, `${name}=${value}`).join('\n'))
    }
  }

  /** Sets a variable of /etc/yum/vars. */
  variable(name: string, value: string): void {
    writeFileSync(join(this.dir, 'etc/vars', name), `${value}\n`)
  }

  /** Any dnf command: `dnf(['check-update'])`. Never asks; stdin is empty. */
  async dnf(args: readonly string[]): Promise<Outcome> {
    const common = ['-c', this.config, `--installroot=${this.root}`, `--releasever=${this.releasever}`]
    return this.system('dnf', [...common, '--forcearch=x86_64', ...args])
  }

  /** Fetches metadata anew and accepts the key it is told (`-y`): the first command on a new client, since dnf without
   *  the key reports no more than a bad signature. */
  async makecache(): Promise<Outcome> {
    return this.dnf(['-y', '--refresh', 'makecache'])
  }

  /** Installs packages by any name dnf knows: `asterisk18-18.9.0-1.x86_64`, `asterisk18`. */
  async install(...packages: string[]): Promise<Outcome> {
    return this.dnf(['-y', 'install', ...packages])
  }

  /** Upgrades everything, or what is named, with metadata fetched anew. */
  async upgrade(...packages: string[]): Promise<Outcome> {
    return this.dnf(['-y', '--refresh', 'upgrade', ...packages])
  }

  /** What an upgrade of everything would do now, by dnf's own solver, with metadata fetched anew: empty when the box is up
   *  to date. Sorted by action, then NEVRA. Rejects with dnf's message when it cannot tell (no repository, bad signature,
   *  no solution). */
  async pending(): Promise<TransactionItem[]> {
    const script = join(import.meta.dirname, 'dnf-pending.py')
    const outcome = await this.system('/usr/bin/python3', [script, this.config, this.root, this.releasever])
    if (outcome.status !== 0) throw new Error(`${outcome.stdout}${outcome.stderr}`)
    const answer = JSON.parse(outcome.stdout.trimEnd().split('\n').at(-1)!) as Answer
    if (answer.error !== null) throw new Error(answer.error)
    return answer.items.map(([action, nevra]) => ({ action, nevra }))
  }

  /** The NEVRAs of all installed packages, sorted; an epoch of 0 is left out. */
  async installed(): Promise<string[]> {
    const format = '%{NAME}-%|EPOCH?{%{EPOCH}:}|%{VERSION}-%{RELEASE}.%{ARCH}\\n'
    const args = ['--root', this.root, '--dbpath', DATABASE, '-qa', '--qf', format]
    const { stdout } = await mustRun('rpm', args, { env: { HOME: join(this.dir, 'home') } })
    const lines = stdout.split('\n').filter((line) => line !== '' && !line.startsWith('gpg-pubkey-'))
    return lines.map((line) => line.replace(/-0:/, '-')).sort()
  }

  private get config(): string {
    return join(this.dir, 'etc/dnf.conf')
  }

  private get releasever(): string {
    return this.options.releasever ?? '7'
  }

  private async system(command: string, args: readonly string[]): Promise<Outcome> {
    const asRoot = process.getuid?.() === 0 ? [command] : ['unshare', '--map-root-user', command]
    const env = { HOME: join(this.dir, 'home'), TMPDIR: join(this.dir, 'tmp') }
    return run(asRoot[0]!, [...asRoot.slice(1), ...args], { env, cwd: this.dir })
  }

  private withKeyPaths(text: string): string {
    return text.replaceAll('file:///etc/', `file://${this.root}/etc/`)
  }
}

/** A repository file with one repository. `gpgkey` is a URL; without it nothing is checked, as Sangoma's own files have
 *  it. `checkPackages: false` checks repomd.xml alone. */
export function repoFileText(repo: { id: string; url: string; gpgkey?: string; checkPackages?: boolean }): string {
  const checks = { metadata: repo.gpgkey === undefined ? 0 : 1, packages: repo.gpgkey === undefined ? 0 : 1 }
  if (repo.checkPackages === false) checks.packages = 0
  return [
    `[${repo.id}]`,
    `name=${repo.id}`,
    `baseurl=${repo.url}`,
    'enabled=1',
    `repo_gpgcheck=${checks.metadata}`,
    `gpgcheck=${checks.packages}`,
    ...(repo.gpgkey === undefined ? [] : [`gpgkey=${repo.gpgkey}`]),
    '',
  ].join('\n')
}

/** The plugin alone: others would do things of their own. */
function lockVersions(dir: string, lines: readonly string[]): void {
  const [plugins, settings] = [join(dir, 'etc/dnf/plugin-path'), join(dir, 'etc/dnf/plugins')]
  for (const folder of [plugins, settings]) mkdirSync(folder, { recursive: true })
  symlinkSync('/usr/lib/python3/dist-packages/dnf-plugins/versionlock.py', join(plugins, 'versionlock.py'))
  const list = join(settings, 'versionlock.list')
  writeFileSync(list, lines.map((line) => `${line}\n`).join(''))
  writeFileSync(join(settings, 'versionlock.conf'), `[main]\nenabled = 1\nlocklist = ${list}\n`)
}

interface Answer {
  error: string | null
  items: [string, string][]
}

function configText(dir: string, options: DnfOptions): string {
  const settings = {
    gpgcheck: 1,
    repo_gpgcheck: options.repoGpgcheck === false ? 0 : 1,
    best: options.best === true ? 1 : 0,
    install_weak_deps: options.weakDependencies === false ? 0 : 1,
    installonly_limit: 3,
    clean_requirements_on_remove: 0,
    skip_if_unavailable: 0,
    plugins: options.versionLocks === undefined ? 0 : 1,
    pluginpath: join(dir, 'etc/dnf/plugin-path'),
    pluginconfpath: join(dir, 'etc/dnf/plugins'),
    zchunk: 0,
    module_platform_id: 'platform:el7',
    reposdir: join(dir, 'etc/yum.repos.d'),
    varsdir: join(dir, 'etc/vars'),
    // these three are below the installroot
    cachedir: '/var/cache/dnf',
    persistdir: '/var/lib/dnf',
    logdir: '/var/log',
    metadata_expire: 0,
    retries: 1,
    timeout: 10,
  }
  return ['[main]', ...Object.entries(settings).map(([name, value]) => `${name}=${value}`), ''].join('\n')
}
