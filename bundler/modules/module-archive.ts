/**
 * The archive of a module, looked through piece by piece and never unpacked. What it may hold is what a module needs: plain
 * files, folders, and links that stay inside, all below one folder that has the module's name. The rules:
 *   - no entry leaves the folder, goes through a link, replaces another one, or is of any other kind;
 *   - everything is bounded: entries, bytes, depth and length of names; module.xml alone is kept;
 *   - two blocks of zeros end it, and only zeros follow.
 */
import { posix } from 'node:path'
import {
  badArchive,
  isZeroBlock,
  MAX_META_BYTES,
  parseTarHeader,
  parseTarMeta,
  shown,
  TAR_BLOCK,
} from './tar-header.ts'
import type { TarHeader, TarMeta } from './tar-header.ts'

/** Of one archive, unpacked. */
const MAX_MODULE_BYTES = 2 * 2 ** 30
const MAX_ENTRIES = 100_000
const MAX_NAME_LENGTH = 1024
const MAX_SEGMENT_LENGTH = 255
const MAX_DEPTH = 64 // packages of Node that carry their own packages
/** Of all names together: they are in memory. */
const MAX_NAMES_LENGTH = 16 * 2 ** 20
const MAX_MODULE_XML = 1024 * 1024

/** What an archive turned out to be. */
export interface ModuleArchive {
  /** the one folder at its top */
  folder: string
  moduleXml: Buffer
}

/** `sounds`: an archive of prompts, which has no folder around it and no module.xml. */
type Shape = 'module' | 'sounds'
/** Where PHP's reader of archives keeps what it takes for its own, and runs: boxes unpack sounds with it. */
const PHAR = /^\.phar(?:\/|$)/i

type Kind = 'file' | 'folder' | 'implied' | 'link'
type State = 'header' | 'body' | 'padding' | 'end'

/** Takes the bytes of one tar archive in pieces of any size. */
export class ModuleArchiveScanner {
  readonly #what: string
  readonly #isModule: boolean
  readonly #kinds = new Map<string, Kind>()
  readonly #block = Buffer.alloc(TAR_BLOCK)
  #state: State = 'header'
  /** bytes of `block` that are filled */
  #filled = 0
  /** bytes that are still to come of the body or the padding */
  #left = 0
  #padding = 0
  #total = 0
  #entries = 0
  #namesLength = 0
  #zeroBlocks = 0
  #folder: string | undefined
  #moduleXml: Buffer | undefined
  /** takes the body that is being read: a header in front of an entry, or module.xml */
  #keep: { bytes: Buffer; filled: number; done: (bytes: Buffer) => void } | undefined
  #meta: TarMeta | undefined

  /** @param what  names the archive in messages */
  constructor(what: string, shape: Shape = 'module') {
    this.#what = what
    this.#isModule = shape === 'module'
  }

