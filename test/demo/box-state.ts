/** What the demo's box has installed, in a file, and the inventory that gapferry-box would write of it. */
import { randomUUID } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { gunzipSync } from 'node:zlib'
import { readPackageStrictly, type StrictPackage } from '../../manifests/package-xml.ts'
import { formatRelation } from '../../manifests/rpm-version.ts'
import { inventoryText } from '../helpers/inventory-text.ts'

export interface BoxState {
  /** made once, as a box does it */
  installid: string
  /** rawname → version */
  modules: Record<string, string>
  /** NEVRAs */
  packages: string[]
}

export const BOX = 'pbx1'
const SAMPLE = resolve(import.meta.dirname, '../sample')
const REPOSITORIES = { 'sng-pkgs': 'sng7/sng7', 'sng-updates': 'os/7/updates/x86_64' }
const COMMERCIAL = ['endpoint', 'restapps']
/** Half a year without updates. */
const BEFORE: Omit<BoxState, 'installid'> = {
  modules: {
    framework: '16.0.40.4',
    core: '16.0.68.11',
    sipsettings: '16.0.20.5',
    voicemail: '16.0.35',
    backup: '16.0.64.2',
    dashboard: '16.0.18.2',
    endpoint: '16.0.58.1',
  },
  packages: [
    ...['asterisk18-18.9.0-1.sng7.x86_64', 'asterisk18-core-18.9.0-1.sng7.x86_64'],
    ...['asterisk18-voicemail-18.9.0-1.sng7.x86_64', 'asterisk-sounds-core-en-1.5-4.sng7.noarch'],
    ...['asterisk-version-switch-2.1-3.sng7.noarch', 'sangoma-pbx-2302-1.sng7.noarch', 'freepbx-16.0.33-1.sng7.noarch'],
    ...['sysadmin-16.0.19-1.sng7.noarch', 'iksemel-1.5-6.sng7.x86_64', 'php-7.4.30-1.el7.x86_64'],
    ...['php-cli-7.4.30-1.el7.x86_64', 'openssl-libs-1:1.0.2k-21.el7_9.x86_64', 'libxml2-2.9.1-6.el7.5.x86_64'],
    ...['kernel-3.10.0-1160.88.1.el7.x86_64', 'tzdata-2023c-1.el7.noarch'],
  ],
}

/** The box as it is; where there is none yet it is made, as it was half a year ago. */
export function readBox(dir: string): BoxState {
  const file = join(dir, 'installed.json')
  if (!existsSync(file)) writeBox(dir, { installid: randomUUID(), ...BEFORE })
  return JSON.parse(readFileSync(file, 'utf8')) as BoxState
}

export function writeBox(dir: string, state: BoxState): void {
  mkdirSync(dir, { recursive: true })
  const file = join(dir, 'installed.json')
  writeFileSync(`${file}.new`, `${JSON.stringify(state, null, 2)}\n`)
  renameSync(`${file}.new`, file)
}

/** Writes the inventory of what is installed, unless it says that already.
 *  @param origin  what the box has as MODULE_REPO
 *  @returns the file */
export function writeInventory(dir: string, origin: string, nowMs: number): string {
  const file = join(dir, `${BOX}.gfi`)
  const state = readBox(dir)
  const before = existsSync(file) ? readFileSync(file, 'utf8') : ''
  const writtenMs = Date.parse(/^created (.+)$/m.exec(before)?.[1] ?? '')
  const isSame = !Number.isNaN(writtenMs) && boxInventory(state, origin, writtenMs) === before
  if (!isSame) writeFileSync(file, boxInventory(state, origin, nowMs))
  return file
}

function boxInventory({ modules, packages }: BoxState, origin: string, nowMs: number): string {
  const relations = new Map<string, number>()
  const numbers = (texts: readonly string[]): string =>
    texts.map((text) => relations.get(text) ?? relations.set(text, relations.size + 1).size).join(',')
  const known = samplePackages()
  const rows = packages.map((nevra) => {
    const { row, provides, requires } = known.get(nevra)!
    const lists = [
      ['p', numbers(provides.map(formatRelation))],
      ['r', numbers(requires.map(formatRelation))],
    ] as const
    const told = lists.filter(([, list]) => list !== '').map(([letter, list]) => `${letter}=${list}`)
    return [row.name, row.epoch, row.version, row.release, row.arch, ...told].join(' ')
  })
  const ids = Object.keys(REPOSITORIES)
  return inventoryText({
    box: BOX,
    created: `${new Date(nowMs).toISOString().slice(0, 19)}Z`,
    sections: {
      'file /etc/yum.repos.d/Sangoma-Base.repo': ids.flatMap((id) => [
        ...[`[${id}]`, `name=${id}`, 'enabled=1', 'gpgcheck=0'],
        `mirrorlist=http://mirrorlist.sangoma.net/?release=$releasever&arch=$basearch&repo=${id}`,
      ]),
      settings: ['main plugins 1', ...ids.map((id) => `repository ${id}`)],
      relations: [...relations.keys()],
      packages: rows.sort(),
      freepbx: [
        `framework ${modules['framework']}`,
        ...Object.entries(modules).map(
          ([name, version]) =>
            `module ${name} ${version} enabled ${COMMERCIAL.includes(name) ? 'Commercial' : 'GPLv3+'}`,
        ),
        ...['profile brandid pbxact', 'profile phpver 7.4.33', 'profile astver 18.9.0', 'profile distro freepbxdistro'],
        'profile distrover 12.7.8-2306-1.sng7',
      ],
      readiness: [`module-repo ${origin}`, `module-repo-default ${origin}`],
    },
  })
}

export function licenseOf(rawname: string): string {
  return COMMERCIAL.includes(rawname) ? 'Commercial' : 'GPLv3+'
}

/** The sample's packages by NEVRA. */
function samplePackages(): Map<string, StrictPackage> {
  return new Map(
    Object.values(REPOSITORIES).flatMap((path) => {
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
