/**
 * What a box gets under the vendor's names, where nothing was changed on it but name resolution: a mirrorlist that leads to
 * `/yum/<id>/` under the very name it asked, and repositories at the vendor's paths. A repository that is not carried is
 * answered as an empty one: any error would end all of `yum update`, because the vendor's files leave yum's
 * skip_if_unavailable off. An empty repository offers nothing, so nobody has to sign it. Pure.
 */
import { gzipSync } from 'node:zlib'
import { sha256Of } from '../manifests/digest.ts'
import { writeRepomd } from '../manifests/repomd.ts'
import type { Tree } from '../manifests/tree.ts'
import { isVendorName, MODULE_NAME, vendorId, vendorQuestion } from '../manifests/vendor-names.ts'

/** The yum side of a released tree. */
export interface Carried {
  ids: ReadonlySet<string>
  /** where the laptop took a repository from (host and path, `/` at the end) → its id; only of the vendor's hosts */
  bases: ReadonlyMap<string, string>
  /** of an empty repository's metadata, seconds since 1970: yum keeps what it has when that looks newer, and may one day get
   *  the repository itself with a stamp of its own */
  stamp: number
}

/** Another target of the same origin, or an answer without a file. */
export type VendorAnswer = { target: string } | { type: string; body: Buffer }

const NOT_CARRIED = '/gapferry/not-carried/'
const PACKAGES = /^yum\/([^/]+)\/(?!repodata\/)(.+)$/
const METADATA = /\/(repodata\/[A-Za-z0-9._-]+)$/

/** What the vendor's servers would be asked for, of a tree. */
export function carriedBy(tree: Tree): Carried {
  const bases = new Map<string, string>()
  let newest = 0
  for (const [path, { source, modified }] of tree.entries) {
    newest = Math.max(newest, modified)
    const [, id, file] = source === undefined ? [] : (PACKAGES.exec(path) ?? [])
    const base = id === undefined ? undefined : baseOf(source!, file!)
    if (base !== undefined) bases.set(base, id!)
  }
  const stamps = [...tree.stamps.values()]
  return { ids: new Set(tree.stamps.keys()), bases, stamp: stamps.length === 0 ? newest : Math.min(...stamps) }
}

/** @param authority  as in Host
 *  @param target     in origin form
 *  @returns undefined where the name is not the vendor's, or the path is one of the tree's own */
export function vendorAnswer(authority: string, target: string, carried: Carried): VendorAnswer | undefined {
  const host = authority.toLowerCase().replace(/:\d+$/, '')
  if (!isVendorName(host) || host === MODULE_NAME) return undefined
  const question = vendorQuestion(target)
  const id = question && idOf(question.word, carried)
  if (question !== undefined && question.file === undefined) {
    const folder = id === undefined ? `${NOT_CARRIED}${question.word}/` : `/yum/${id}/`
    return { type: 'text/plain; charset=utf-8', body: Buffer.from(`http://${authority}${folder}\n`) }
  }
  const path = target.replace(/\?.*$/s, '').replace(/\/{2,}/g, '/')
  const known = sourceOf(host + path, carried) ?? (id === undefined ? undefined : `/yum/${id}/${question!.file}`)
  if (known !== undefined) return { target: known }
  if (path.startsWith('/yum/')) return undefined
  const file = METADATA.exec(path)?.[1]
  return file === undefined ? undefined : emptyRepository(carried.stamp).get(file)
}

function idOf(word: string, { ids }: Carried): string | undefined {
  return [vendorId(word), word].find((id) => ids.has(id))
}

/** The target below `/yum/` of a path of the server that the laptop took a repository from. */
function sourceOf(place: string, { bases }: Carried): string | undefined {
  for (const [base, id] of bases) if (place.startsWith(base)) return `/yum/${id}/${place.slice(base.length)}`
  return undefined
}

/** A package's source without the package's own path: host and path. */
function baseOf(source: string, file: string): string | undefined {
  const url = URL.parse(source)
  if (url === null || !/^https?:$/.test(url.protocol) || !isVendorName(url.host)) return undefined
  const { hostname: host, pathname } = url
  const parts = pathname.split('/')
  return host + parts.slice(0, parts.length - file.split('/').length).join('/') + '/'
}

const LISTS = (
  [
    ['primary', '<metadata xmlns="http://linux.duke.edu/metadata/common" packages="0"></metadata>'],
    ['filelists', '<filelists xmlns="http://linux.duke.edu/metadata/filelists" packages="0"></filelists>'],
    ['other', '<otherdata xmlns="http://linux.duke.edu/metadata/other" packages="0"></otherdata>'],
  ] as const
).map(([type, element]) => {
  const open = Buffer.from(`<?xml version="1.0" encoding="UTF-8"?>\n${element}\n`)
  const body = gzipSync(open, { level: 9 })
  return { type, open, body, href: `repodata/${sha256Of(body)}-${type}.xml.gz` }
})

/** Its files by their path below the base URL. */
function emptyRepository(stamp: number): Map<string, { type: string; body: Buffer }> {
  const data = LISTS.map(({ type, open, body, href }) => ({
    type,
    checksum: { algorithm: 'sha256' as const, hex: sha256Of(body) },
    openChecksum: { algorithm: 'sha256' as const, hex: sha256Of(open) },
    href,
    timestamp: stamp,
    bytes: body.length,
    openBytes: open.length,
  }))
  return new Map([
    ['repodata/repomd.xml', { type: 'text/xml', body: writeRepomd({ revision: String(stamp), data }) }],
    ...LISTS.map(({ href, body }) => [href, { type: 'application/gzip', body }] as const),
  ])
}
