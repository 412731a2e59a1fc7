/**
 * updateinfo.xml: which advisory names which packages. Nothing in it decides what a box may install, so what is odd about
 * one advisory is left out rather than refused; only what is no XML, or endless, is refused.
 */
import { GapferryError } from './errors.ts'
import { formatNevra, type Nevra } from './rpm-version.ts'
import { feed, endOf, strictParser, type XmlParser } from './xml.ts'

export interface Advisory {
  /** as `RHSA-2026:1234` */
  id: string
  /** `security`, `bugfix`, `enhancement`, or what the vendor says */
  type: string
  /** in small letters as the vendor says it, `critical`; empty where it does not */
  severity: string
  packages: Nevra[]
}

const MAX_ADVISORIES = 100_000
const MAX_ENTRIES = 2_000_000
const MAX_TEXT = 200

/** Feed it with `write`, then call `end`. */
export class UpdateinfoReader {
  readonly #what: string
  readonly #parser: XmlParser
  readonly #decoder = new TextDecoder('utf-8', { fatal: true })
  readonly #advisories: Advisory[] = []
  #entries = 0
  #open: Advisory | undefined
  /** the element whose text is wanted */
  #field: 'id' | 'severity' | undefined

  /** @param what  names the document in messages */
  constructor(what: string) {
    this.#what = what
    this.#parser = strictParser(what, { onClose: (name) => this.#onClose(name) })
    this.#parser.on('opentag', ({ name, attributes }) => this.#onOpen(name, attributes as Record<string, string>))
    this.#parser.on('text', (text) => this.#onText(text))
  }

  /** @throws XML_INVALID, REPODATA_INVALID past a limit */
  write(chunk: Uint8Array): void {
    feed(this.#parser, this.#decode(chunk, true), this.#what)
  }

  /** @throws XML_INVALID when the document is not complete */
  end(): Advisory[] {
    feed(this.#parser, this.#decode(new Uint8Array(0), false), this.#what)
    endOf(this.#parser, this.#what)
    return this.#advisories
  }

  #decode(chunk: Uint8Array, stream: boolean): string {
    try {
      return this.#decoder.decode(chunk, { stream })
    } catch (cause) {
      throw new GapferryError('XML_INVALID', `${this.#what}: is not UTF-8`, { cause })
    }
  }

  #onOpen(name: string, attributes: Record<string, string>): void {
    this.#field = undefined
    if (name === 'update')
      this.#open = { id: '', type: (attributes['type'] ?? '').slice(0, MAX_TEXT), severity: '', packages: [] }
    if (this.#open === undefined) return
    if (name === 'id' && this.#open.id === '') this.#field = 'id'
    if (name === 'severity' && this.#open.severity === '') this.#field = 'severity'
    if (name === 'package') this.#addPackage(this.#open, attributes)
  }

  #onText(text: string): void {
    if (this.#open === undefined || this.#field === undefined) return
    this.#open[this.#field] = (this.#open[this.#field] + text).slice(0, MAX_TEXT)
  }

  #onClose(name: string): void {
    this.#field = undefined
    if (name !== 'update' || this.#open === undefined) return
    const { id, severity } = this.#open
    this.#advisories.push({ ...this.#open, id: id.trim(), severity: severity.trim().toLowerCase() })
    this.#open = undefined
    if (this.#advisories.length > MAX_ADVISORIES) throw this.#tooMany(MAX_ADVISORIES, 'advisories')
  }

  #addPackage({ packages }: Advisory, attributes: Record<string, string>): void {
    const { name, epoch, version, release, arch } = attributes
    if (name === undefined || version === undefined || release === undefined || arch === undefined) return
    if (++this.#entries > MAX_ENTRIES) throw this.#tooMany(MAX_ENTRIES, 'packages')
    packages.push({ name, epoch: epoch === undefined || epoch === '' ? '0' : epoch, version, release, arch })
  }

  #tooMany(limit: number, of: string): GapferryError {
    return new GapferryError('REPODATA_INVALID', `${this.#what}: names more than ${limit} ${of}`)
  }
}

/** Advisories by the NEVRAs that they name. */
export function advisoriesByNevra(advisories: readonly Advisory[]): Map<string, Advisory[]> {
  const found = new Map<string, Advisory[]>()
  for (const advisory of advisories) {
    for (const one of advisory.packages) {
      const nevra = formatNevra(one)
      const known = found.get(nevra)
      if (known === undefined) found.set(nevra, [advisory])
      else if (!known.includes(advisory)) known.push(advisory)
    }
  }
  return found
}
