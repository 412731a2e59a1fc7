/** The metadata of a repository of 30,000 packages: primary of 69 MB, filelists of 286 MB, as createrepo_c writes them. */
import { closeSync, openSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import type { CarriedPackage } from '../../bundler/yum/repodata.ts'
import { formatNevra } from '../../manifests/rpm-version.ts'
import { generated } from './folders.ts'
import { randomFrom } from './random.ts'
import {
  CARRIED_EVERY,
  filelistsElement,
  PACKAGES,
  primaryElement,
  samplePackage,
  type SamplePackage,
} from './repository-shape.ts'

/** Raise it with every change of what is made. */
const VERSION = 1
const NAMESPACES =
  'xmlns="http://linux.duke.edu/metadata/common" xmlns:rpm="http://linux.duke.edu/metadata/rpm"' as const

/** Files, all of them unpacked. */
export interface SampleRepository {
  primary: string
  filelists: string
  /** a primary of the carried packages alone */
  carriedPrimary: string
  /** which they are: CarriedPackage[] as JSON */
  carried: string
}

export async function sampleRepository(): Promise<SampleRepository> {
  const folder = await generated('repository', VERSION, makeRepository)
  return filesIn(folder)
}

function filesIn(folder: string): SampleRepository {
  return {
    primary: join(folder, 'primary.xml'),
    filelists: join(folder, 'filelists.xml'),
    carriedPrimary: join(folder, 'carried.xml'),
    carried: join(folder, 'carried.json'),
  }
}

function makeRepository(folder: string): void {
  const files = filesIn(folder)
  const random = randomFrom(2)
  const primary = new Document(files.primary, 'metadata', NAMESPACES, PACKAGES)
  const carriedPrimary = new Document(files.carriedPrimary, 'metadata', NAMESPACES, PACKAGES / CARRIED_EVERY)
  const namespace = 'xmlns="http://linux.duke.edu/metadata/filelists"'
  const filelists = new Document(files.filelists, 'filelists', namespace, PACKAGES)
  const carried: CarriedPackage[] = []
  for (let i = 0; i < PACKAGES; i++) {
    const one = samplePackage(random, i)
    primary.add(primaryElement(one))
    filelists.add(filelistsElement(one))
    if (i % CARRIED_EVERY !== 0) continue
    carriedPrimary.add(primaryElement(one))
    carried.push(carriedPackage(one))
  }
  for (const document of [primary, carriedPrimary, filelists]) document.end()
  writeFileSync(files.carried, JSON.stringify(carried))
}

function carriedPackage(one: SamplePackage): CarriedPackage {
  const { href, bytes, checksum } = one
  return { nevra: formatNevra({ ...one, epoch: '0' }), href, bytes, checksum: { algorithm: 'sha256', hex: checksum } }
}

/** An XML file that is written piece by piece. */
export class Document {
  readonly #fd: number
  readonly #root: string
  #pieces: string[] = []

  constructor(file: string, root: string, namespaces: string, packages: number) {
    this.#fd = openSync(file, 'w')
    this.#root = root
    this.add(`<?xml version="1.0" encoding="UTF-8"?>\n<${root} ${namespaces} packages="${packages}">\n`)
  }

  add(text: string): void {
    this.#pieces.push(text)
    if (this.#pieces.length >= 100) this.#flush()
  }

  end(): void {
    this.add(`</${this.#root}>`)
    this.#flush()
    closeSync(this.#fd)
  }

  #flush(): void {
    const bytes = Buffer.from(this.#pieces.join(''))
    for (let done = 0; done < bytes.length;) done += writeSync(this.#fd, bytes, done)
    this.#pieces = []
  }
}
