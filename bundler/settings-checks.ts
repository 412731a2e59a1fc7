/** What the settings of several kinds of upstream have in common. */
import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { GapferryError } from '../manifests/errors.ts'

/** @param what  where it stands, as in `gapferry.yaml: group a` */
export function invalidSetting(what: string, why: string, hint?: string): GapferryError {
  return new GapferryError('CONFIG_INVALID', `${what}: ${why}`, hint === undefined ? {} : { hint })
}

/** @throws CONFIG_INVALID unless it is an http(s) URL */
export function checkUrl(text: string, what: string): URL {
  const url = URL.parse(text)
  if (url === null || !['http:', 'https:'].includes(url.protocol))
    throw invalidSetting(what, `"${text}" is not an http(s) URL`)
  return url
}

/** @param key  names the setting in messages
 *  @returns it without a slash at the end
 *  @throws CONFIG_INVALID unless it is scheme, host and port alone */
export function checkOrigin(key: string, text: string, what: string): string {
  const url = checkUrl(text, `${what}: ${key}`)
  if (text.replace(/\/$/, '') !== url.origin) {
    throw invalidSetting(what, `${key} "${text}" must be scheme, host and port alone, as in http://mirror.hq.lan:8416`)
  }
  return url.origin
}

/** Files that the settings name. */
export interface NamedFiles {
  /** folder that they are relative to */
  base: string
  /** false: they may not be here yet, and stand for empty ones */
  isRead: boolean
}

/** The text of such a file. @throws CONFIG_INVALID */
export function readNamed(name: string, key: string, what: string, { base, isRead }: NamedFiles): string {
  const file = resolve(base, name)
  try {
    return isRead ? readFileSync(file, 'utf8') : ''
  } catch (cause) {
    throw new GapferryError('CONFIG_INVALID', `${what}: ${key} ${file} cannot be read`, { cause })
  }
}

/** An armored OpenPGP key that the settings name. @throws CONFIG_INVALID */
export function readKey(name: string, key: string, what: string, files: NamedFiles): string {
  const text = readNamed(name, key, what, files)
  if (files.isRead && !text.includes('-----BEGIN PGP PUBLIC KEY BLOCK-----'))
    throw invalidSetting(what, `${key} ${resolve(files.base, name)} is not an armored OpenPGP key`)
  return text
}

/** @throws CONFIG_INVALID */
export function refuseTwice(names: string[], what: string): void {
  const twice = names.find((name, i) => names.indexOf(name) !== i)
  if (twice !== undefined) throw invalidSetting(what, `"${twice}" stands there twice`)
}
