/**
 * What stands in for an inventory on the first trip: a pasted `rpm -qa`, and `fwconsole ma list`. Names and versions alone,
 * so the plan has to guess what the packages require. FORMAT.md#inventory.
 */
import { sha256Of } from './digest.ts'
import { GapferryError } from './errors.ts'
import { noFreepbxFacts } from './inventory-freepbx.ts'
import { MAX_INVENTORY_BYTES } from './inventory-lines.ts'
import { stateDigestOf, type FreepbxFacts, type Inventory } from './inventory.ts'
import type { PackageFacts } from './package-table.ts'
import { formatNevra, parseNevra } from './rpm-version.ts'

const MAX_LINES = 30_000
/** Around the table of `fwconsole ma list`. */
const CHATTER = /^(?:No repos specified.*|\+[-+]+\+)$/
const HEADING = /^\|\s*Module\s*\|\s*Version\s*\|/i
const STATES: Record<string, string> = { Enabled: 'enabled', Disabled: 'disabled', Broken: 'broken' }

/** @param bytes  UTF-8; lines `name-[epoch:]version-release.arch` as `rpm -qa` prints them, and the table of
 *                `fwconsole ma list`, in any order; empty lines are passed over
 *  @param box  what it stands in for
 *  @throws INVENTORY_INVALID naming the line that is neither */
export function parseStandIn(bytes: Buffer, box: { name: string; createdAt: string }, what: string): Inventory {
  if (bytes.length > MAX_INVENTORY_BYTES) throw invalid(what, `expected at most ${MAX_INVENTORY_BYTES} bytes`)
  const lines = bytes.toString('utf8').split(/\r?\n/)
  if (lines.length > MAX_LINES) throw invalid(what, `expected at most ${MAX_LINES} lines, found ${lines.length}`)
  const packages = new Map<string, PackageFacts>()
  const modules: FreepbxFacts['modules'] = []
  lines.forEach((raw, i) => {
    const line = raw.trim()
    if (line === '' || CHATTER.test(line) || HEADING.test(line) || line.startsWith('gpg-pubkey-')) return
    const module = moduleOf(line)
    const nevra = parseNevra(line)
    if (module !== undefined) modules.push(module)
    else if (nevra !== undefined && /^[!-~]+$/.test(line)) packages.set(line, nevra)
    else
      throw invalid(
        what,
        `line ${i + 1}: expected a line of "rpm -qa" or "fwconsole ma list", found "${line.slice(0, 60)}"`,
      )
  })
  if (packages.size + modules.length === 0) throw invalid(what, 'expected lines of "rpm -qa", found none')
  return standIn([...packages.values()], modules, { ...box, digest: sha256Of(bytes) })
}

function standIn(
  packages: PackageFacts[],
  modules: FreepbxFacts['modules'],
  box: { name: string; createdAt: string; digest: Inventory['digest'] },
): Inventory {
  const version = (name: string): string | undefined => packages.find((one) => one.name === name)?.version
  const release = packages.find((one) => /^(?:centos|sangoma|redhat|rocky|almalinux)-(?:linux-)?release/.test(one.name))
  const isDnf = version('dnf') !== undefined && version('yum')?.startsWith('3.') !== true
  const manager = isDnf ? 'dnf' : 'yum'
  const id = release?.name.split('-')[0] ?? 'unknown'
  const framework = modules.find((one) => one.name === 'framework')?.version
  return {
    box: box.name,
    machine: undefined,
    createdAt: box.createdAt,
    digest: box.digest,
    stateDigest: stateDigestOf(packages.map(formatNevra), []),
    distribution: { id, version: release?.version ?? '', name: `${id} ${release?.version ?? ''}`.trim() },
    arch: usualArch(packages),
    manager,
    managerVersion: version(manager) ?? '',
    packages,
    mainOptions: new Map(),
    repositories: [],
    variables: new Map(release === undefined ? [] : [['releasever', release.version]]),
    versionLocks: [],
    plugins: [],
    kernelRunning: '',
    rpmKeys: [],
    freepbx: modules.length === 0 ? undefined : { ...noFreepbxFacts(), framework, modules },
    readiness: new Map(),
    isGuess: true,
  }
}

/** `| core | 16.0.68.26 | Enabled | GPLv3+ |`, with a further column where signatures are shown. */
function moduleOf(line: string): FreepbxFacts['modules'][number] | undefined {
  if (!/^\|.*\|$/.test(line)) return undefined
  const [name = '', version = '', state = '', license = ''] = line
    .slice(1, -1)
    .split('|')
    .map((cell) => cell.trim())
  if (!/^[a-z0-9_]{1,64}$/i.test(name)) return undefined
  return {
    name,
    version: version || '?',
    state: STATES[state] ?? (state.toLowerCase().replaceAll(' ', '-') || 'unknown'),
    license: license || '?',
  }
}

function usualArch(packages: readonly PackageFacts[]): string {
  const counts = Map.groupBy(packages, (one) => one.arch)
  counts.delete('noarch')
  const [usual] = [...counts].sort((a, b) => b[1].length - a[1].length)
  return usual?.[0] ?? 'x86_64'
}

function invalid(what: string, why: string): GapferryError {
  return new GapferryError('INVENTORY_INVALID', `${what}: ${why}`, {
    hint: 'take out what is not of these lists, or bring the output of: gapferry-box inventory',
  })
}