  /** @param piece  may be reused by the caller afterwards
   *  @throws MODULE_ARCHIVE at the first byte that breaks a rule */
  push(piece: Uint8Array): void {
    this.#total += piece.length
    if (this.#total > MAX_MODULE_BYTES) throw this.#bad(`it unpacks to more than ${MAX_MODULE_BYTES} bytes`)
    for (let at = 0; at < piece.length;) at += this.#take(piece, at)
  }

  /** @returns undefined for sounds
   *  @throws MODULE_ARCHIVE where it was cut off or holds no module */
  end(): ModuleArchive | undefined {
    const isWhole = this.#zeroBlocks >= 2 && this.#filled === 0
    if (!isWhole) throw this.#bad('its archive was cut off: the end of it is missing')
    if (!this.#isModule) return undefined
    if (this.#folder === undefined || this.#moduleXml === undefined) throw this.#bad('there is no module.xml in it')
    return { folder: this.#folder, moduleXml: this.#moduleXml }
  }

  /** @returns how many bytes it took, at least one */
  #take(piece: Uint8Array, at: number): number {
    const want = this.#state === 'body' || this.#state === 'padding' ? this.#left : TAR_BLOCK - this.#filled
    const count = Math.min(want, piece.length - at)
    const bytes = piece.subarray(at, at + count)
    if (this.#state === 'body') this.#takeBody(bytes)
    else if (this.#state === 'padding') this.#takePadding(bytes)
    else this.#takeBlock(bytes)
    return count
  }

  #takeBlock(bytes: Uint8Array): void {
    this.#block.set(bytes, this.#filled)
    this.#filled += bytes.length
    if (this.#filled < TAR_BLOCK) return
    this.#filled = 0
    if (this.#state === 'end') this.#takeAfterEnd()
    else this.#takeHeader(parseTarHeader(this.#block, this.#what))
  }

  #takeAfterEnd(): void {
    if (!isZeroBlock(this.#block)) throw this.#bad('something follows the end of its archive')
    this.#zeroBlocks++
  }

  #takeHeader(header: TarHeader | undefined): void {
    if (header === undefined) {
      if (this.#meta !== undefined) throw this.#bad('its archive ends where an entry is missing')
      this.#zeroBlocks = 1
      this.#state = 'end'
      return
    }
    if (++this.#entries > MAX_ENTRIES) throw this.#bad(`it has more than ${MAX_ENTRIES} entries`)
    this.#left = header.bytes
    this.#padding = -header.bytes & (TAR_BLOCK - 1)
    if (['L', 'K', 'x', 'g'].includes(header.type)) this.#startMeta(header)
    else this.#startEntry(this.#described(header))
    this.#state = 'body'
    if (this.#left === 0) this.#endBody()
  }

  #startMeta({ type, bytes }: TarHeader): void {
    if (bytes > MAX_META_BYTES) throw this.#bad(`a name or a PAX header of ${bytes} bytes`)
    this.#keepBody(bytes, (body) => {
      const meta = parseTarMeta(type as 'L' | 'K' | 'x' | 'g', body, this.#what)
      if (type === 'g') return
      const isTwice = Object.keys(meta).some((key) => key in (this.#meta ?? {}))
      // PAX and GNU's names in front of one entry: readers differ in which one counts
      if (isTwice || (type === 'x' && this.#meta !== undefined)) throw this.#bad('an entry is named twice')
      this.#meta = { ...this.#meta, ...meta }
    })
  }

  /** The header with what stood in front of it. */
  #described(header: TarHeader): TarHeader {
    const { name = header.name, link = header.link, bytes = header.bytes } = this.#meta ?? {}
    this.#meta = undefined
    if (bytes !== header.bytes) throw this.#bad(`${shown(name)}: two sizes, ${header.bytes} and ${bytes}`)
    return { ...header, name, link }
  }

  #startEntry(entry: TarHeader): void {
    const kind = this.#kindOf(entry)
    const path = this.#pathOf(entry.name, kind)
    if (path === '') return
    this.#checkPlace(path, kind)
    if (entry.type === '1') this.#checkHardLink(path, entry.link)
    if (entry.type === '2') this.#checkLink(path, entry.link)
    if (path !== `${this.#folder}/module.xml`) return
    if (entry.type !== '0') throw this.#bad('its module.xml is no plain file')
    if (entry.bytes > MAX_MODULE_XML)
      throw this.#bad(`its module.xml has ${entry.bytes} bytes, more than ${MAX_MODULE_XML}`)
    this.#keepBody(entry.bytes, (bytes) => {
      this.#moduleXml = bytes
    })
  }

  #kindOf({ type, name, bytes }: TarHeader): Kind {
    const kind = { '0': 'file', '1': 'link', '2': 'link', '5': 'folder' }[type] as Kind | undefined
    if (kind === undefined)
      throw this.#bad(`${shown(name)} is of type ${shown(type)}: a device, a pipe or an extension`)
    if (kind !== 'file' && bytes !== 0) throw this.#bad(`${shown(name)}: a ${kind} of ${bytes} bytes`)
    return kind
  }

  /** The name without `./` in front and, of a folder, `/` behind; empty for the folder that the archive was made in. */
  #pathOf(name: string, kind: Kind): string {
    const path = (kind === 'folder' ? name.replace(/\/$/, '') : name).replace(/^\.(?:\/|$)/, '')
    if (path === '' && kind === 'folder' && name !== '' && name !== '/') return ''
    const segments = path.split('/')
    const isPlain = segments.every(
      (one) => one !== '' && one !== '.' && one !== '..' && one.length <= MAX_SEGMENT_LENGTH,
    )
    // oxlint-disable-next-line no-control-regex -- these are what is looked for
    if (!isPlain || /[\0-\x1f\x7f]/.test(path)) throw this.#bad(`${shown(name)}: no name that a module’s file may have`)
    if (path.length > MAX_NAME_LENGTH || segments.length > MAX_DEPTH)
      throw this.#bad(`${shown(name)}: too long or too deep`)
    this.#namesLength += path.length
    if (this.#namesLength > MAX_NAMES_LENGTH) throw this.#bad('its names are too long together')
    if (!this.#isModule && PHAR.test(path)) throw this.#bad(`${shown(name)}: what PHP would take for its own`)
    this.#folder ??= segments[0]!
    if (this.#isModule && segments[0] !== this.#folder) {
      throw this.#bad(`expected one folder at the top, found ${shown(this.#folder)} and ${shown(segments[0]!)}`)
    }
    return path
  }

  #checkPlace(path: string, kind: Kind): void {
    for (let slash = path.indexOf('/'); slash > 0; slash = path.indexOf('/', slash + 1)) {
      const folder = path.slice(0, slash)
      const found = this.#kinds.get(folder)
      if (found === 'file' || found === 'link') throw this.#bad(`${shown(path)}: ${shown(folder)} is a ${found}`)
      if (found === undefined) this.#kinds.set(folder, 'implied')
    }
    const before = this.#kinds.get(path)
    const isFolderAgain = kind === 'folder' && (before === 'folder' || before === 'implied')
    if (before !== undefined && !isFolderAgain) throw this.#bad(`${shown(path)} stands there twice`)
    this.#kinds.set(path, kind)
  }

  /** To a plain file that came before: then it is one, too. */
  #checkHardLink(path: string, target: string): void {
    if (this.#kinds.get(target.replace(/^\.\//, '')) !== 'file')
      throw this.#bad(`${shown(path)}: a link to ${shown(target)}`)
  }

  /** Relative, `..` only at its start: behind a name that is a link itself, `..` would lead elsewhere than it seems. */
  #checkLink(path: string, target: string): void {
    const climbs = /^(?:\.\.(?:\/|$))*/.exec(target)![0]
    const rest = target.slice(climbs.length)
    const base = posix.join(posix.dirname(path), climbs)
    const isInside = [base, posix.join(base, rest)].every((one) =>
      this.#isModule ? `${one}/`.startsWith(`${this.#folder}/`) : !`${one}/`.startsWith('../'),
    )
    const isPlain =
      target !== '' && !target.startsWith('/') && !rest.split('/').includes('..') && !target.includes('\0')
    if (!isInside || !isPlain) throw this.#bad(`${shown(path)}: a link to ${shown(target)}`)
  }

  #keepBody(bytes: number, done: (bytes: Buffer) => void): void {
    this.#keep = { bytes: Buffer.alloc(bytes), filled: 0, done }
  }

  #takeBody(bytes: Uint8Array): void {
    if (this.#keep !== undefined) {
      this.#keep.bytes.set(bytes, this.#keep.filled)
      this.#keep.filled += bytes.length
    }
    this.#left -= bytes.length
    if (this.#left === 0) this.#endBody()
  }

  #endBody(): void {
    const keep = this.#keep
    this.#keep = undefined
    keep?.done(keep.bytes)
    this.#left = this.#padding
    this.#state = this.#left === 0 ? 'header' : 'padding'
  }

  /** GNU tar fills it with zeros; what else stands there is nobody's. */
  #takePadding(bytes: Uint8Array): void {
    this.#left -= bytes.length
    if (this.#left === 0) this.#state = 'header'
  }

  #bad(why: string): Error {
    return badArchive(this.#what, why)
  }
}
