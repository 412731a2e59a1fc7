/**
 * The demo's box, a folder: the files of an SNG7 system, the settings and modules that its fwconsole knows, and what its rpm
 * would list. Its programs are stubs, so that it needs no phone system; what gapferry-box does to it is real.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { gunzipSync } from 'node:zlib'
import SqliteDatabase from 'better-sqlite3'
import { readKey } from 'openpgp'
import { readPackageStrictly, type StrictPackage } from '../../manifests/package-xml.ts'
import { formatRelation, type Relation } from '../../manifests/rpm-version.ts'
import { makeFolderBox, openFolderBox, type FolderBox } from '../helpers/folder-box/box.ts'
import { DEPLOYMENT, sampleLicense } from './sample-license.ts'

export const BOX = 'pbx1'
export const MODULES_FOLDER = '/var/www/html/admin/modules'
export const KEYS_FOLDER = '/var/www/html/admin/libraries/BMO'
const SAMPLE = resolve(import.meta.dirname, '../sample')
const REPOSITORIES = ['sng7/sng7', 'os/7/updates/x86_64']
/** Half a year without updates. */
const MODULES: Record<string, string> = {
  framework: '16.0.40.4',
  core: '16.0.68.11',
  sipsettings: '16.0.20.5',
  voicemail: '16.0.35',
  backup: '16.0.64.2',
  dashboard: '16.0.18.2',
  endpoint: '16.0.58.1',
}
const PACKAGES = [
  ...['asterisk18-18.9.0-1.sng7.x86_64', 'asterisk18-core-18.9.0-1.sng7.x86_64'],
  ...['asterisk18-voicemail-18.9.0-1.sng7.x86_64', 'asterisk-sounds-core-en-1.5-4.sng7.noarch'],
  ...['asterisk-version-switch-2.1-3.sng7.noarch', 'sangoma-pbx-2302-1.sng7.noarch', 'freepbx-16.0.33-1.sng7.noarch'],
  ...['sysadmin-16.0.19-1.sng7.noarch', 'iksemel-1.5-6.sng7.x86_64', 'php-7.4.30-1.el7.x86_64'],
  ...['php-cli-7.4.30-1.el7.x86_64', 'openssl-libs-1:1.0.2k-21.el7_9.x86_64', 'libxml2-2.9.1-6.el7.5.x86_64'],
  ...['kernel-3.10.0-1160.88.1.el7.x86_64', 'tzdata-2023c-1.el7.noarch'],
]
const COMMERCIAL = ['endpoint', 'restapps']
/** What is left of the license that it has. */
const LICENSE_DAYS = 20
/** Programs that say what they would say on such a box, and do nothing. */
const PROGRAMS: Record<string, string> = {
  rpm: `case " $* " in *' -qa '*) cat "\${0%/*}/../rpm.txt" ;; esac`,
  php: 'echo "PHP 7.4.33 (cli)"',
  asterisk: 'echo "Asterisk 18.9.0"',
  systemctl: 'case $* in is-active*httpd) exit 0 ;; is-active*) exit 3 ;; esac',
  logger: 'exit 0',
  uname: `case $* in -n) echo ${BOX} ;; -r) echo 3.10.0-1160.88.1.el7.x86_64 ;; *) exec /bin/uname "$@" ;; esac`,
}

/** The box as it is; where there is none yet it is made, as it was half a year ago.
 *  @param vendorKey  armored: whose signature its modules must have */
export async function openBox(dir: string, vendorKey: string, nowMs: number): Promise<FolderBox> {
  if (!existsSync(join(dir, 'root'))) await makeBox(dir, vendorKey, nowMs)
  return openFolderBox(dir)
}

