/**
 * A planned group and its fetched blobs → what the group's boxes shall find: packages, repository metadata cut to them,
 * vendor files, keys, and the `.repo` file that points a box here.
 */
import { GapferryError } from '../manifests/errors.ts'
import { parityPath, serializeParity } from '../manifests/parity.ts'
import { parseTreePath, type TreePath } from '../manifests/path.ts'
import type { TreeEntry } from '../manifests/tree.ts'
import type { BlobBatch } from '../storage/blobs.ts'
import { ownEntry, type GroupContent, type RepositoryContent } from './compose.ts'
import { moduleEntries, type ModuleContentSources } from './modules/module-content.ts'
import type { FetchedBlob } from './fetched.ts'
import type { PlannedGroup, PlannedPackage, PlannedRepository } from './plan.ts'
import { BOX_TOOL_PATH, boxTool } from './box/tool.ts'
import { SETUP_PATH, setupText } from './box/setup-text.ts'
import { composeRepodata, packagePath } from './yum/repodata.ts'

export interface ContentSources extends ModuleContentSources {
  /** @throws PLAN_UNFETCHED */
  fetchedPackage: (one: PlannedPackage) => FetchedBlob
  /** the site's public OpenPGP key, armored */
  siteKey: string
}

/** @throws PATH_CONFLICT when two things want one path */
export async function groupContent(group: PlannedGroup, sources: ContentSources): Promise<GroupContent> {
  const entries = new Map<TreePath, TreeEntry>()
  const repositories = new Map<string, RepositoryContent>()
  const batch = sources.store.batch()
  try {
    for (const repo of group.yum) {
      addAll(entries, packageEntries(repo, sources))
      const { repomd, files } = await cutRepodata(repo, sources, batch)
      addAll(entries, files)
      repositories.set(repo.id, { repomd, upstreamStamp: repo.upstreamStamp })
    }
    if (group.modules !== undefined) addAll(entries, await moduleEntries(group.modules, sources, batch))
    addAll(entries, fileEntries(group, sources))
    addAll(entries, boxEntries(group, entries, sources, batch))
    await batch.commit()
  } catch (error) {
    batch.discard()
    throw error
  }
  return { group: group.name, origin: group.origin, entries, repositories }
}

/** The `.repo` file of a group. Every option is written out, because the defaults of yum and dnf differ; a bad signature
 *  must stop the box (skip_if_unavailable=0), and a release must be seen at once (metadata_expire).
 *  Rule: shared by yum 3.4.3 and dnf 4; keys are local files, because a key fetched from the origin proves nothing. */
function repoFile(group: Pick<PlannedGroup, 'name' | 'origin' | 'yum'>): string {
  const head = [
    `# /etc/yum.repos.d/gapferry-${group.name}.repo`,
    `# keys: ${group.origin}/keys/ -> /etc/pki/rpm-gpg/; compare the site key's fingerprint before trusting it`,
  ]
  const sections = group.yum.map((repo) => [
    '',
    `[${repo.id}]`,
    `name=${repo.id} (Gapferry)`,
    `baseurl=${group.origin}/yum/${repo.id}/`,
    'enabled=1',
    `gpgcheck=${repo.gpgcheck ? 1 : 0}`,
    'repo_gpgcheck=1',
    `gpgkey=file:///etc/pki/rpm-gpg/RPM-GPG-KEY-gapferry`,
    ...(repo.gpgcheck ? [`  file:///etc/pki/rpm-gpg/RPM-GPG-KEY-gapferry-${repo.id}`] : []),
    'metadata_expire=60',
    'skip_if_unavailable=0',
    'deltarpm=0',
  ])
  return [...head, ...sections.flat(), ''].join('\n')
}

