/**
 * `gapferry keys rotate openpgp`.
 */
import { GapferryError } from '../../manifests/errors.ts'
import { print, talk, type GlobalOptions, type Surroundings } from '../../manifests/program.ts'
import { BlobStore } from '../../storage/blobs.ts'
import type { Ledger } from '../../storage/ledger.ts'
import type { Fleet } from '../config.ts'
import { siteSecrets, type SecretOptions } from './key-secrets.ts'
import { announceOpenpgp, isCarried, removeOpenpgp, useOpenpgp } from './openpgp-rotate.ts'
import { publishedKeys, renderPublished } from './site-key.ts'

export interface OpenpgpOptions extends GlobalOptions, SecretOptions {
  now?: boolean
  remove?: string
}

const BOX_FILE = '/etc/pki/rpm-gpg/RPM-GPG-KEY-gapferry'

/** One of three steps: a new key is published; `--now`: it signs; `--remove ID`: an old one is published no longer.
 *  @throws what the step throws; USAGE_INVALID for two at once */
export async function rotateOpenpgp(
  around: Surroundings,
  fleet: Fleet,
  site: string,
  ledger: Ledger,
  options: OpenpgpOptions,
): Promise<void> {
  const place = { dir: fleet.keysDir, site }
  if (options.now === true && options.remove !== undefined)
    throw new GapferryError('USAGE_INVALID', 'expected --now or --remove ID, found both')
  if (options.remove !== undefined) {
    removeOpenpgp(place, options.remove)
    return say(around, options, place, 'taken out of what is published', [
      `  next: gapferry bundle --site ${site} --to DIR; boxes that took the old site.asc keep what they have`,
    ])
  }
  if (options.now !== true) {
    const file = await announceOpenpgp({
      ...place,
      secrets: siteSecrets(around, options, site),
      nowMs: around.nowMs(),
    })
    return say(
      around,
      options,
      place,
      'a new one is published beside the old, which goes on signing',
      announced(fleet, site, file),
    )
  }
  const isKnown = isCarried(place, ledger.lastBundle(site), new BlobStore(fleet.storeDir))
  useOpenpgp(place)
  if (!isKnown)
    talk(around, `warning: no bundle has brought the new key to the boxes yet; each must take it before it can update`)
  say(around, options, place, 'the new one signs from now on; the old one stays published', [
    `  next: gapferry bundle --site ${site} --to DIR; a box that refuses it has not taken the new key: the three lines of`,
    '        "OpenPGP" in the manual, on that box',
    `  and:  gapferry keys backup --site ${site} --to FILE`,
  ])
}

function announced(fleet: Fleet, site: string, file: string): string[] {
  const origins = fleet.sites.find(({ name }) => name === site)?.groups.map(({ origin }) => origin) ?? []
  return [
    `  ${file}`,
    `  next: gapferry bundle --site ${site} --to DIR; when the mirror serves it, on each box:`,
    ...origins.map((origin) => `        curl -o ${BOX_FILE} ${origin}/keys/site.asc`),
    `        gpg --with-fingerprint ${BOX_FILE}    # compare with the above`,
    `  then: gapferry keys rotate openpgp --site ${site} --now`,
    `  and:  gapferry keys backup --site ${site} --to FILE`,
  ]
}

function say(
  around: Surroundings,
  { json }: GlobalOptions,
  { dir, site }: { dir: string; site: string },
  what: string,
  next: string[],
): void {
  const keys = publishedKeys(dir, site)
  const shown = keys.map(({ fingerprint, state }) => ({ fingerprint, state }))
  const text = [`OpenPGP key of ${site}: ${what}`, renderPublished(keys), ...next].join('\n')
  print(around, json === true ? JSON.stringify({ site, openpgp: shown }) : text)
}