async function makeBox(dir: string, vendorKey: string, nowMs: number): Promise<void> {
  const fresh = `${dir}.new`
  rmSync(fresh, { recursive: true, force: true })
  const { keyPacket } = await readKey({ armoredKey: vendorKey })
  const box = await makeFolderBox(fresh, {
    ...{ major: 16, modules: MODULES, packages: [] },
    keys: new Map([[`${keyPacket.getKeyID().toHex().toUpperCase()}.key`, vendorKey]]),
    files: {
      '/etc/passwd': 'root:x:0:0:root:/root:/bin/bash\n',
      '/etc/group': 'root:x:0:\n',
      '/etc/schmooze/pbxid': `${DEPLOYMENT}\n`,
      '/etc/schmooze/pbx-version': '12.7.8-2306-1.sng7\n',
      '/etc/schmooze/schmooze.zl': sampleLicense(nowMs, LICENSE_DAYS),
    },
  })
  for (const [name, text] of Object.entries(PROGRAMS)) {
    writeFileSync(join(box.path, name), `#!/bin/sh\n${text}\n`, { mode: 0o755 })
  }
  box.answer('fwconsole', 0, `Deployment ID ${DEPLOYMENT}: SAMPLE license, valid\n`)
  for (const [rawname, version] of Object.entries(MODULES)) noteModule(fresh, rawname, version)
  writePackages(fresh, PACKAGES)
  rmSync(dir, { recursive: true, force: true })
  renameSync(fresh, dir)
}

/** rawname → version */
export function installedModules(dir: string): Record<string, string> {
  const rows = inState(dir, (db) => db.prepare('SELECT modulename, version FROM modules').raw().all())
  return Object.fromEntries(rows as [string, string][])
}

/** Notes a module as fwconsole does when its files are in place. */
export function noteModule(dir: string, rawname: string, version: string): void {
  inState(dir, (db) => {
    db.prepare('DELETE FROM modules WHERE modulename = ?').run(rawname)
    db.prepare('INSERT INTO modules (modulename, version, enabled) VALUES (?, ?, 1)').run(rawname, version)
    if (rawname === 'framework') db.prepare("UPDATE admin SET value = ? WHERE variable = 'version'").run(version)
  })
  const file = join(dir, 'root', MODULES_FOLDER, rawname, 'module.xml')
  const text = readFileSync(file, 'utf8')
  writeFileSync(file, text.replace(/<license>.*?<\/license>/, `<license>${licenseOf(rawname)}</license>`))
}

export function licenseOf(rawname: string): string {
  return COMMERCIAL.includes(rawname) ? 'Commercial' : 'GPLv3+'
}

function inState<T>(dir: string, work: (db: SqliteDatabase.Database) => T): T {
  const db = new SqliteDatabase(join(dir, 'state.sqlite'))
  try {
    return work(db)
  } finally {
    db.close()
  }
}

/** NEVRAs */
export function installedPackages(dir: string): string[] {
  const rows = readFileSync(join(dir, 'rpm.txt'), 'utf8').matchAll(/^P (\S+) (\S+) (\S+) (\S+) (\S+)$/gm)
  return [...rows].map(([, name, epoch, version, release, arch]) => {
    return `${name}-${epoch === '0' ? '' : `${epoch}:`}${version}-${release}.${arch}`
  })
}

/** What rpm lists of these from now on, in the form in which gapferry-box asks for it. */
export function writePackages(dir: string, packages: readonly string[]): void {
  const known = samplePackages()
  const lines = packages.toSorted().flatMap((nevra) => {
    const { row, provides, requires } = known.get(nevra)!
    return [
      `P ${row.name} ${row.epoch} ${row.version} ${row.release} ${row.arch}`,
      ...provides.map((one) => `p ${asked(one)}`),
      ...requires.map((one) => `r ${asked(one)}`),
    ]
  })
  const file = join(dir, 'rpm.txt')
  mkdirSync(dir, { recursive: true })
  writeFileSync(`${file}.new`, `${lines.join('\n')}\n`)
  renameSync(`${file}.new`, file)
}

/** Flags, version, name; without a version two spaces. */
function asked(relation: Relation): string {
  const [name, sign = '', version = ''] = formatRelation(relation).split(' ')
  return `${sign} ${version} ${name}`
}

/** The sample's packages by NEVRA. */
function samplePackages(): Map<string, StrictPackage> {
  return new Map(
    REPOSITORIES.flatMap((path) => {
      const folder = join(SAMPLE, path, 'repodata')
      const name = readdirSync(folder).find((file) => file.endsWith('primary.xml.gz'))!
      return packagesOf(gunzipSync(readFileSync(join(folder, name)))).map((one) => [one.row.nevra, one] as const)
    }),
  )
}

/** The packages of a primary list that is small. */
export function packagesOf(primary: Buffer): StrictPackage[] {
  const elements = primary.toString().match(/<package [^]*?<\/package>/g) ?? []
  return elements.map((element) => readPackageStrictly(Buffer.from(element), 'primary'))
}
