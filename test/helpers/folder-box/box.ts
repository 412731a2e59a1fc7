import { createHash } from 'node:crypto'
import {
  chmodSync,
  copyFileSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import SqliteDatabase from 'better-sqlite3'
import { moduleKeys, shippedKeys } from '../module-keys.ts'
import { makeRpmDatabase } from '../rpm-database.ts'
import type { PackageSpec } from '../rpm-spec.ts'
import { debian12Files } from './debian12.ts'
import { el7Files } from './el7.ts'

/** A file of a box: its text (mode 0644), or more of it. A path that ends in `/` is a folder. */
export type BoxFile = string | { text: string; mode: number } | { link: string } | { folder: true }

export interface FolderBoxSpec {
  /** 15 and 16 run on SNG7 (CentOS 7), 17 on Debian 12 */
  major: 15 | 16 | 17
  /** installed packages of an SNG7 box; default a few of the vendor's; of none there is no package database */
  packages?: readonly PackageSpec[]
  /** modules: name → version */
  modules?: Record<string, string>
  /** added to what the vendor's packages install, or instead of it */
  files?: Record<string, BoxFile>
  /** armored keys that ship with the framework, by file name (`0123456789ABCDEF.key`); default those of the tests' vendor */
  keys?: ReadonlyMap<string, string>
  /** names of files (`0123456789ABCDEF.key`) of shipped keys that the box lacks */
  without?: readonly string[]
  /** settings of FreePBX, by key: value and defaultval */
  settings?: Record<string, [value: string, defaultValue: string]>
  /** further programs (systemctl, httpd, …) that record their calls and do nothing */
  programs?: readonly string[]
}

/** A call of a stub: program and arguments; `input` is what mysql read. */
export interface StubCall {
  program: string
  args: string[]
  input: string
}

/** A box that is a folder, with stubs of its programs beside it. */
export interface FolderBox {
  /** for `--root` */
  root: string
  /** the folder of the stubs: for the beginning of PATH */
  path: string
  /** value and defaultval as they are now; undefined where there is no such setting */
  setting(key: string): [value: string, defaultValue: string] | undefined
  /** what anybody but Gapferry does: a setting is given this value */
  set(key: string, value: string, defaultValue?: string): void
  /** every call since the last `forget`, but those that only read (`mysql` with SELECT alone) when `isChange` */
  calls(of?: { isChange?: boolean }): StubCall[]
  forget(): void
  /** whether the database answers */
  database(isUp: boolean): void
  /** what `program` (systemctl, fwconsole sa …) prints and its exit status from now on */
  answer(program: string, status: number, text?: string): void
  /** runs for `fwconsole ma COMMAND…` (all but list), with MODULE_REPO in its environment: a shell script's text */
  onModuleAdmin(script: string): void
  /** every path below the root: kind, mode, owner and digest (of a link its target), to compare before and after */
  everything(): Record<string, string>
  /** writes or replaces a file */
  write(path: string, file: BoxFile): void
  read(path: string): string
}

const STUB = join(import.meta.dirname, 'stub.py')
const WEBROOT = '/var/www/html'
const USER = 'freepbxuser'
const PASSWORD = "pa'ss word"
const VENDOR = 'https://mirror.freepbx.org'
const FEEDS = 'http://www.freepbx.org/rss.xml\nhttp://feeds.feedburner.com/InsideTheAsterisk'
const FRAMEWORK = { 15: '15.0.37.3', 16: '16.0.40.11', 17: '17.0.19.29' }
const PACKAGES: PackageSpec[] = [
  {
    name: 'sangoma-release',
    version: '7',
    release: '9',
    provides: ['system-release(releasever) = 7', 'centos-release = 7-9'],
  },
  { name: 'yum', version: '3.4.3', release: '168.el7' },
  { name: 'sangoma-pbx', version: '2204', release: '1.sng7' },
  { name: 'bash', version: '4.2.46', release: '34.el7', arch: 'x86_64' },
]

/** Makes a box of this major below `dir`: `root/` is the box's system with the files of the vendor's packages, `bin/` holds
 *  fwconsole, mysql and the other programs, `state.sqlite` what these know. The caller removes `dir`. */
export async function makeFolderBox(dir: string, spec: FolderBoxSpec): Promise<FolderBox> {
  const root = join(dir, 'root')
  const keys = new Map(spec.keys ?? shippedKeys(await moduleKeys(), spec.major))
  for (const name of spec.without ?? []) keys.delete(name)
  const modules = { framework: FRAMEWORK[spec.major], core: `${spec.major}.0.10`, ...spec.modules }
  const files: Record<string, BoxFile> = {
    ...commonFiles(),
    ...(spec.major === 17 ? debian12Files() : el7Files(spec.major)),
    ...named([...keys], (name) => `${WEBROOT}/admin/libraries/BMO/${name}`),
    ...named(Object.entries(modules).map(moduleXml), (name) => `${WEBROOT}/admin/modules/${name}/module.xml`),
    ...spec.files,
  }
  const packages = spec.packages ?? PACKAGES
  if (spec.major !== 17 && packages.length > 0) await makeRpmDatabase(root, packages)
  for (const [path, file] of Object.entries(files)) write(root, path, file)
  makeStubs(dir, ['fwconsole', 'mysql', ...(spec.programs ?? [])])
  makeState(dir, spec, modules)
  return openFolderBox(dir)
}

/** A box that was made in `dir` before. */
export function openFolderBox(dir: string): FolderBox {
  return boxIn(dir, join(dir, 'root'))
}

function commonFiles(): Record<string, BoxFile> {
  return {
    '/etc/machine-id': '0123456789abcdef0123456789abcdef\n',
    '/etc/hosts': '127.0.0.1   localhost localhost.localdomain\n::1         localhost localhost.localdomain\n',
    '/etc/resolv.conf': 'nameserver 127.0.0.1\n',
    '/etc/freepbx.conf': { text: freepbxConf(), mode: 0o640 },
    '/etc/amportal.conf': '# this file is no longer used\n',
    '/usr/local/sbin/': { folder: true },
    [`${WEBROOT}/admin/libraries/BMO/signatures/`]: { folder: true },
    [`${WEBROOT}/admin/modules/_cache/`]: { folder: true },
    '/var/lib/asterisk/.gnupg/': { folder: true },
  }
}

function freepbxConf(): string {
  const conf = {
    AMPDBUSER: USER,
    AMPDBPASS: PASSWORD,
    AMPDBHOST: 'localhost',
    AMPDBNAME: 'asterisk',
    AMPDBENGINE: 'mysql',
  }
  const lines = Object.entries(conf).map(([key, value]) => `$amp_conf["${key}"] = "${value}";`)
  return `<?php\n${lines.join('\n')}\n$amp_conf["datasource"] = "";\nrequire_once("${WEBROOT}/admin/bootstrap.php");\n?>\n`
}

function moduleXml([name, version]: [string, string]): [string, string] {
  return [
    name,
    `<module>\n  <rawname>${name}</rawname>\n  <version>${version}</version>\n  <license>GPLv3+</license>\n</module>\n`,
  ]
}

function named(entries: [string, string][], path: (name: string) => string): Record<string, string> {
  return Object.fromEntries(entries.map(([name, text]) => [path(name), text]))
}

function makeStubs(dir: string, programs: string[]): void {
  for (const folder of ['bin', 'answers', 'hooks']) mkdirSync(join(dir, folder), { recursive: true })
  for (const program of programs) {
    copyFileSync(STUB, join(dir, 'bin', program))
    chmodSync(join(dir, 'bin', program), 0o755)
  }
}

const TABLES = `
  CREATE TABLE calls (program TEXT, arguments TEXT, input TEXT);
  CREATE TABLE facts (key TEXT PRIMARY KEY, value TEXT);
  CREATE TABLE freepbx_settings (keyword TEXT PRIMARY KEY COLLATE NOCASE, value TEXT, defaultval TEXT, readonly INTEGER, hidden INTEGER);
  CREATE TABLE admin (variable TEXT PRIMARY KEY, value TEXT);
  CREATE TABLE modules (id INTEGER PRIMARY KEY, modulename TEXT, version TEXT, enabled INTEGER, signature TEXT);
  CREATE TABLE module_xml (id TEXT PRIMARY KEY, time INTEGER, data TEXT);
  CREATE TABLE users (extension TEXT PRIMARY KEY, name TEXT);
  CREATE TABLE soundlang_packages (id INTEGER PRIMARY KEY, type TEXT, module TEXT, language TEXT, format TEXT, version TEXT, installed TEXT);
  INSERT INTO users VALUES ('100', 'a'), ('101', 'b'), ('102', 'c');
  INSERT INTO module_xml VALUES ('installid', 0, '6ee2a3ba-2f3c-4a29-a9e0-4c9e2a1b0001'), ('repos_json', 0, '{"standard":1,"commercial":1}');
`

function makeState(dir: string, spec: FolderBoxSpec, modules: Record<string, string>): void {
  const settings: Record<string, [string, string]> = {
    AMPWEBROOT: [WEBROOT, WEBROOT],
    MODULE_REPO: [VENDOR, VENDOR],
    RSSFEEDS: [FEEDS, FEEDS],
    BROWSER_STATS: ['1', '1'],
    SIGNATURECHECK: ['1', '1'],
    MODULEADMINEDGE: ['0', '0'],
    PROXY_ENABLED: ['0', '0'],
    PROXY_ADDRESS: ['', ''],
    AUTOMODULEUPDATES: ['enabled', 'enabled'],
    AUTOSECURITYUPDATES: ['enabled', 'enabled'],
    AUTOSYSTEMUPDATES: ['emailonly', 'emailonly'],
    ...spec.settings,
  }
  inState(dir, (db) => {
    db.exec(TABLES)
    const fact = db.prepare('INSERT INTO facts VALUES (?, ?)')
    for (const row of [
      ['mysql user', USER],
      ['mysql password', PASSWORD],
    ])
      fact.run(...row)
    db.prepare('INSERT INTO admin VALUES (?, ?)').run('version', modules['framework'])
    const module = db.prepare('INSERT INTO modules (modulename, version, enabled) VALUES (?, ?, 1)')
    for (const row of Object.entries(modules)) module.run(...row)
    const setting = db.prepare('INSERT INTO freepbx_settings VALUES (?, ?, ?, ?, 1)')
    for (const [key, row] of Object.entries(settings)) setting.run(key, ...row, key === 'MODULE_REPO' ? 1 : 0)
  })
}

function boxIn(dir: string, root: string): FolderBox {
  return {
    root,
    path: join(dir, 'bin'),
    setting: (key) =>
      inState(dir, (db) => {
        const row = db.prepare('SELECT value, defaultval FROM freepbx_settings WHERE keyword = ?').raw().get(key)
        return row as [string, string] | undefined
      }),
    set: (key, value, defaultValue) =>
      inState(dir, (db) => {
        const change = db.prepare(
          'UPDATE freepbx_settings SET value = ?, defaultval = coalesce(?, defaultval) WHERE keyword = ?',
        )
        change.run(value, defaultValue ?? null, key)
      }),
    calls: ({ isChange = false } = {}) => callsIn(dir).filter((call) => !isChange || !isReading(call)),
    forget: () => inState(dir, (db) => db.exec('DELETE FROM calls')),
    database: (isUp) =>
      inState(dir, (db) => db.prepare("INSERT OR REPLACE INTO facts VALUES ('mysql down', ?)").run(isUp ? '' : '1')),
    answer: (program, status, text = '') => writeFileSync(join(dir, 'answers', program), `${status}\n${text}`),
    onModuleAdmin: (script) => writeFileSync(join(dir, 'hooks/ma'), `#!/bin/sh\n${script}\n`, { mode: 0o755 }),
    everything: () => everythingIn(root),
    write: (path, file) => write(root, path, file),
    read: (path) => readFileSync(join(root, path), 'utf8'),
  }
}

function inState<T>(dir: string, work: (db: SqliteDatabase.Database) => T): T {
  const db = new SqliteDatabase(join(dir, 'state.sqlite'))
  try {
    return work(db)
  } finally {
    db.close()
  }
}

function callsIn(dir: string): StubCall[] {
  const rows = inState(dir, (db) => db.prepare('SELECT program, arguments, input FROM calls ORDER BY rowid').all())
  return (rows as { program: string; arguments: string; input: string }[]).map((row) => {
    return { program: row.program, args: JSON.parse(row.arguments) as string[], input: row.input }
  })
}

function isReading({ program, args, input }: StubCall): boolean {
  if (program === 'fwconsole')
    return (args[0] === 'setting' && args.length < 3) || (args[0] === 'ma' && args[1] === 'list')
  return program === 'mysql' && !/\b(?:UPDATE|INSERT|DELETE|REPLACE|ALTER|DROP)\b/i.test([...args, input].join(' '))
}

function write(root: string, path: string, file: BoxFile): void {
  const target = join(root, path)
  if (typeof file === 'object' && 'folder' in file) {
    mkdirSync(target, { recursive: true })
    return
  }
  mkdirSync(dirname(target), { recursive: true })
  rmSync(target, { force: true })
  if (typeof file === 'object' && 'link' in file) symlinkSync(file.link, target)
  else writeFileSync(target, typeof file === 'string' ? file : file.text)
  if (typeof file === 'string') chmodSync(target, 0o644)
  else if ('text' in file) chmodSync(target, file.mode)
}

/** But rpm's own database, of which a reader makes shared memory beside it. */
function everythingIn(root: string): Record<string, string> {
  const names = readdirSync(root, { recursive: true, encoding: 'utf8' }).filter(
    (name) => !name.startsWith('var/lib/rpm/'),
  )
  const rows = names.sort().map((name): [string, string] => {
    const path = join(root, name)
    const stat = lstatSync(path)
    const owner = `${(stat.mode & 0o7777).toString(8)} ${stat.uid}:${stat.gid}`
    if (stat.isSymbolicLink()) return [name, `link ${readlinkSync(path)}`]
    if (stat.isDirectory()) return [name, `folder ${owner}`]
    return [name, `file ${owner} ${createHash('sha256').update(readFileSync(path)).digest('hex')}`]
  })
  return Object.fromEntries(rows)
}
