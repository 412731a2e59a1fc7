/**
 * The names of the vendor's servers, and what boxes ask there for: a mirrorlist by the word `repo` of its query, or a
 * repository by its path. Which repository id that is, the vendor's own files in /etc/yum.repos.d say; a tree has its
 * repositories under the same ids. Rule: freepbx.org's distribution, packages sangoma-release.
 */

/** Those that a mirror can answer under. */
export const VENDOR_NAMES = [
  'mirrorlist.sangoma.net',
  'package1.sangoma.net',
  'sng7.com',
  'mirror.freepbx.org',
] as const

/** Where boxes look for modules unless they are told otherwise: in https, which no mirror can answer under this name. */
export const MODULE_NAME = 'mirror.freepbx.org'
export const VENDOR_MODULE_REPO = `https://${MODULE_NAME}`
/** What `MODULE_REPO` is where only name resolution was changed. */
export const NAMED_MODULE_REPO = `http://${MODULE_NAME}`

/** A repository, or a file of it, as a box asks for it. */
export interface VendorQuestion {
  /** the vendor's word: `sng7`, `updates` */
  word: string
  /** below the repository's base URL; undefined where the base URL itself is asked for */
  file?: string
}

/** Of nearly all ids. */
export const VENDOR_PREFIX = 'sng-'
/** Words whose id is not `sng-<word>`. */
const IDS: Record<string, string> = { os: 'sng-base', sng7: 'sng-pkgs', fasttrack: 'fasttrack' }
/** Words of the repositories that are switched on in the vendor's files. */
export const VENDOR_WORDS = ['os', 'updates', 'extras', 'sng7', 'epel'] as const
const WORD = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/
/** As the comments in the vendor's files have them; version and architecture are the group's. */
const PATHS = [
  /^\/os\/[^/]+\/(os|updates|extras)\/[^/]+\/(.*)$/,
  /^\/sng7\/(sng7|epel)\/(.*)$/,
  /^\/sng7\/[^/]+\/([A-Za-z0-9._-]+)\/(?:x86_64|i386|noarch)\/(.*)$/,
]

/** The id under which the vendor's files have the repository of this word. */
export function vendorId(word: string): string {
  return Object.hasOwn(IDS, word) ? IDS[word]! : VENDOR_PREFIX + word
}

/** What `target` asks for, under one of the vendor's names.
 *  @param target  path and query as on the request line
 *  @returns undefined where it names no repository in the vendor's manner */
export function vendorQuestion(target: string): VendorQuestion | undefined {
  const mark = target.indexOf('?')
  const path = (mark < 0 ? target : target.slice(0, mark)).replace(/\/{2,}/g, '/')
  if (path === '/') {
    const word = new URLSearchParams(mark < 0 ? '' : target.slice(mark)).get('repo')
    return word !== null && WORD.test(word) ? { word } : undefined
  }
  for (const pattern of PATHS) {
    const [, word, file] = pattern.exec(path) ?? []
    if (word !== undefined && file !== undefined) return { word, file }
  }
  return undefined
}

/** Whether this is one of the vendor's names. @param host  with or without a port, in any case */
export function isVendorName(host: string): boolean {
  return (VENDOR_NAMES as readonly string[]).includes(host.toLowerCase().replace(/:\d+$/, ''))
}
