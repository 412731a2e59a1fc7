/**
 * `<box>.license.tar`, as `gapferry-box capture` writes it: an archive in the one spelling of parts, whose first entry says of
 * which box it is and what the other entries are. FORMAT.md#captured-license.
 */
import { BLOCK_BYTES, END_BYTES, isZero, paddingOf, parseHeader } from './bundle.ts'
import { sha256Of } from './digest.ts'
import { GapferryError, isGapferryError } from './errors.ts'
import {
  checkLicensePath,
  checkLicenseSize,
  MAX_LICENSE_BYTES,
  MAX_LICENSE_FILES,
  type LicenseFile,
} from './license.ts'

const HEAD = 'gapferry-license'
const MAX_HEAD_BYTES = 16_384
/** Of the whole archive. */
export const MAX_CAPTURE_BYTES =
  MAX_LICENSE_BYTES + (MAX_LICENSE_FILES + 2) * 2 * BLOCK_BYTES + MAX_HEAD_BYTES + END_BYTES
/** Further lines are for those who come later. */
const FACTS: Record<string, RegExp> = {
  box: /^[\x21-\x7e]{1,253}$/,
  deployment: /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/,
  captured: /^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$/,
  tool: /^[\x21-\x7e]{1,64}$/,
  machine: /^[0-9a-f]{64}$/,
  board: /^[0-9a-f]{64}$/,
}
const REQUIRED = ['box', 'deployment', 'captured', 'tool']
const FILE = /^file ([0-7]{4}) (\S{1,32}) (\S{1,32}) (0|[1-9][0-9]{0,7}) ([0-9a-f]{64}) (\/\S+)$/

export interface CapturedLicense {
  box: string
  deploymentId: string
  /** RFC 3339 */
  capturedAt: string
  /** SHA-256 of the machine id, as an inventory has it; undefined where the box told none */
  machine: string | undefined
  files: Omit<LicenseFile, 'sha256'>[]
}

/** Whether it begins like one, whatever follows. */
export function isCapture(bytes: Buffer): boolean {
  return bytes.length >= BLOCK_BYTES && bytes.toString('latin1', 0, HEAD.length + 1) === `${HEAD}\0`
}

/** @param what  names it in messages
 *  @throws LICENSE_INVALID for anything but what the tool writes */
export function parseCapture(bytes: Buffer, what: string): CapturedLicense {
  if (bytes.length > MAX_CAPTURE_BYTES) throw invalid(what, 'is larger than any')
  const [head, ...entries] = entriesOf(bytes, what)
  if (head?.name !== HEAD || head.data.length > MAX_HEAD_BYTES) throw invalid(what, `does not begin with ${HEAD}`)
  const { facts, files } = parseHead(head.data, what)
  if (files.length !== entries.length) throw invalid(what, 'its first entry names other files than it has')
  const read = files.map((file, i) => checked(file, entries[i]!, what))
  checkLicenseSize(read, what)
  return {
    box: facts.get('box')!,
    deploymentId: facts.get('deployment')!,
    capturedAt: facts.get('captured')!,
    machine: facts.get('machine'),
    files: read,
  }
}

interface Entry {
  name: string
  data: Buffer
}

function entriesOf(bytes: Buffer, what: string): Entry[] {
  const entries: Entry[] = []
  for (let at = 0; ;) {
    const header = headerAt(bytes, at, what)
    if (header === undefined) {
      if (bytes.length === at + END_BYTES && isZero(bytes.subarray(at))) return entries
      throw invalid(what, 'does not end as an archive does')
    }
    const [from, end] = [at + BLOCK_BYTES, at + BLOCK_BYTES + header.bytes]
    at = end + paddingOf(header.bytes)
    if (at > bytes.length || !isZero(bytes.subarray(end, at)))
      throw invalid(what, `${header.name}: is cut, or not padded`)
    if (entries.length > MAX_LICENSE_FILES) throw invalid(what, `has more than ${MAX_LICENSE_FILES} files`)
    entries.push({ name: header.name, data: bytes.subarray(from, end) })
  }
}

function headerAt(bytes: Buffer, at: number, what: string): { name: string; bytes: number } | undefined {
  if (at + BLOCK_BYTES > bytes.length) throw invalid(what, 'ends early')
  try {
    return parseHeader(bytes.subarray(at, at + BLOCK_BYTES))
  } catch (cause) {
    if (!isGapferryError(cause)) throw cause
    throw new GapferryError('LICENSE_INVALID', `${what}: ${cause.message}`, { cause })
  }
}

interface NamedFile {
  mode: string
  owner: string
  group: string
  bytes: number
  sha256: string
  path: string
}

function parseHead(data: Buffer, what: string): { facts: Map<string, string>; files: NamedFile[] } {
  const lines = data.toString('latin1').split('\n')
  const last = lines.length - 2
  const isWhole = lines[0] === `${HEAD} 1` && lines.at(-1) === '' && lines[last] === `end ${last}`
  if (!isWhole) throw invalid(what, `its first entry is no ${HEAD} 1, or was cut`)
  const facts = new Map<string, string>()
  const files: NamedFile[] = []
  for (const line of lines.slice(1, last)) {
    const file = FILE.exec(line)
    if (file === null) addFact(facts, line, what)
    else files.push(namedFile(file))
  }
  const missing = REQUIRED.find((key) => !facts.has(key))
  if (missing === undefined) return { facts, files }
  throw invalid(what, `its first entry does not say its ${missing}`)
}

function namedFile([, mode, owner, group, bytes, sha256, path]: RegExpExecArray): NamedFile {
  return { mode: mode!, owner: owner!, group: group!, bytes: Number(bytes), sha256: sha256!, path: path! }
}

function addFact(facts: Map<string, string>, line: string, what: string): void {
  const [, key = '', value = ''] = /^([a-z]+) (.*)$/.exec(line) ?? []
  if (facts.has(key) || FACTS[key]?.test(value) !== true)
    throw invalid(what, `its first entry has a line "${key}" that is not understood, or twice`)
  facts.set(key, value)
}

function checked(file: NamedFile, { name, data }: Entry, what: string): Omit<LicenseFile, 'sha256'> {
  checkLicensePath(file.path, what)
  if (`/${name}` !== file.path) throw invalid(what, `found ${name}, expected ${file.path}`)
  if (data.length !== file.bytes || sha256Of(data) !== file.sha256)
    throw invalid(what, `${file.path}: is not what its first entry says`)
  return { path: file.path, mode: file.mode, owner: file.owner, group: file.group, data }
}

function invalid(what: string, why: string): GapferryError {
  return new GapferryError('LICENSE_INVALID', `${what}: ${why}`, {
    hint: 'take it again on the box: gapferry-box capture > BOX.license.tar',
  })
}
