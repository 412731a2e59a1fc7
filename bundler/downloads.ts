/** What a plan comes to in files of the upstreams: each once, however many groups want it. */
import { checksumText } from '../manifests/digest.ts'
import type { RemoteFile } from './fetch.ts'
import { moduleFile, type PlannedModule } from './modules/planned-modules.ts'
import type { Plan, PlannedGroup, PlannedPackage, PlannedRepository } from './plan.ts'
import type { PlannedFile } from './upstream-files.ts'

/** One thing to fetch, however many groups want it. */
export type Download =
  | { kind: 'package'; remote: RemoteFile; package: PlannedPackage; bytes: number }
  | { kind: 'module'; remote: RemoteFile; module: PlannedModule; bytes: number }
  | { kind: 'file'; file: PlannedFile; bytes: number }

/** Everything the plan carries, each upstream file once. */
export function downloadsOf(plan: Plan): Download[] {
  const downloads = new Map<string, Download>()
  for (const group of plan.sites.flatMap((site) => site.groups)) {
    for (const repo of group.yum) {
      for (const one of repo.packages) {
        const key = checksumText(one.checksum)
        if (!downloads.has(key)) downloads.set(key, packageDownload(repo, one))
      }
    }
    for (const one of group.modules?.modules ?? []) {
      const key = checksumText(one.checksum)
      const remote = moduleFile(group.modules!.feed, one)
      if (!downloads.has(key)) downloads.set(key, { kind: 'module', remote, module: one, bytes: one.bytes ?? 0 })
    }
    for (const file of filesOf(group)) {
      // With its digest: one address may be wanted as it is and as it is declared to be.
      const key = `${file.url} ${file.sha256 ?? ''}`
      if (!downloads.has(key)) downloads.set(key, { kind: 'file', file, bytes: file.bytes ?? 0 })
    }
  }
  return [...downloads.values()]
}

/** Files that have no list with digests: those that the settings name, and sounds. */
export function filesOf({ files, modules }: Pick<PlannedGroup, 'files' | 'modules'>): PlannedFile[] {
  return [...files, ...(modules?.sounds.files ?? [])]
}

/** As messages call it. */
export function nameOf(one: Download): string {
  return one.kind === 'file' ? one.file.as : one.remote.what
}

/** Whether a server told its size. */
export function isSized(one: Download): boolean {
  return (one.kind === 'file' ? one.file : one.kind === 'module' ? one.module : one).bytes !== null
}

function packageDownload(repo: PlannedRepository, one: PlannedPackage): Download {
  const remote = {
    urls: repo.baseurls.map((base) => new URL(one.href, base.endsWith('/') ? base : `${base}/`).href),
    bytes: one.bytes,
    checksum: one.checksum,
    maxBytes: one.bytes,
    what: one.nevra,
  }
  return { kind: 'package', remote, package: one, bytes: one.bytes }
}
