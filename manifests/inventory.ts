/**
 * The inventory: what one box says of itself, as `gapferry-box inventory` writes it. Raw facts; what they mean is decided
 * where they are read. FORMAT.md#inventory.
 */
import type { Sha256 } from './digest.ts'
import type { PackageFacts } from './package-table.ts'

export interface Inventory {
  /** the box's host name as it says it; names the box unless the person gives another */
  box: string
  /** RFC 3339, UTC, whole seconds; of a stand-in: when it was added */
  createdAt: string
  /** of the file's bytes */
  digest: Sha256
  /** over what decides an update: installed packages, and the settings that choose between versions. The box computes the
   *  same (`gapferry-box parity`). Of a stand-in: over its packages alone */
  stateDigest: Sha256
  /** from os-release, or where there is none from redhat-release */
  distribution: { id: string; version: string; name: string }
  /** the kernel's, as `x86_64`; of a stand-in: of most of its packages */
  arch: string
  manager: 'yum' | 'dnf' | 'apt'
  /** of its package; empty where no package tells */
  managerVersion: string
  /** installed rpms without the entries of keys; `files`: only paths that some installed package requires */
  packages: PackageFacts[]
  /** `[main]` of yum.conf or dnf.conf; keys in lower case, lines of one value joined by a line end */
  mainOptions: Map<string, string>
  /** every section of the configuration and of every repository file, in the order in which the manager reads them; where
   *  an id stands twice, the first one counts. A password is replaced by `***` */
  repositories: InventoryRepository[]
  /** the manager's variables with `releasever` and `basearch` as it computes them; one that nothing tells is missing */
  variables: Map<string, string>
  /** entries of versionlock.list (yum's or dnf's), verbatim, without comments and empty lines; `!` leads an exclusion */
  versionLocks: string[]
  /** enabled plugins by name, as `versionlock`, `priorities`, `protectbase`, `fastestmirror`; none where the manager has them off */
  plugins: string[]
  kernelRunning: string
  freepbx: FreepbxFacts | undefined
  /** facts of a box that is to live without the internet, raw, by name; judged by judgeReadiness */
  readiness: Map<string, string>
  /** true: stands in for an inventory (pasted `rpm -qa`, baseline list): relations of installed packages and settings are
   *  not known */
  isGuess: boolean
}

export interface InventoryRepository {
  id: string
  /** absolute path on the box */
  file: string
  /** as in mainOptions */
  options: Map<string, string>
}

/** What the module feed asks a box for, and what its licenses are. Nothing of a license but its name and its dates. */
export interface FreepbxFacts {
  /** of the framework, as `16.0.40.11`; undefined where neither database nor module.xml tells */
  framework: string | undefined
  modules: { name: string; version: string; state: string; license: string }[]
  /** fields of a module list request by their names there: `astver`, `phpver`, `brandid`, `deploymentid`, … */
  profile: Map<string, string>
  licenses: { file: string; facts: Map<string, string> }[]
  /** 16 hex digits, upper case, of the signing keys that lie beside the framework */
  keys: string[]
}
