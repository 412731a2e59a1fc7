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
import { loadFleet, parseFleet } from './config.ts'
import { createSiteKeys, loadSite } from './keys.ts'
import { readNewPassphrase } from './passphrase.ts'
import { passphraseSources } from './deliver.ts'

export interface InitArguments {
  preset: string
  site: string
  group: string
  origin: string
  /** one of the four above was given, not left to its default */
  isAsked: boolean
  /** false: `--no-passphrase` */
  passphrase: boolean
  passphraseFd?: string
}

export interface Initialized {
  config: string
  sites: { name: string; isNew: boolean; rootFile: string; fingerprint: string }[]
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
  for (const { name } of missing) {
    await createSiteKeys({ dir: fleet.keysDir, site: name, passphrase, nowMs: around.nowMs() })
  }
  const sites = fleet.sites.map(({ name }) => ({
    name,
    isNew: missing.some((site) => site.name === name),
    rootFile: join(fleet.keysDir, name, '1.root.json'),
    fingerprint: fingerprintWords(loadSite(fleet.keysDir, name).roots[0]!),
  }))
  return { config, sites }
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
budget: 600MB             # a pull that needs more is refused before a byte is spent

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
        # files:
        #   - url: https://vendor.example/phone.bin
        #     as: firmware/phone.bin
`
}
