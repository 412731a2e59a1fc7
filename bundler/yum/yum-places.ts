/**
 * Where a yum repository may be: its base URLs, from the settings, a mirrorlist or a metalink.
 */
import { GapferryError } from '../../manifests/errors.ts'
import {
  expandVariables,
  MAX_MIRRORLIST_BYTES,
  parseMetalink,
  parseMirrorlist,
  toBaseurl,
  type Metalink,
} from '../../manifests/mirrorlist.ts'
import { publicUrl, type Fetcher } from '../fetch.ts'

/** Exactly one of `baseurl`, `mirrorlist` and `metalink` is set. */
export interface YumPlace {
  id: string
  baseurl?: string[]
  mirrorlist?: string
  metalink?: string
  /** yum variables, without the `$` */
  vars: Record<string, string>
}

export interface YumPlaces {
  /** best first, each with `/` at its end */
  baseurls: string[]
  /** when given: which repomd.xml may stand there */
  metalink?: Metalink
}

/** More mirrors than this are not tried: when all of these fail, the cause is here and not there. */
const MAX_MIRRORS = 8

/** @throws MIRRORLIST_EMPTY, METALINK_INVALID, what the fetcher throws */
export async function findPlaces(
  place: YumPlace,
  fetcher: Pick<Fetcher, 'get'>,
  signal: AbortSignal,
): Promise<YumPlaces> {
  const { id, baseurl, vars } = place
  if (baseurl !== undefined) return { baseurls: usable(baseurl, vars, `yum ${id}`) }
  const url = expandVariables(place.metalink ?? place.mirrorlist ?? '', vars)
  // As yum does it: a mirrorlist whose address holds this word is a metalink.
  const isMetalink = place.metalink !== undefined || url.includes('metalink')
  const what = `${isMetalink ? 'metalink' : 'mirrorlist'} of ${id}`
  const { bytes } = await fetcher.get({ urls: [url], maxBytes: MAX_MIRRORLIST_BYTES, what }, signal)
  const from = `${what} ${publicUrl(url)}`
  if (!isMetalink) return { baseurls: usable(parseMirrorlist(bytes, from), vars, from).slice(0, MAX_MIRRORS) }
  const metalink = parseMetalink(bytes, from)
  return { baseurls: usable(metalink.baseurls, vars, from).slice(0, MAX_MIRRORS), metalink }
}

function usable(urls: string[], vars: Record<string, string>, what: string): string[] {
  const bases = new Set(urls.map((url) => toBaseurl(url, vars)).filter((url) => url !== undefined))
  if (bases.size > 0) return [...bases]
  throw new GapferryError(
    'MIRRORLIST_EMPTY',
    `${what}: no http or https address among "${urls.join(' ').slice(0, 200)}"`,
  )
}
