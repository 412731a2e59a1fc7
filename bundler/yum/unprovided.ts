/**
 * What carried packages require and no carried package provides: the boxes must have it already. A list for people, not a
 * resolver: it knows nothing of what is installed.
 */
import type { Checksum } from '../../manifests/digest.ts'
import { formatRelation, rangesOverlap, type Relation } from '../../manifests/rpm-version.ts'
import { packageRow, pathsOf, relationsOf } from '../../manifests/package-columns.ts'
import { TableReader } from '../../manifests/package-reader.ts'
import { seemsWanted } from '../../manifests/package-xml.ts'
import { StringPool } from '../../manifests/string-pool.ts'
import { atomsOf } from './requirements.ts'
import { findFiles, readList, type ListBlobs, type ListReader, type PackageList } from './yum-lists.ts'

export interface UnprovidedRequirement {
  /** as rpm writes it: `libx >= 1.0` */
  requirement: string
  /** NEVRA of a package that needs it */
  by: string
}

/** What is carried of one repository. */
export interface CarriedPart {
  id: string
  data: ListBlobs
  packages: readonly { checksum: Checksum }[]
}

interface Requirement {
  relation: Relation
  by: string
}

/** @param parts  everything that a group's boxes will find
 *  @returns one list per part, each requirement once, sorted
 *  @throws what reading the lists throws */
export async function findUnprovided(
  parts: readonly CarriedPart[],
  reader: ListReader,
): Promise<UnprovidedRequirement[][]> {
  const provides = new Map<string, Relation[]>()
  const files = new Set<string>()
  const required: Map<string, Requirement>[] = []
  for (const part of parts) required.push(await readRequirements(part, reader, provides, files))
  const open = required.map((all) =>
    [...all].filter(([, { relation }]) => !files.has(relation.name) && !isProvided(relation, provides)),
  )
  const paths = new Set(open.flat().map(([, { relation }]) => relation.name))
  for (const path of paths) if (!path.startsWith('/')) paths.delete(path)
  // filelists are large: they are read only for paths that primary does not have
  for (const part of paths.size === 0 ? [] : parts) await dropFiles(part, reader, paths)
  return open.map((list) =>
    list
      .filter(([, { relation }]) => !relation.name.startsWith('/') || paths.has(relation.name))
      .map(([requirement, { by }]) => ({ requirement, by }))
      .sort((a, b) => (a.requirement < b.requirement ? -1 : 1)),
  )
}

/** Adds to `provides` and `files` what the part's packages bring. @returns what they require, by its text */
async function readRequirements(
  { id, data, packages }: CarriedPart,
  reader: ListReader,
  provides: Map<string, Relation[]>,
  files: Set<string>,
): Promise<Map<string, Requirement>> {
  const required = new Map<string, Requirement>()
  if (packages.length === 0) return required
  const list: PackageList = { type: 'primary', blob: data.primary, what: `primary of ${id}` }
  const ids = new StringPool()
  for (const { checksum } of packages) ids.intern(checksum.hex)
  const found = new TableReader(new StringPool(), list.what)
  await readList(list, reader, (element) => {
    if (seemsWanted(element, ids)) found.add(element)
  })
  const table = found.table()
  for (let i = 0; i < table.count; i++) {
    const { name, epoch, version, release, nevra } = packageRow(table, i)
    for (const one of [{ name, flags: 'EQ' as const, epoch, version, release }, ...relationsOf(table, 'provides', i)]) {
      const known = provides.get(one.name)
      if (known === undefined) provides.set(one.name, [one])
      else known.push(one)
    }
    for (const path of pathsOf(table, i)) files.add(path)
    for (const relation of relationsOf(table, 'requires', i).flatMap(atomsOf)) {
      const text = formatRelation(relation)
      if (!relation.name.startsWith('rpmlib(') && !required.has(text)) required.set(text, { relation, by: nevra })
    }
  }
  return required
}

/** Takes out of `paths` what a carried package of the part has. */
async function dropFiles({ id, data, packages }: CarriedPart, reader: ListReader, paths: Set<string>): Promise<void> {
  if (data.filelists === undefined || packages.length === 0) return
  const ids = new Set(packages.map((one) => one.checksum.hex))
  const list: PackageList = { type: 'filelists', blob: data.filelists, what: `filelists of ${id}` }
  for (const [path, owners] of await findFiles(list, paths, reader))
    if ([...owners].some((owner) => ids.has(owner))) paths.delete(path)
}

function isProvided(relation: Relation, provides: Map<string, Relation[]>): boolean {
  return provides.get(relation.name)?.some((provide) => rangesOverlap(provide, relation)) === true
}
