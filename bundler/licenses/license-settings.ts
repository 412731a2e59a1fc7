/**
 * `licenses` of a site in gapferry.yaml: an HTTP source that a portal, or somebody who has one, offers. Whose license it is asked
 * for stands in the address; secrets come from the environment or from files, and get into no message.
 */
import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import * as v from 'valibot'
import { dictionary, strictObject } from '../../manifests/document.ts'
import { checkLicensePath } from '../../manifests/license.ts'
import { isGapferryError } from '../../manifests/errors.ts'
import { checkUrl, invalidSetting } from '../settings-checks.ts'

export const PLACEHOLDER = '{deploymentId}'
/** Where a license that comes as one file belongs, unless the settings say it. */
const DEFAULT_PATH = '/etc/schmooze/schmooze.zl'
const MAX_SECRET_BYTES = 65_536
const Text = v.pipe(v.string(), v.minLength(1), v.maxLength(2048), v.regex(/^[\x20-\x7e]+$/))
const HeaderName = v.pipe(v.string(), v.regex(/^[A-Za-z0-9-]{1,64}$/))

export const LicenseEntry = strictObject({
  url: Text,
  as: v.exactOptional(Text, DEFAULT_PATH),
  headers: v.exactOptional(dictionary(HeaderName, Text), {}),
  certificate: v.exactOptional(Text),
  key: v.exactOptional(Text),
  ca: v.exactOptional(Text),
})

export interface LicenseUpstream {
  /** with PLACEHOLDER in it */
  url: string
  /** where a license that comes as one file belongs on the box */
  as: string
  /** name → text, `env:NAME` or `file:PATH` */
  headers: Record<string, string>
  /** files, PEM, absolute */
  certificate?: string
  key?: string
  ca?: string
}

/** @param base  folder that files are relative to
 *  @throws CONFIG_INVALID */
export function checkLicenseSource(
  entry: v.InferOutput<typeof LicenseEntry>,
  base: string,
  what: string,
): LicenseUpstream {
  checkUrl(entry.url.replaceAll(PLACEHOLDER, 'x'), `${what}: url`)
  if (!entry.url.includes(PLACEHOLDER))
    throw invalidSetting(what, `url has no ${PLACEHOLDER}: every box would get the same`)
  if ((entry.certificate === undefined) !== (entry.key === undefined))
    throw invalidSetting(what, 'certificate and key go together')
  try {
    checkLicensePath(entry.as, what)
  } catch (error) {
    if (isGapferryError(error)) throw invalidSetting(what, `as: ${error.message}`)
    throw error
  }
  const file = (name: string): string => (name.startsWith('env:') ? name : resolve(base, name))
  const { certificate, key, ca } = entry
  return {
    url: entry.url,
    as: entry.as,
    headers: Object.fromEntries(
      Object.entries(entry.headers).map(([name, text]) => [
        name,
        text.startsWith('file:') ? `file:${resolve(base, text.slice(5))}` : text,
      ]),
    ),
    ...(certificate === undefined ? {} : { certificate: file(certificate) }),
    ...(key === undefined ? {} : { key: file(key) }),
    ...(ca === undefined ? {} : { ca: file(ca) }),
  }
}

/** The text of a setting that may stand in the environment (`env:NAME`) or in a file (`file:PATH`).
 *  @throws CONFIG_INVALID, which names the place and never the text */
export function secretOf(text: string, environment: Record<string, string | undefined>, what: string): string {
  const [, kind, place = ''] = /^(env|file):(.+)$/.exec(text) ?? []
  if (kind === undefined) return text
  const found = kind === 'env' ? environment[place] : readSmall(place)
  if (found !== undefined && found.trim() !== '') return found.trim()
  throw invalidSetting(what, kind === 'env' ? `${place} is not set in the environment` : `${place} cannot be read`)
}

function readSmall(file: string): string | undefined {
  try {
    const bytes = readFileSync(file)
    return bytes.length > MAX_SECRET_BYTES ? undefined : bytes.toString('utf8')
  } catch {
    return undefined // the caller names the file
  }
}
