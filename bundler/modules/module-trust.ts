/**
 * Whose signature counts for the modules of a group, and who needs none. What was found out about a file is kept by what it
 * was held against, the feed's words and the group's keys; whether that is good enough is asked anew each time.
 */
import { sha256Of, type Sha256 } from '../../manifests/digest.ts'
import { checksumText } from '../../manifests/digest.ts'
import { GapferryError } from '../../manifests/errors.ts'
import { canonicalJson } from '../../manifests/json.ts'
import type { Verdict } from '../../manifests/tree.ts'
import type { ModuleFile } from '../../storage/ledger.ts'
import type { Fleet } from '../config.ts'
import { boxesByGroup } from '../inventories.ts'
import type { Plan } from '../plan.ts'
import type { PlannedModule, PlannedModules } from './planned-modules.ts'
import { moduleKeys, type ModuleKey } from './vendor-keys.ts'

export interface ModuleTrust {
  /** `site / group` */
  name: string
  /** keys that modules may be signed by */
  keys: ModuleKey[]
  /** over all that is known of the keys: another one where a key was added, renewed or revoked */
  keysDigest: Sha256
  /** rawnames that are taken without one of these */
  allowed: ReadonlySet<string>
}

/** Somebody who wants a module. */
export interface ModuleWish {
  one: PlannedModule
  trust: ModuleTrust
}

/** Who wants which file, by its checksum.
 *  @throws MODULE_KEY_MISSING before anything is fetched; as moduleTrust */
export async function moduleWishes(fleet: Fleet, plan: Plan): Promise<Map<string, ModuleWish[]>> {
  const wishes: [string, ModuleWish][] = []
  for (const { name: site, groups } of plan.sites) {
    for (const { name: group, modules: planned } of groups) {
      if (planned === undefined) continue
      const trust = await moduleTrust(fleet, site, group)
      refuseWithoutKeys(planned, trust)
      for (const one of planned.modules) wishes.push([checksumText(one.checksum), { one, trust }])
    }
  }
  return new Map([...Map.groupBy(wishes, ([key]) => key)].map(([key, list]) => [key, list.map(([, wish]) => wish)]))
}

/** What the settings of a group and its boxes say now.
 *  @throws KEY_INVALID; BOX_UNGROUPED, INVENTORY_INVALID, SITE_UNKNOWN */
export async function moduleTrust(fleet: Fleet, site: string, group: string): Promise<ModuleTrust> {
  const settings = fleet.sites.find((one) => one.name === site)?.groups.find((one) => one.name === group)?.modules
  const name = `${site} / ${group}`
  const boxes = settings === undefined ? [] : (boxesByGroup(fleet, site).get(group) ?? [])
  const inventories = boxes.flatMap(({ inventory: { freepbx } }) => freepbx ?? [])
  const keys = await moduleKeys({ files: settings?.keys ?? [], inventories })
  return { name, keys, keysDigest: digestOf(keys), allowed: new Set(settings?.allowUnsigned) }
}

function digestOf(keys: readonly ModuleKey[]): Sha256 {
  return sha256Of(
    Buffer.concat(
      keys
        .map(({ key }) => sha256Of(key.write()))
        .sort()
        .map((hex) => Buffer.from(hex)),
    ),
  )
}

/** One spelling of what a file is held against for a group. */
export function heldAgainst({ one, trust }: ModuleWish): string {
  return canonicalJson({ ...one.expected, keys: trust.keysDigest }).toString()
}

/** What a bundle may say of the file's signature; undefined where the file may not be in one.
 *  @param file  held against this wish */
export function acceptedVerdict(file: ModuleFile, { one, trust }: ModuleWish): Verdict | undefined {
  return file.verdict === 'good' || trust.allowed.has(one.rawname) ? file.verdict : undefined
}

/** @throws MODULE_SIGNATURE where the group does not take this file */
export function refuseUntrusted(file: ModuleFile, wish: ModuleWish): void {
  if (acceptedVerdict(file, wish) !== undefined) return
  const { one, trust } = wish
  const expected = trust.keys.map(({ fingerprint }) => fingerprint).join(' or ')
  const found = file.why ?? `its signature is by ${file.signer ?? 'nobody known'}`
  throw new GapferryError(
    'MODULE_SIGNATURE',
    `${one.rawname} ${one.version} for ${trust.name}: ${found}; expected a signature of ${expected || 'a pinned key'}`,
    {
      hint:
        `leave it out: modules: { policy: { ${one.rawname}: block } } in gapferry.yaml; ` +
        `or take it as it is: allowUnsigned: [${one.rawname}]; then gapferry pull`,
    },
  )
}

/** @returns what is wrong where modules are signed and no key is here to judge them by */
export function withoutKeys({ modules }: Pick<PlannedModules, 'modules'>, trust: ModuleTrust): string | undefined {
  const one = modules.find(({ isSigned, rawname }) => isSigned && !trust.allowed.has(rawname))
  return one === undefined || trust.keys.length > 0
    ? undefined
    : 'modules are signed, and no key is here to judge them by'
}

/** Before the link is spent on what could not be judged. */
function refuseWithoutKeys(planned: PlannedModules, trust: ModuleTrust): void {
  const why = withoutKeys(planned, trust)
  if (why === undefined) return
  throw new GapferryError('MODULE_KEY_MISSING', `${trust.name}: ${why}; nothing of them was fetched`, {
    hint:
      'add the inventory of a box, which brings the vendor’s keys (gapferry inventory add), ' +
      'or name a file with them: modules: { keys: [FILE] }',
  })
}
