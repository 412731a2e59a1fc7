/**
 * `gapferry init`: settings where there are none, then a store and the keys of every site that has none yet. Harmless when
 * all is there.
 */
import { existsSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { GapferryError } from '../manifests/errors.ts'
import { yamlText } from '../manifests/settings.ts'
import { talk, type Surroundings } from '../manifests/program.ts'
import { fingerprintWords } from '../manifests/words.ts'
import { replaceFile } from '../storage/durable.ts'
import { auditedKeys } from './audit.ts'
import { loadFleet, parseFleet } from './config.ts'
import { createSiteKeys } from './keys/create-keys.ts'
import { sameDisk, tokenKeyOf, type TokenOptions } from './keys/key-options.ts'
import { newRootPassphrases, passphraseSources, siteSecrets, type SecretOptions } from './keys/key-secrets.ts'
import { loadSite } from './keys/keys.ts'
import { readNewPassphrase } from '../storage/passphrase.ts'
import { onSameDisk, parseThreshold, type RootOrder } from './keys/root-keys.ts'

export interface InitArguments extends SecretOptions, TokenOptions {
  preset: string
  site: string
  group: string
  origin: string
  /** one of the four above was given, not left to its default */
  isAsked: boolean
  /** false: `--no-passphrase` */
  passphrase: boolean
  /** `--root 2/3` */
  root?: string
  /** folders, absolute */
  rootTo: string[]
}

export interface Initialized {
  config: string
  sites: { name: string; isNew: boolean; rootFile: string; fingerprint: string; rootKeys: string[] }[]
}

/** @throws CONFIG_INVALID where the new settings would not be accepted; KEY_PASSPHRASE_* */
export async function initialize(dir: string, given: InitArguments, around: Surroundings): Promise<Initialized> {
  const config = join(dir, 'gapferry.yaml')
  if (!existsSync(config)) {
    const text = settingsText(given)
    parseFleet(text, config)
    mkdirSync(dir, { recursive: true })
    replaceFile(config, Buffer.from(text))
  } else if (given.isAsked) {
    throw new GapferryError(
      'CONFIG_EXISTS',
      `${config} is there already; --site, --group, --preset and --origin are for new settings`,
      {
        hint: `edit ${config}, then run: gapferry init`,
      },
    )
  }
  const fleet = loadFleet(config)
  mkdirSync(fleet.storeDir, { recursive: true, mode: 0o700 })
  const missing = fleet.sites.filter((site) => !existsSync(join(fleet.keysDir, site.name)))
  const passphrase = missing.length === 0 ? null : await choosePassphrase(given, around)
  const rootKeys = new Map<string, string[]>()
  for (const { name } of missing) {
    await auditedKeys(fleet, around, { command: 'init', site: name }, async () => {
      rootKeys.set(name, await createKeys(fleet.keysDir, name, given, passphrase, around))
    })
  }
  const sites = fleet.sites.map(({ name }) => ({
    name,
    isNew: missing.some((site) => site.name === name),
    rootFile: join(fleet.keysDir, name, '1.root.json'),
    fingerprint: fingerprintWords(loadSite(fleet.keysDir, name).roots[0]!),
    rootKeys: rootKeys.get(name) ?? [],
  }))
  return { config, sites }
}

/** @returns where the root keys are */
async function createKeys(
  dir: string,
  site: string,
  given: InitArguments,
  passphrase: string | null,
  around: Surroundings,
): Promise<string[]> {
  const bundleKey = tokenKeyOf('bundle', given, siteSecrets(around, given, site))
  const root = rootOrder(given, passphrase, around)
  const made = await createSiteKeys({
    dir,
    site,
    passphrase,
    nowMs: around.nowMs(),
    root,
    ...(bundleKey === undefined ? {} : { bundleKey }),
  })
  const files = made.rootKeys.map(({ file }) => file)
  if (root.to.length === 0) {
    talk(
      around,
      `warning: the root key of ${site} lies on this laptop: who steals it can sign for ${site} for ever. Move ` +
        `${files[0]} to another medium, or begin with --root 2/3 and three --root-to DIR`,
    )
  } else for (const file of onSameDisk(files, dir)) talk(around, `warning: ${sameDisk(file)}`)
  return files
}

function rootOrder(given: InitArguments, passphrase: string | null, around: Surroundings): RootOrder {
  const size = parseThreshold(given.root ?? '1/1')
  const own = newRootPassphrases(around, given, () => Promise.resolve(passphrase ?? ''))
  const isAsked = given.rootTo.length > 0 && passphrase !== null
  return { ...size, to: given.rootTo, passphrase: isAsked ? own : () => Promise.resolve(passphrase) }
}

async function choosePassphrase(given: InitArguments, around: Surroundings): Promise<string | null> {
  if (given.passphrase) return readNewPassphrase(passphraseSources(around, given.passphraseFd))
  talk(around, 'warning: the keys are kept unencrypted; whoever gets at them can sign for this site')
  return null
}

function settingsText({ preset, site, group, origin }: InitArguments): string {
  return `# What gapferry collects, and for whom. All keys: the manual, bundler/README.md.
apiVersion: gapferry/v1
kind: Fleet
store: ./store            # fetched files, shared by all sites
keys: ./keys              # signing keys: back them up, keep the root keys elsewhere
budget: 600MB             # what one pull may let over the link; the next goes on

sites:
  - name: ${yamlText(site)}
    groups:
      - name: ${yamlText(group)}
        preset: ${preset}
        origin: ${yamlText(origin)}   # where the boxes will reach the mirror
        # yum:                       # override an entry of the preset by its id, or add your own
        #   - id: sng-pkgs
        #     include: ["asterisk*", "sangoma-pbx*"]
        #     newest: 1
        # modules:                   # the preset's feed; once there is an inventory of a box
        #   policy: { endpoint: pin 16.0.1.5, superfecta: block }
        # files:
        #   - url: https://vendor.example/phone.bin
        #     as: firmware/phone.bin
`
}
