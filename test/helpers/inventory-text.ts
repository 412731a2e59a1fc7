import { createHash } from 'node:crypto'

/** What an inventory says, section by section; the defaults are a small yum box with two packages. */
export interface InventoryParts {
  box?: string
  created?: string
  manager?: string
  tool?: string
  /** none where it is left out */
  machine?: string
  /** section with its argument (`file /etc/yum.conf`) → lines; undefined takes a section of the defaults away */
  sections?: Record<string, string[] | undefined>
}

const DEFAULTS: Record<string, string[]> = {
  'file /etc/redhat-release': ['CentOS Linux release 7.9.2009 (Core)'],
  'file /etc/yum.conf': ['[main]', 'plugins=1'],
  settings: ['main plugins 1'],
  plugins: [],
  relations: ['bash = 4.2-35.el7', '/bin/sh', 'glibc = 2.17-326.el7', 'glibc >= 2.0'],
  packages: ['bash 0 4.2 35.el7 x86_64 p=1 r=4', 'glibc 0 2.17 326.el7 x86_64 p=3 r=2'],
  'rpm-keys': [],
  readiness: [],
}

/** The file that gapferry-box would write of this, with its last line. */
export function inventoryText(parts: InventoryParts = {}): string {
  const { box = 'pbx1', created = '2026-11-22T08:00:00Z', manager = 'yum', tool = '0.1.0', machine } = parts
  const facts = [
    `box ${box}`,
    `created ${created}`,
    `tool ${tool}`,
    'arch x86_64',
    'kernel 3.10.0',
    `manager ${manager}`,
    ...(machine === undefined ? [] : [`machine ${machine}`]),
  ]
  const sections = Object.entries({ box: facts, ...DEFAULTS, ...parts.sections })
  const lines = sections.flatMap(([name, own]) => {
    if (own === undefined) return []
    const [word, argument] = name.split(' ')
    return [`section ${word} ${own.length}${argument === undefined ? '' : ` ${argument}`}`, ...own]
  })
  return sealed(['gapferry-inventory 1', ...lines])
}

/** Lines with the last line that fits them. */
export function sealed(lines: readonly string[]): string {
  const body = lines.map((line) => `${line}\n`).join('')
  return `${body}end ${lines.length} ${createHash('sha256').update(body, 'latin1').digest('hex')}\n`
}
