import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import SqliteDatabase from 'better-sqlite3'
import { mustRun } from './process.ts'
import { archOf, payloadOf, type PackageSpec } from './rpm-spec.ts'

/** rpm's tag numbers and types, as `rpm --querytags` and its headers have them. */
const TAG = { name: 1000, version: 1001, release: 1002, epoch: 1003, arch: 1022, sourceRpm: 1044 }
const FILES = { dirIndexes: 1116, baseNames: 1117, dirNames: 1118 }
const RELATIONS = {
  provides: { name: 1047, flags: 1112, version: 1113 },
  requires: { name: 1049, flags: 1048, version: 1050 },
  conflicts: { name: 1054, flags: 1053, version: 1055 },
  obsoletes: { name: 1090, flags: 1114, version: 1115 },
  recommends: { name: 5046, flags: 5048, version: 5047 },
  supplements: { name: 5052, flags: 5054, version: 5053 },
} as const
const TYPE = { int32: 4, string: 6, stringArray: 8 }
const SENSES: Record<string, number> = { '<': 2, '>': 4, '=': 8, '<=': 10, '>=': 12 }

/** Makes an rpm database (sqlite, as rpm 4.18 has it) below `root`/var/lib/rpm in which these packages are installed: what
 *  rpm answers for `-qa`, without building, signing or installing anything. `name = evr` is provided by each. */
export async function makeRpmDatabase(root: string, specs: readonly PackageSpec[]): Promise<void> {
  const dir = join(root, 'var/lib/rpm')
  mkdirSync(dir, { recursive: true })
  await mustRun('rpm', ['--root', root, '--dbpath', '/var/lib/rpm', '--initdb'])
  const db = new SqliteDatabase(join(dir, 'rpmdb.sqlite'))
  const insert = db.prepare('INSERT INTO Packages (blob) VALUES (?)')
  db.transaction(() => specs.forEach((spec) => insert.run(headerOf(spec))))()
  db.close()
}

type Entry = [tag: number, type: number, count: number, data: Buffer]

function headerOf(spec: PackageSpec): Buffer {
  const evr = `${spec.epoch === undefined ? '' : `${spec.epoch}:`}${spec.version}-${spec.release ?? '1'}`
  const entries: Entry[] = [
    text(TAG.name, spec.name),
    text(TAG.version, spec.version),
    text(TAG.release, spec.release ?? '1'),
    text(TAG.arch, archOf(spec)),
    text(TAG.sourceRpm, `${spec.name}.src.rpm`),
    ...(spec.epoch === undefined ? [] : [numbers(TAG.epoch, [spec.epoch])]),
    ...filesOf([...payloadOf(spec).keys()]),
  ]
  for (const [kind, tags] of Object.entries(RELATIONS)) {
    const own = kind === 'provides' ? [`${spec.name} = ${evr}`] : []
    const list = [...own, ...(spec[kind as keyof typeof RELATIONS] ?? [])].map(relation)
    if (list.length === 0) continue
    entries.push(
      texts(
        tags.name,
        list.map((one) => one.name),
      ),
    )
    entries.push(
      numbers(
        tags.flags,
        list.map((one) => one.flags),
      ),
    )
    entries.push(
      texts(
        tags.version,
        list.map((one) => one.version),
      ),
    )
  }
  return blob(entries.sort((a, b) => a[0] - b[0]))
}

function relation(text: string): { name: string; flags: number; version: string } {
  const match = /^([^(].*?) (<=|>=|<|>|=) (\S+)$/.exec(text)
  if (match === null || text.startsWith('(')) return { name: text, flags: 0, version: '' }
  return { name: match[1]!, flags: SENSES[match[2]!]!, version: match[3]! }
}

function filesOf(paths: string[]): Entry[] {
  const split = paths.map((path) => [path.slice(0, path.lastIndexOf('/') + 1), path.slice(path.lastIndexOf('/') + 1)])
  const folders = [...new Set(split.map(([folder]) => folder!))]
  return [
    numbers(
      FILES.dirIndexes,
      split.map(([folder]) => folders.indexOf(folder!)),
    ),
    texts(
      FILES.baseNames,
      split.map(([, name]) => name!),
    ),
    texts(FILES.dirNames, folders),
  ]
}

function text(tag: number, value: string): Entry {
  return [tag, TYPE.string, 1, Buffer.from(`${value}\0`, 'latin1')]
}

function texts(tag: number, values: string[]): Entry {
  return [tag, TYPE.stringArray, values.length, Buffer.from(values.map((value) => `${value}\0`).join(''), 'latin1')]
}

function numbers(tag: number, values: number[]): Entry {
  const data = Buffer.alloc(values.length * 4)
  values.forEach((value, i) => data.writeUInt32BE(value, i * 4))
  return [tag, TYPE.int32, values.length, data]
}

/** The form in the database: number of entries, bytes of data, entries, data; numbers aligned to four bytes. */
function blob(entries: Entry[]): Buffer {
  const index = Buffer.alloc(8 + entries.length * 16)
  const data: Buffer[] = []
  let offset = 0
  entries.forEach(([tag, type, count, bytes], i) => {
    if (type === TYPE.int32 && offset % 4 !== 0) {
      data.push(Buffer.alloc(4 - (offset % 4)))
      offset += 4 - (offset % 4)
    }
    for (const [j, value] of [tag, type, offset, count].entries()) index.writeUInt32BE(value, 8 + i * 16 + j * 4)
    data.push(bytes)
    offset += bytes.length
  })
  index.writeUInt32BE(entries.length, 0)
  index.writeUInt32BE(offset, 4)
  return Buffer.concat([index, ...data])
}
