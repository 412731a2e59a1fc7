/**
 * What FreePBX boxes make of an answer about modules and sounds, and what they are told where no file answers. A box reads
 * any body of a module list, an error's too, and ends with a parse error; an empty one it takes for "not reachable" and
 * keeps the list it has. After any error status below the sounds paths it sets MODULE_REPO back to the internet. Pure.
 */
import { isIP } from 'node:net'
import { httpStatus, isGapferryError } from '../manifests/errors.ts'
import type { TreePath } from '../manifests/path.ts'
import { formText, parsePhpForm } from '../manifests/php-form.ts'

/** What a box asks with: `list` of modules, list of `sounds`, a `sound` (package or license), an `announcement`, one
 *  module's `version` (`--tag`), its own `address`. */
export type ModuleRole = 'list' | 'sounds' | 'sound' | 'announcement' | 'version' | 'address'

/** An answer without a file. */
export interface PlainAnswer {
  status: number
  type: string
  text: string
}

/** A release with a path like this has modules. */
const RELEASED_LIST = /^all-[0-9]{1,3}\.[0-9]{1,3}\.xml$/
const ROLES: readonly [RegExp, ModuleRole][] = [
  [/^(?:all|modules)-[^/]*\.xml(?:\.gz)?$/, 'list'],
  [/^sounds-[^/]*\.xml$/, 'sounds'],
  [/^sounds(?:-[^/]*\.xml\.gz$|\/)/, 'sound'],
  [/^version-[^/]*\.html$/, 'announcement'],
  [/^mversion\.php$/, 'version'],
  [/^whatismyip\.php$/, 'address'],
]
/** Their bodies are the only ones that say more than the request line. */
const WITH_FORM: ReadonlySet<ModuleRole | undefined> = new Set<ModuleRole>(['list', 'sounds', 'version'])
const NO_SOUNDS = '<xml><sounds/></xml>'
/** A request for a version has a dozen short fields. */
const MAX_VERSION_FORM_BYTES = 16 * 1024
const RAWNAME = /^[A-Za-z0-9_-]{1,64}$/
const VERSION = /^[A-Za-z0-9._+~-]{1,64}$/

/** Whether a path of a tree is a list of modules, so that its origin is asked for what this file answers. */
export function isModuleList(path: TreePath): boolean {
  return path.startsWith('all-') && RELEASED_LIST.test(path)
}

/** @param target  as on the request line, or a path of a tree */
export function moduleRole(target: string): ModuleRole | undefined {
  const path = plainPath(target)
  return ROLES.find(([pattern]) => pattern.test(path))?.[1]
}

/** How MODULE_REPO is set wrongly on the box that asks: `slash` at its end, or a path behind the host, a `prefix`.
 *  @param target  as on the request line */
export function repoOddity(target: string): 'slash' | 'prefix' | undefined {
  if (/^\/{2,}modules\//.test(target)) return 'slash'
  const path = plainPath(target)
  if (/^(?:gapferry|yum|apt|keys|sounds|modules)\//.test(path)) return undefined
  return /.\/(?:modules\/|all-[^/]*\.xml$|sounds-[^/]*\.xml$|mversion\.php$)/.test(path) ? 'prefix' : undefined
}

/** Whether the mirror reads the body of a request; all others are dropped. @param target  as on the request line */
export function hasForm(target: string): boolean {
  return WITH_FORM.has(moduleRole(target)) || repoOddity(target) !== undefined
}

/** Where the answer about one version of one module lies in the tree.
 *  @param target  a query counts like a body
 *  @param body    the form as it came; undefined where none did
 *  @returns undefined where the request names no version that could be there */
export function versionPath(target: string, body: Buffer | undefined): TreePath | undefined {
  const query = target.indexOf('?')
  const fields = [query < 0 ? '' : target.slice(query + 1), body?.toString('latin1', 0, MAX_VERSION_FORM_BYTES) ?? '']
  const form = parsePhpForm(Buffer.from(fields.join('&'), 'latin1'))
  const [rawname = '', version = ''] = [formText(form, 'rawname'), formText(form, 'tag')]
  if (!RAWNAME.test(rawname) || !VERSION.test(version)) return undefined
  return `gapferry/modules/${rawname}-${version}.json` as TreePath
}

/** What a box is told in place of a refusal. @returns undefined: the refusal */
export function insteadOfRefusal(role: ModuleRole, error: unknown, client: string): PlainAnswer | undefined {
  const isUnknown = isGapferryError(error, 'PATH_UNKNOWN', 'RELEASE_NOTHING')
  if (role === 'sounds') return { status: 200, type: 'text/xml', text: NO_SOUNDS }
  if (role === 'sound') return { status: 200, type: 'text/plain; charset=utf-8', text: '' }
  if (role === 'announcement') return isUnknown ? { status: 200, type: 'text/html', text: '' } : undefined
  if (role === 'address') return isUnknown ? { status: 200, type: 'text/xml', text: addressText(client) } : undefined
  // What is not JSON means that this version does not exist.
  const status = role === 'version' && isUnknown ? 200 : httpStatus(error)
  return { status, type: 'text/plain; charset=utf-8', text: '' }
}

/** Boxes compare it with exactly this spelling. @param client  as the connection has it */
function addressText(client: string): string {
  const address = client.replace(/^::ffff:(?=\d+\.)/, '')
  return `<xml><ipaddress>${isIP(address) === 0 ? '' : address}</ipaddress></xml>`
}

/** Without query, host and doubled slashes; percent escapes stay. */
function plainPath(target: string): string {
  const query = target.indexOf('?')
  const path = query < 0 ? target : target.slice(0, query)
  return path
    .replace(/^https?:\/\/[^/]*/i, '')
    .replace(/\/{2,}/g, '/')
    .replace(/^\//, '')
}