function packageEntries(repo: PlannedRepository, sources: ContentSources): Map<TreePath, TreeEntry> {
  const entries = new Map<TreePath, TreeEntry>()
  for (const one of repo.packages) {
    const { sha256, bytes, verdict } = sources.fetchedPackage(one)
    const source = new URL(one.href, repo.baseurls[0]).href
    entries.set(packagePath(repo.id, one.href), {
      sha256,
      bytes,
      modified: one.modified,
      type: 'application/x-rpm',
      kind: 'immutable',
      source: withoutCredentials(source),
      verdict,
    })
  }
  return entries
}

async function cutRepodata(
  repo: PlannedRepository,
  { store, nowMs }: ContentSources,
  batch: BlobBatch,
): Promise<{ repomd: RepositoryContent['repomd']; files: Map<TreePath, TreeEntry> }> {
  const { repomd, files } = await composeRepodata({
    id: repo.id,
    data: repo.data,
    packages: repo.packages,
    store,
    ...(repo.earlier === undefined ? {} : { earlier: repo.earlier }),
  })
  const entries = new Map<TreePath, TreeEntry>()
  for (const { path, bytes } of files) {
    const about = { modified: Math.floor(nowMs / 1000), type: 'application/gzip', kind: 'immutable' as const }
    entries.set(path, ownEntry(batch, bytes, about))
  }
  return { repomd, files: entries }
}

function fileEntries(group: PlannedGroup, sources: ContentSources): Map<TreePath, TreeEntry> {
  const entries = new Map<TreePath, TreeEntry>()
  for (const file of group.files) {
    const { sha256, bytes, verdict } = sources.fetchedFile(file)
    entries.set(file.as, {
      sha256,
      bytes,
      modified: Math.floor(sources.nowMs / 1000),
      type: 'application/octet-stream',
      // A pointer, because the vendor may put other bytes under the same name tomorrow.
      kind: 'pointer',
      source: withoutCredentials(file.url),
      verdict,
    })
  }
  return entries
}

/** What a box needs to point itself here, the `.repo` file and the keys it names; and what its update was planned to be. */
function boxEntries(
  group: PlannedGroup,
  inTree: ReadonlyMap<TreePath, TreeEntry>,
  sources: ContentSources,
  batch: BlobBatch,
): Map<TreePath, TreeEntry> {
  const entries = new Map<TreePath, TreeEntry>()
  const add = (path: string, text: string | Buffer, type: string): void => {
    const about = { modified: Math.floor(sources.nowMs / 1000), type, kind: 'pointer' as const }
    entries.set(parseTreePath(path, group.name), ownEntry(batch, Buffer.from(text), about))
  }
  add(BOX_TOOL_PATH, boxTool(), 'text/plain')
  add(SETUP_PATH, setupText(group, [...inTree.keys()]), 'text/plain')
  add('keys/site.asc', sources.siteKey, 'application/pgp-keys')
  if (group.yum.length > 0) add(`gapferry-${group.name}.repo`, repoFile(group), 'text/plain')
  for (const repo of group.yum) {
    if (repo.gpgcheck && repo.gpgkey !== undefined) add(`keys/${repo.id}.asc`, repo.gpgkey, 'application/pgp-keys')
  }
  for (const { name, manager, ...box } of group.yum.length === 0 ? [] : group.boxes) {
    if (manager === 'apt') continue
    add(parityPath(name), serializeParity({ box: name, manager, ...box }).toString('ascii'), 'text/plain')
  }
  return entries
}

function addAll(to: Map<TreePath, TreeEntry>, from: Map<TreePath, TreeEntry>): void {
  for (const [path, entry] of from) {
    const there = to.get(path)
    if (there !== undefined && there.sha256 !== entry.sha256) {
      throw new GapferryError('PATH_CONFLICT', `two things of different content want the path ${path}`, {
        hint: 'give one of them another place, or exclude it',
      })
    }
    to.set(path, entry)
  }
}

function withoutCredentials(text: string): string {
  const url = new URL(text)
  url.username = ''
  url.password = ''
  url.search = ''
  return url.href.slice(0, 2048)
}
