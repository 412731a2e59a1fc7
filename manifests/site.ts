/**
 * The site facts: what a mirror must know of its site beside the trees, target `site` of every bundle. Canonical JSON,
 * signed through its digest like a tree. FORMAT.md#site.
 */
import * as v from 'valibot'
import { describeFault, dictionary, distinct, strictObject } from './document.ts'
import { GapferryError, isGapferryError } from './errors.ts'
import { canonicalJson } from './json.ts'
import { parseTreePath, type TreePath } from './path.ts'
import { parseName } from './tree.ts'

export interface SiteFacts {
  site: string
  /** the bundle's number */
  number: number
  /** RFC 3339, UTC, whole seconds */
  createdAt: string
  groups: Map<string, GroupFacts>
}

interface GroupFacts {
  /** scheme, host and port that the group's boxes are told, without a path */
  origin: string
  /** ids of its yum repositories, each under `yum/<id>/` of the origin */
  yum: string[]
  /** further paths of the origin that a person may want to know of */
  files: TreePath[]
}

const MAX_SITE_FACTS_BYTES = 1024 * 1024
const FORMAT = 1
const TIME = /^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$/

const Group = strictObject({
  origin: v.pipe(v.string(), v.maxLength(300), v.regex(/^https?:\/\/[a-z0-9._:[\]-]+$/)),
  yum: v.pipe(
    v.array(strictObject({ id: v.pipe(v.string(), v.regex(/^[A-Za-z0-9][A-Za-z0-9._:-]{0,63}$/)) })),
    v.maxLength(1000),
    distinct(),
  ),
  files: v.pipe(v.array(v.string()), v.maxLength(10_000), distinct()),
})
const Schema = strictObject({
  _type: v.literal('gapferry-site'),
  format: v.literal(FORMAT),
  site: v.string(),
  number: v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(2 ** 40)),
  createdAt: v.string(),
  groups: dictionary(v.string(), Group),
})

/** The bytes of the site facts. @throws SITE_FACTS_INVALID where parseSiteFacts would refuse them */
export function serializeSiteFacts({ site, number, createdAt, groups }: SiteFacts): Buffer {
  const bytes = canonicalJson({
    _type: 'gapferry-site',
    format: FORMAT,
    site,
    number,
    createdAt,
    groups: Object.fromEntries([...groups].map(([name, facts]) => [name, groupDocument(facts)])),
  } satisfies v.InferInput<typeof Schema>)
  parseSiteFacts(bytes)
  return bytes
}

/** @throws SITE_FACTS_INVALID, also when the bytes are not the canonical spelling */
export function parseSiteFacts(bytes: Buffer): SiteFacts {
  if (bytes.length > MAX_SITE_FACTS_BYTES) throw invalid(`larger than ${MAX_SITE_FACTS_BYTES} bytes`)
  const doc = parseJson(bytes)
  if (!v.is(Schema, doc)) throw invalid(describeFault(Schema, doc))
  if (!canonicalJson(doc).equals(bytes)) throw invalid('is not in canonical form')
  if (!isTime(doc.createdAt)) throw invalid(`createdAt "${doc.createdAt.slice(0, 80)}" is not a time`)
  try {
    const groups = Object.entries(doc.groups).map(
      ([name, group]) => [parseName(name, 'group'), parseGroup(group)] as const,
    )
    return { site: parseName(doc.site, 'site'), number: doc.number, createdAt: doc.createdAt, groups: new Map(groups) }
  } catch (cause) {
    if (!isGapferryError(cause)) throw cause
    throw new GapferryError('SITE_FACTS_INVALID', `site facts: ${cause.message}`, { cause })
  }
}

function groupDocument({ origin, yum, files }: GroupFacts): v.InferInput<typeof Group> {
  return { origin, yum: yum.map((id) => ({ id })), files }
}

function parseGroup({ origin, yum, files }: v.InferInput<typeof Group>): GroupFacts {
  // FreePBX takes a bare origin only, and one origin has one spelling: no default port, no trailing slash.
  if (!URL.canParse(origin) || new URL(origin).origin !== origin) throw invalid(`"${origin}" is not an origin`)
  return { origin, yum: yum.map(({ id }) => id), files: files.map((path) => parseTreePath(path, 'files')) }
}

function isTime(text: string): boolean {
  if (!TIME.test(text)) return false
  const ms = Date.parse(text)
  return !Number.isNaN(ms) && new Date(ms).toISOString().replace('.000Z', 'Z') === text
}

function parseJson(bytes: Buffer): unknown {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes))
  } catch (cause) {
    throw new GapferryError('SITE_FACTS_INVALID', 'site facts: is not JSON', { cause })
  }
}

function invalid(why: string): GapferryError {
  return new GapferryError('SITE_FACTS_INVALID', `site facts: ${why}`)
}
