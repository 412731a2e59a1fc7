/**
 * What operating systems, kiosks and virus scanners leave on every stick that they see. It is nobody's data: it is neither
 * read nor listed.
 */

const NAMES = new Set([
  '$recycle.bin',
  '.apdisk',
  '.directory',
  'autorun.inf',
  'bootex.log',
  'desktop.ini',
  'ehthumbs.db',
  'fseventsd-uuid',
  'indexervolumeguid',
  'lost+found',
  'lost.dir',
  'recycled',
  'recycler',
  'system volume information',
  'thumbs.db',
  'wpsettings.dat',
])
const PATTERNS = [/^\./, /^found\.[0-9]{3}$/, /^file[0-9]{4}\.chk$/, /^~\$/]

/** True for such a file or folder, by its name alone; in any case, as sticks do not tell cases apart. Names that begin with
 *  a dot are all meant: `._x` (macOS, beside each file), `.Trash-1000`, `.Spotlight-V100`, `.fseventsd`. */
export function isLitter(name: string): boolean {
  const small = name.toLowerCase()
  return NAMES.has(small) || PATTERNS.some((pattern) => pattern.test(small))
}
