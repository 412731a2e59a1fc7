import { GapferryError } from '../manifests/errors.ts'
import { parseTreePath, type TreePath } from '../manifests/path.ts'

// Where compose puts what it makes and what it takes from other upstreams. Without regard to case: an unpacked tree may
// stand on a file system that has none.
const RESERVED =
  /^(?:(?:yum|apt|keys|modules|sounds|licenses|gapferry)(?:\/|$)|gapferry-|(?:all|modules|sounds)-\d+\.0\.xml|version-[^/]*\.html$)/i

/** The place of a vendor file in an origin: `as` of `files` in gapferry.yaml.
 *  @param what  says where it was found
 *  @throws PATH_INVALID; PATH_CONFLICT where Gapferry puts its own */
export function parseFilePath(as: unknown, what: string): TreePath {
  const path = parseTreePath(as, what)
  if (!RESERVED.test(path)) return path
  throw new GapferryError('PATH_CONFLICT', `${what}: "${path}" is where Gapferry puts its own`, {
    hint: 'choose another "as" in gapferry.yaml, as in firmware/x.bin',
  })
}
