/**
 * Settings files are YAML, strict: what is not known is an error that names the nearest known key, never ignored.
 */
import * as v from 'valibot'
import { isMap, isNode, LineCounter, parseDocument, type Document } from 'yaml'
import { sha256Of, type Sha256 } from './digest.ts'
import { faultOf, type Fault } from './document.ts'
import { GapferryError } from './errors.ts'

const MAX_SETTINGS_BYTES = 1024 * 1024

/** The checked value of a settings file, with the schema's defaults filled in.
 *  @param schema  of objects made by `strictObject`
 *  @param text  YAML 1.2, at most 1 MiB, one document, no aliases
 *  @param file  names the file in messages
 *  @throws CONFIG_KEY_UNKNOWN with the key, its line and the nearest known key; CONFIG_INVALID for everything else */
export function parseSettings<const S extends v.GenericSchema>(
  schema: S,
  text: string,
  file: string,
): v.InferOutput<S> {
  if (text.length > MAX_SETTINGS_BYTES) throw invalid(file, `larger than ${MAX_SETTINGS_BYTES} bytes`)
  const lines = new LineCounter()
  const doc = parseDocument(text, { lineCounter: lines, uniqueKeys: true, prettyErrors: false, merge: false })
  const problem = doc.errors[0] ?? doc.warnings[0]
  if (problem !== undefined) throw invalid(`${file}:${lines.linePos(problem.pos[0]).line}`, problem.message)
  const result = v.safeParse(schema, toPlain(doc, file), { abortEarly: true })
  if (result.success) return result.output
  const { path, message, unknown } = faultOf(result.issues[0])
  const where = `${file}:${lineOf(doc, lines, path, unknown?.key)}`
  if (unknown !== undefined) throw unknownKey(unknown, path, where)
  throw invalid(where, `${dotted(path) || 'the file'} ${message}`)
}

/** What a settings file says, for telling later that it was changed and where: the name of each setting, as in
 *  `origins.GROUP.listen`, with the SHA-256 of its value; '' with that of the whole file. Values may be nobody's business,
 *  so they are not kept. Entries of a list go by what names them, else by their place.
 *  @param settings  what `parseSettings` made of `text` */
export function digestSettings(text: string, settings: unknown): Map<string, Sha256> {
  return new Map([['', sha256Of(text)], ...leavesOf('', settings)])
}

const NAMING_KEYS = ['group', 'name', 'id', 'as'] as const

function leavesOf(name: string, value: unknown): [string, Sha256][] {
  if (typeof value !== 'object' || value === null) return [[name, sha256Of(JSON.stringify(value))]]
  if (Array.isArray(value) && value.every((one) => typeof one !== 'object')) {
    return [[name, sha256Of(JSON.stringify(value))]]
  }
  return Object.entries(value).flatMap(([key, one]: [string, unknown]) => {
    const own = Array.isArray(value) ? (nameOf(one) ?? key) : key
    return leavesOf(name === '' ? own : `${name}.${own}`, one)
  })
}

function nameOf(entry: unknown): string | undefined {
  if (typeof entry !== 'object' || entry === null) return undefined
  const named = entry as Partial<Record<string, unknown>>
  const key = NAMING_KEYS.find((one) => typeof named[one] === 'string')
  return key === undefined ? undefined : String(named[key])
}

/** Bytes of a size as people write it: `600MB`, `4GB`, `512KiB`, `1000`. Decimal units are powers of 1000.
 *  @throws CONFIG_INVALID */
export function parseSize(text: string, what: string): number {
  const match = /^(\d{1,12}(?:\.\d{1,3})?) ?(B|kB|KB|MB|GB|TB|KiB|MiB|GiB|TiB)?$/.exec(text.trim())
  if (match === null) throw invalid(what, `"${text}" is not a size; write 600MB or 4GB`)
  const unit = match[2] ?? 'B'
  const power = 'BKMGT'.indexOf(unit[0]!.toUpperCase())
  const bytes = Math.floor(Number(match[1]) * (unit.includes('i') ? 1024 : 1000) ** power)
  if (!Number.isSafeInteger(bytes)) throw invalid(what, `"${text}" is too large`)
  return bytes
}

/** `HOST:PORT` or `[IPV6]:PORT`. Port 0 means any free port. @throws CONFIG_INVALID */
export function parseListen(text: string, what: string): { host: string; port: number } {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9.-]+)):(\d{1,5})$/.exec(text)
  const port = Number(match?.[3])
  if (match === null || port > 65535) throw invalid(what, `"${text}" is not HOST:PORT`)
  return { host: match[1] ?? match[2]!, port }
}

/** `text` as a YAML value that is read back as this text: not as a number, a date or a list. */
export function yamlText(text: string): string {
  return /^(?:[a-z][a-z0-9._-]*|[0-9]+\.[0-9.]+:[0-9]+|https?:\/\/[a-z0-9.:-]+)$/.test(text)
    ? text
    : JSON.stringify(text)
}

/** The nearest of `known` to `word`, where one is near enough to be meant. */
export function nearest(word: string, known: Iterable<string>): string | undefined {
  let best: string | undefined
  let bestDistance = Math.max(2, Math.floor(word.length / 3)) + 1
  for (const candidate of known) {
    const distance = editDistance(word.toLowerCase(), candidate.toLowerCase())
    if (distance < bestDistance) [best, bestDistance] = [candidate, distance]
  }
  return best
}

function toPlain(doc: Document, file: string): unknown {
  try {
    return doc.toJS({ maxAliasCount: 0 })
  } catch (cause) {
    throw new GapferryError('CONFIG_INVALID', `${file}: aliases are not allowed`, { cause })
  }
}

function unknownKey({ key, known }: Fault['unknown'] & {}, path: Fault['path'], where: string): GapferryError {
  const near = nearest(key, known)
  const place = dotted(path)
  return new GapferryError(
    'CONFIG_KEY_UNKNOWN',
    `${where}: unknown key "${key}"${place === '' ? '' : ` in ${place}`}`,
    {
      hint: near === undefined ? `known here: ${known.join(', ')}` : `did you mean "${near}"?`,
    },
  )
}

/** @param key  where it is this key of the place that is meant */
function lineOf(doc: Document, lines: LineCounter, path: Fault['path'], key?: string): number {
  const map = doc.getIn(path, true)
  const pair = isMap(map) ? map.items.find((one) => String(one.key) === key) : undefined
  if (isNode(pair?.key) && pair.key.range != null) return lines.linePos(pair.key.range[0]).line
  for (let length = path.length; length >= 0; length--) {
    const node = doc.getIn(path.slice(0, length), true) as { range?: [number, number, number] } | undefined
    if (node?.range !== undefined) return lines.linePos(node.range[0]).line
  }
  return 1
}

function dotted(path: Fault['path']): string {
  return path
    .map((step) => (typeof step === 'number' ? `[${step}]` : `.${step}`))
    .join('')
    .replace(/^\./, '')
}

function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      next.push(Math.min(next[j - 1]! + 1, row[j]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)))
    }
    row = next
  }
  return row[b.length]!
}

function invalid(where: string, why: string): GapferryError {
  return new GapferryError('CONFIG_INVALID', `${where}: ${why}`)
}
