/**
 * What carried packages require and no carried package provides: the boxes must have it already. A list for people, not a
 * resolver: it knows nothing of what is installed.
 */
import type { Checksum } from '../manifests/digest.ts'
import { formatRelation, rangesOverlap, type Relation } from '../manifests/rpm-version.ts'
import { guessPackageId, readPackageId, readPackageStrictly } from '../manifests/package-xml.ts'
import { atomsOf } from './requirements.ts'
import { readList, type ListBlobs, type ListReader, type PackageList } from './yum-lists.ts'

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
  for (const part of paths.size === 0 ? [] : parts) await findFiles(part, reader, paths)
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
  const list: PackageList = { type: 'primary', blob: data.primary, what: `primary of ${id}` }
  await readCarried(list, packages, reader, guessPackageId, (element) => {
    const found = readPackageStrictly(element, list.what)
    const { name, epoch, version, release, nevra } = found.row
    for (const one of [{ name, flags: 'EQ' as const, epoch, version, release }, ...found.provides]) {
      const known = provides.get(one.name)
      if (known === undefined) provides.set(one.name, [one])
      else known.push(one)
    }
    for (const path of found.files) files.add(path)
    for (const relation of found.requires.flatMap(atomsOf)) {
      const text = formatRelation(relation)
      if (!relation.name.startsWith('rpmlib(') && !required.has(text)) required.set(text, { relation, by: nevra })
    }
  })
  return required
}

/** Takes out of `paths` what a carried package of the part has. */
async function findFiles({ id, data, packages }: CarriedPart, reader: ListReader, paths: Set<string>): Promise<void> {
  if (data.filelists === undefined) return
  const what = `filelists of ${id}`
  const list: PackageList = { type: 'filelists', blob: data.filelists, what }
  await readCarried(
    list,
    packages,
    reader,
    (element) => readPackageId(element, what),
    (element) => {
      for (const [, path] of element.toString('utf8').matchAll(/<file(?:\s[^>]*)?>([^<]*)</g))
        paths.delete(unescape(path!))
    },
  )
}

async function readCarried(
  list: PackageList,
  packages: CarriedPart['packages'],
  reader: ListReader,
  idOf: (element: Buffer) => string,
  onPackage: (element: Buffer) => void,
): Promise<void> {
  const ids = new Set(packages.map((one) => one.checksum.hex))
  if (ids.size === 0) return
  await readList(list, reader, (element) => {
    if (ids.has(idOf(element))) onPackage(element)
  })
}

function isProvided(relation: Relation, provides: Map<string, Relation[]>): boolean {
  return provides.get(relation.name)?.some((provide) => rangesOverlap(provide, relation)) === true
}

const ENTITIES: Record<string, string> = { amp: '&', lt: '<', gt: '>', quot: '"', apos: "'" }

function unescape(text: string): string {
  return text.replace(/&(\w+);/g, (whole, name: string) => ENTITIES[name] ?? whole)
}
