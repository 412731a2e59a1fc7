/**
 * Paths of an origin. A path is a key that is looked up, never a name that is joined to a folder; the rules make sure
 * that an unpacked tree is nevertheless harmless on any file system and that no path has two spellings.
 */
import { GapferryError } from './errors.ts'

/** A path of an origin: relative, `/` between segments, printable ASCII, no dot segments. */
export type TreePath = string & { readonly __brand: 'TreePath' }

const MAX_PATH_BYTES = 1024
const MAX_SEGMENT_BYTES = 255
const MAX_DEPTH = 32
// No space and no control characters; no `\ % ? #`, which mean something else in a URL or on another file system.
const ALLOWED = /^[!"$&'()*+,./0-9:;<=>@A-Z[\]^_`a-z{|}~-]+$/

/** @throws PATH_INVALID unless `text` is a path as above; `what` says where it was found */
export function parseTreePath(text: unknown, what: string): TreePath {
  if (typeof text !== 'string') throw invalid(what, 'expected text')
  if (text.length === 0 || text.length > MAX_PATH_BYTES) throw invalid(what, `expected 1–${MAX_PATH_BYTES} bytes`)
  if (!ALLOWED.test(text)) throw invalid(what, `"${text}" holds a character that a path must not have`)
  const segments = text.split('/')
  if (segments.length > MAX_DEPTH) throw invalid(what, `"${text}" is deeper than ${MAX_DEPTH}`)
  for (const segment of segments) {
    if (segment === '' || segment === '.' || segment === '..')
      throw invalid(what, `"${text}" has an empty or dot segment`)
    if (segment.length > MAX_SEGMENT_BYTES)
      throw invalid(what, `"${text}" has a segment over ${MAX_SEGMENT_BYTES} bytes`)
  }
  return text as TreePath
}

/** The tree path that a request target asks for. The query is dropped, percent escapes are decoded once, `//` counts
 *  as `/` (real boxes send it). Absolute-form targets are for the caller to cut down first.
 *  @param target  as on the request line: `/yum/x/repodata/repomd.xml?`
 *  @throws PATH_INVALID for `%2f %5c %00`, dot segments, anything that no tree can hold */
export function parseRequestTarget(target: string): TreePath {
  const query = target.indexOf('?')
  const raw = query < 0 ? target : target.slice(0, query)
  if (!raw.startsWith('/')) throw invalid('request', 'the target does not start with /')
  if (/%(?:2f|5c|00)/i.test(raw)) throw invalid('request', 'an escaped separator or NUL')
  let decoded = raw
  if (raw.includes('%')) {
    try {
      decoded = decodeURIComponent(raw)
    } catch (cause) {
      throw new GapferryError('PATH_INVALID', 'request: a broken percent escape', { cause })
    }
  }
  return parseTreePath(decoded.replace(/\/{2,}/g, '/').slice(1), 'request')
}

function invalid(what: string, why: string): GapferryError {
  return new GapferryError('PATH_INVALID', `${what}: ${why}`)
}
