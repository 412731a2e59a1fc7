/**
 * The slip: what a bundle is, on paper. Plain ASCII, beside the parts; nobody has signed it, and no program reads it.
 * FORMAT.md#slip.
 */
import { partName } from '../manifests/bundle.ts'
import { formatBytes, formatTable, formatTime, plural } from '../manifests/console.ts'
import type { LicenseCount } from '../manifests/licenses.ts'
import type { SiteFacts } from '../manifests/site.ts'
import type { Tree, TreeEntry } from '../manifests/tree.ts'
import type { ToolDigests } from './box/tool.ts'
import type { PackedFile } from './pack.ts'

export interface SlipContent {
  site: string
  number: number
  createdAtMs: number
  expiresAtMs: number
  bundler: string
  facts: SiteFacts
  /** the current ones are told of */
  trees: Tree[]
  /** null where none is carried */
  licenses: LicenseCount | null
  /** twelve words */
  fingerprint: string
  /** twelve words of site.asc */
  siteKey: string
  tool: ToolDigests
}

const WORDS_PER_LINE = 4
const DIGITS_PER_GROUP = 8

/** What people call the paths of an origin, in the order of the slip. */
const KINDS: readonly [kind: string, isOne: (path: string, entry: TreeEntry) => boolean][] = [
  ['packages', (path) => path.startsWith('yum/') && !path.includes('/repodata/')],
  ['modules', (path) => path.startsWith('modules/')],
  ['sounds', (path) => path.startsWith('sounds/')],
  ['other files', (_, entry) => entry.source !== undefined],
  ['lists and keys', () => true],
]

/** `hq-7.txt` */
export function slipName(site: string, number: number): string {
  return partName({ site, number, part: 1, parts: 1 }).replace(/\.tar$/, '.txt')
}

/** @param files  all parts of the bundle */
export function renderSlip(content: SlipContent, files: readonly PackedFile[]): Buffer {
  const { site, number, createdAtMs, expiresAtMs, bundler } = content
  const title = `bundle ${number} for site ${site}`
  const total = files.reduce((sum, { bytes }) => sum + bytes, 0)
  const head = [
    ['made', `${formatTime(createdAtMs)} by ${bundler}`],
    ['good until', formatTime(expiresAtMs)],
    ['size', `${plural(files.length, 'part')}, ${formatBytes(total)}`],
  ]
  const lines = [
    title,
    '='.repeat(title.length),
    '',
    formatTable(head),
    '',
    ...contents(content),
    ...licenseLines(content),
    'parts, with their SHA-256',
    ...files.flatMap(partLines),
    '',
    'fingerprint of the root',
    ...wordLines(content.fingerprint),
    '',
    'Compare the twelve words with those that "gapferry-mirror status" shows at the',
    'site. This paper is signed by nobody: what counts is what the mirror verifies.',
    'At the mirror: gapferry-mirror import DIR, where DIR is the mounted stick.',
    '',
    'the site key: "gapferry-box setup" on a box asks for these words',
    ...wordLines(content.siteKey),
    '',
    'gapferry-box on the stick: what "sha256sum gapferry-box" says, and in words',
    ...digestLines(content.tool.sha256),
    ...wordLines(content.tool.words),
  ]
  return Buffer.from(`${lines.map((line) => line.trimEnd()).join('\n')}\n`)
}

function contents({ facts, trees }: SlipContent): string[] {
  return trees
    .filter(({ role }) => role === 'current')
    .sort((a, b) => (a.group < b.group ? -1 : 1))
    .flatMap(({ group, entries }) => [
      `group ${group}, ${facts.groups.get(group)?.origin ?? ''}`,
      formatTable(kindRows(entries), { indent: '  ', right: [1, 2] }),
      '',
    ])
}

/** How many, and never whose. */
function licenseLines({ licenses }: SlipContent): string[] {
  if (licenses === null) return []
  const { count, bytes } = licenses
  return ['licenses of boxes, sealed', `  ${plural(count, 'license')}, ${formatBytes(bytes)}`, '']
}

/** A blob that answers several paths counts once. */
function kindRows(entries: Tree['entries']): string[][] {
  const kinds = Map.groupBy(entries, ([path, entry]) => KINDS.find(([, isOne]) => isOne(path, entry))![0])
  return KINDS.flatMap(([kind]) => {
    const rows = kinds.get(kind)
    if (rows === undefined) return []
    const blobs = new Map(rows.map(([, { sha256, bytes }]) => [sha256, bytes]))
    return [[kind, String(rows.length), formatBytes([...blobs.values()].reduce((sum, bytes) => sum + bytes, 0))]]
  })
}

function partLines({ name, bytes, sha256 }: PackedFile): string[] {
  return [`  ${name}  ${bytes} bytes`, ...digestLines(sha256)]
}

function digestLines(sha256: string): string[] {
  const groups = sha256.match(new RegExp(`.{${DIGITS_PER_GROUP}}`, 'g')) ?? []
  return [`    ${groups.slice(0, 4).join(' ')}`, `    ${groups.slice(4).join(' ')}`]
}

function wordLines(words: string): string[] {
  const rows = words.split(' ').map((word, index) => `${String(index + 1).padStart(2)} ${word}`)
  const lines: string[][] = []
  for (let at = 0; at < rows.length; at += WORDS_PER_LINE) lines.push(rows.slice(at, at + WORDS_PER_LINE))
  return [formatTable(lines, { indent: '  ' })]
}
