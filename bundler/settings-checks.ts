/** What the settings of several kinds of upstream have in common. */
import { readFileSync } from 'node:fs'
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

/** The text of a file that the settings name. @throws CONFIG_INVALID */
export function readNamed(file: string, key: string, what: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch (cause) {
    throw new GapferryError('CONFIG_INVALID', `${what}: ${key} ${file} cannot be read`, { cause })
  }
}

/** An armored OpenPGP key that the settings name. @throws CONFIG_INVALID */
export function readKey(file: string, key: string, what: string): string {
  const text = readNamed(file, key, what)
  if (!text.includes('-----BEGIN PGP PUBLIC KEY BLOCK-----'))
    throw invalidSetting(what, `${key} ${file} is not an armored OpenPGP key`)
  return text
}

/** @throws CONFIG_INVALID */
export function refuseTwice(names: string[], what: string): void {
  const twice = names.find((name, i) => names.indexOf(name) !== i)
  if (twice !== undefined) throw invalidSetting(what, `"${twice}" stands there twice`)
}
