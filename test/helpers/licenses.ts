import { createHash } from 'node:crypto'
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { inventoryText } from './inventory-text.ts'
import { makeTar } from './tar.ts'

/** What must be found nowhere: a line of a license that nobody could take for anything else. */
export const LICENSE_MARKER = 'X-Recognisable-License-Line = 5f1c9e77a2d84b06'

/** A box that was activated. */
export interface LicensedSpec {
  box: string
  deploymentId: string
  /** `sysadmin_exp`, as the vendor writes it */
  expires?: string
  product?: string
  /** SHA-256 of its machine id */
  machine?: string
}

/** The text of its license file, as vendors write them. */
export function licenseText({ deploymentId, expires = '2027-11-30', product = 'PBXact' }: LicensedSpec): string {
  return [
    `Product-Name = ${product}`,
    `deploymentid = ${deploymentId}`,
    LICENSE_MARKER,
    'hostid = H:ABCDE-12345',
    `sysadmin_exp = ${expires}`,
    'endpoint_exp = 2028-01-31 00:00:00',
    'Signature = MEUCIQ\x00\x01\xfe',
    '',
  ].join('\n')
}

/** The files of its license, by their paths. */
export function licenseFiles(spec: LicensedSpec): Map<string, Buffer> {
  return new Map([
    ['/etc/schmooze/pbxid', Buffer.from(`${spec.deploymentId}\n`)],
    ['/etc/schmooze/schmooze.zl', Buffer.from(licenseText(spec), 'latin1')],
  ])
}

/** What `gapferry-box capture` writes. @param change  of the lines of its first entry */
export function captureOf(
  spec: LicensedSpec,
  { capturedAt = '2026-11-20T10:00:00Z', change = (lines: string[]) => lines, entries = licenseFiles(spec) } = {},
): Buffer {
  const files = [...entries].map(([path, data]) => {
    const sha256 = createHash('sha256').update(data).digest('hex')
    return `file 0644 root root ${data.length} ${sha256} ${path}`
  })
  const facts = [`box ${spec.box}`, `deployment ${spec.deploymentId}`, `captured ${capturedAt}`, 'tool 0.1.0']
  const machine = spec.machine === undefined ? [] : [`machine ${spec.machine}`]
  const lines = change(['gapferry-license 1', ...facts, ...machine, ...files])
  const head = Buffer.from(`${[...lines, `end ${lines.length}`].join('\n')}\n`, 'latin1')
  return makeTar([
    { name: 'gapferry-license', bytes: head },
    ...[...entries].map(([path, bytes]) => ({ name: path.slice(1), bytes })),
  ])
}

/** Its files below a folder, as on the box. */
export function writeLicenseFolder(dir: string, spec: LicensedSpec): string {
  for (const [path, data] of licenseFiles(spec)) {
    mkdirSync(dirname(join(dir, path)), { recursive: true })
    writeFileSync(join(dir, path), data)
  }
  return dir
}

/** Its inventory. */
export function licensedInventory(spec: LicensedSpec, more: string[] = []): string {
  const path = '/etc/schmooze/schmooze.zl'
  return inventoryText({
    box: spec.box,
    sections: {
      freepbx: [
        'framework 16.0.40.11',
        'module core 16.0.68 enabled GPLv3+',
        `profile deploymentid ${spec.deploymentId}`,
        'profile brandid pbxact',
        `license ${path}`,
        `license-fact ${path} Product-Name ${spec.product ?? 'PBXact'}`,
        `license-fact ${path} deploymentid ${spec.deploymentId}`,
        ...more,
      ],
    },
  })
}

/** Files below a folder that hold one of these texts. */
export function filesWith(folder: string, texts: readonly string[]): string[] {
  const files = readdirSync(folder, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile())
  return files
    .map((entry) => join(entry.parentPath, entry.name))
    .filter((file) => {
      const bytes = readFileSync(file)
      return texts.some((text) => bytes.includes(text))
    })
}
