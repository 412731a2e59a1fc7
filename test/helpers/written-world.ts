import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { primaryOf } from '../../bundler/yum/solver-case.ts'
import { sha256Of } from '../../manifests/digest.ts'
import { StringPool, tableOf } from '../../manifests/package-table.ts'
import { writeRepomd, type RepomdData } from '../../manifests/repomd.ts'
import { formatNevra, formatRelation } from '../../manifests/rpm-version.ts'
import { escapeXml } from '../../manifests/xml.ts'
import { inventoryText, type InventoryParts } from './inventory-text.ts'
import { factsOf, type UniversePackage } from './universe.ts'

/** Writes the metadata of a repository with these packages, without any RPM: enough for a plan.
 *  @param dir  made when absent
 *  @param paths  what filelists say beyond primary: path → NEVRA; null: the repository has no filelists */
export function writeRepository(
  dir: string,
  packages: readonly UniversePackage[],
  paths: Record<string, string> | null = {},
): void {
  mkdirSync(join(dir, 'repodata'), { recursive: true })
  const lists = {
    primary: primaryText(packages),
    ...(paths === null ? {} : { filelists: filelistsText(packages, paths) }),
  }
  const data = Object.entries(lists).map(([type, text]): RepomdData => {
    const bytes = Buffer.from(text)
    writeFileSync(join(dir, `repodata/${type}.xml`), bytes)
    const checksum = { algorithm: 'sha256', hex: sha256Of(bytes) } as const
    return { type, href: `repodata/${type}.xml`, checksum, bytes: bytes.length, timestamp: 1_700_000_000 }
  })
  writeFileSync(join(dir, 'repodata/repomd.xml'), writeRepomd({ revision: '1', data }))
}

/** The inventory of a box that has these packages. */
export function universeInventory(packages: readonly UniversePackage[], parts: InventoryParts = {}): string {
  const relations = new Map<string, number>()
  const numberOf = (text: string): number => relations.get(text) ?? relations.set(text, relations.size + 1).size
  const lines = packages.map((one) => {
    const facts = factsOf(one)
    const { name, epoch, version, release, arch } = facts
    const self = { name, flags: 'EQ', epoch, version, release } as const
    const lists = {
      p: [self, ...(facts.provides ?? [])].map(formatRelation),
      r: facts.requires?.map(formatRelation),
      o: facts.obsoletes?.map(formatRelation),
      c: facts.conflicts?.map(formatRelation),
      f: facts.files,
    }
    const words = Object.entries(lists).flatMap(([letter, texts = []]) =>
      texts.length === 0 ? [] : [`${letter}=${texts.map(numberOf).join(',')}`],
    )
    return [name, epoch || '0', version, release, arch, ...words].join(' ')
  })
  return inventoryText({ ...parts, sections: { relations: [...relations.keys()], packages: lines, ...parts.sections } })
}

function primaryText(packages: readonly UniversePackage[]): string {
  const table = tableOf(new StringPool(), packages.map(factsOf))
  const elements = [...primaryOf([{ table, rows: packages.keys() }])]
  let i = 0
  return elements
    .join('')
    .replace('<metadata ', `<metadata packages="${packages.length}" `)
    .replace(/<format>/g, () => {
      const nevra = nevraOf(packages[i++]!)
      return (
        `<checksum type="sha256" pkgid="YES">${sha256Of(nevra)}</checksum><time file="1700000000" build="1"/>` +
        `<size package="1000" installed="1" archive="1"/><location href="${escapeXml(nevra)}.rpm"/><format>`
      )
    })
}

function filelistsText(packages: readonly UniversePackage[], paths: Record<string, string>): string {
  const elements = packages.map((one) => {
    const { name, epoch, version, release, arch, files = [] } = factsOf(one)
    const nevra = nevraOf(one)
    const own = Object.keys(paths).filter((path) => paths[path] === nevra)
    const list = [...files, ...own].map((path) => `<file>${escapeXml(path)}</file>`).join('')
    const evr = `<version epoch="${epoch}" ver="${version}" rel="${release}"/>`
    return `<package pkgid="${sha256Of(nevra)}" name="${escapeXml(name)}" arch="${arch}">${evr}${list}</package>\n`
  })
  const root = `<filelists xmlns="http://linux.duke.edu/metadata/filelists" packages="${packages.length}">`
  return `<?xml version="1.0" encoding="UTF-8"?>\n${root}\n${elements.join('')}</filelists>\n`
}

function nevraOf(one: UniversePackage): string {
  return formatNevra(factsOf(one))
}
