/**
 * `inventories/<box>.gfi.sealed`: what boxes told the mirror of themselves, of each box the last. An inventory holds a
 * deployment ID, so nothing of it lies here in the clear. It is free inventory and no state: a backup leaves it out, a file that
 * cannot be opened counts as none, and it is bounded whatever clients send. Who has a certificate, or was brought by a
 * person, gives way to nobody who merely says a name. FORMAT.md#inventories-at-the-mirror.
 */
import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto'
import { lstatSync, mkdirSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { gunzipSync, gzipSync } from 'node:zlib'
import type { Sha256 } from '../manifests/digest.ts'
import { sha256Of } from '../manifests/digest.ts'
import { GapferryError } from '../manifests/errors.ts'
import { MAX_INVENTORY_BYTES } from '../manifests/inventory-lines.ts'
import type { Inventory } from '../manifests/inventory.ts'
import { removeFile, replaceFile, systemCode } from './durable.ts'

/** How an inventory came: from an address of the network, with a certificate of the mirror's authority, by a person's hand. */
export type InventoryWay = 'network' | 'enrolled' | 'hand'

/** What is known of an inventory without reading it. */
export interface HeldInventory {
  /** in small letters; names the file */
  box: string
  sha256: Sha256
  bytes: number
  machine: string | null
  installid: string | null
  /** by the box's clock */
  createdAt: string
  receivedMs: number
  /** when this box was heard of first */
  firstMs: number
  address: string | null
  /** whose origin it came to */
  group: string | null
  way: InventoryWay
}

export interface OfferedInventory {
  /** what the mirror calls the box */
  box: string
  bytes: Buffer
  /** of those bytes */
  inventory: Pick<Inventory, 'machine' | 'createdAt' | 'digest' | 'freepbx'>
  way: InventoryWay
  address: string | null
  group: string | null
  nowMs: number
}

export const MAX_HELD_BOXES = 300
/** Boxes behind one router share an address. */
export const MAX_HELD_PER_ADDRESS = 64
/** Of all files: a hundred and fifty boxes with everything installed. */
const MAX_HELD_BYTES = 64 * 1024 * 1024
/** So long the name of a box is its machine's alone, and who was heard of for less leaves first. */
const DAY_MS = 86_400_000
const FOLDER = 'inventories'
const ENDING = '.gfi.sealed'
const BOX = /^[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?$/
const MAGIC = 'gapferry-sealed-inventory 1\n'
const NONCE_BYTES = 12
const TAG_BYTES = 16
const MAX_FILE_BYTES = MAX_INVENTORY_BYTES + 64 * 1024

interface KnownFile {
  stamp: string
  /** of the file */
  bytes: number
  /** undefined: it cannot be opened */
  head: HeldInventory | undefined
}

/** @param options.key       32 bytes, of this mirror alone
 *  @param options.maxBytes  of all files; for tests */
export class BoxInventories {
  readonly #folder: string
  readonly #key: Buffer
  readonly #maxBytes: number
  #known = new Map<string, KnownFile>()

  constructor(storeDir: string, { key, maxBytes = MAX_HELD_BYTES }: { key: Buffer; maxBytes?: number }) {
    this.#folder = join(storeDir, FOLDER)
    this.#key = key
    this.#maxBytes = maxBytes
  }

  /** The last one of each box, by name. */
  list(): HeldInventory[] {
    this.#look()
    const heads = [...this.#known.values()].flatMap(({ head }) => head ?? [])
    return heads.sort((a, b) => (a.box < b.box ? -1 : 1))
  }

  /** Its bytes as they came; undefined where there is none that can be opened. */
  read(box: string): Buffer | undefined {
    return this.#open(box)?.bytes
  }

  /** Keeps one in place of the box's last, all of it or nothing.
   *  @returns the head of what is kept
   *  @throws USAGE_INVALID for a name that is none; BOX_CONFLICT where the name is another machine's; INVENTORY_OLDER;
   *          INVENTORY_LIMIT where too many are here; SPACE_SHORT */
  keep(offered: OfferedInventory): HeldInventory {
    const { box, bytes, nowMs } = offered
    if (!BOX.test(box)) throw new GapferryError('USAGE_INVALID', `"${box.slice(0, 80)}": expected the name of a box`)
    const all = this.list()
    const before = all.find((one) => one.box === box)
    if (before !== undefined) refuseRival(before, offered)
    const head = headOf(offered, before)
    const sealed = seal(this.#key, head, bytes)
    const leaving = this.#leaving(
      all.filter((one) => one.box !== box),
      head,
      sealed.length,
    )
    for (const one of leaving) this.remove(one.box)
    mkdirSync(this.#folder, { recursive: true, mode: 0o700 })
    replaceFile(this.#fileOf(box), sealed, 0o600)
    this.#known.delete(box)
    return { ...head, receivedMs: nowMs }
  }

  remove(box: string): void {
    removeFile(this.#fileOf(box))
    this.#known.delete(box)
  }

  /** Whoever makes room for the new one. @throws INVENTORY_LIMIT where that would be the new one itself */
  #leaving(others: HeldInventory[], head: HeldInventory, sealedBytes: number): HeldInventory[] {
    const leaving = new Set<HeldInventory>()
    const trim = (rivals: HeldInventory[], isTooMuch: (left: HeldInventory[]) => boolean): void => {
      const left = rivals.filter((one) => !leaving.has(one)).sort(stayingFirst)
      while (isTooMuch(left)) {
        const last = left.pop()
        if (last === undefined || !givesWay(last, head)) throw tooMany(head)
        leaving.add(last)
      }
    }
    if (head.address !== null && head.way === 'network') {
      const neighbours = others.filter(({ address, way }) => address === head.address && way === 'network')
      trim(neighbours, (left) => left.length >= MAX_HELD_PER_ADDRESS)
    }
    trim(others, (left) => left.length >= MAX_HELD_BOXES)
    trim(others, (left) => sum(left.map(({ box }) => this.#known.get(box)?.bytes ?? 0)) + sealedBytes > this.#maxBytes)
    return [...leaving]
  }

  /** Opens what was changed since the last look, by whichever process. */
  #look(): void {
    const now = new Map<string, KnownFile>()
    for (const name of namesIn(this.#folder)) {
      const box = name.endsWith(ENDING) ? name.slice(0, -ENDING.length) : ''
      const stat = BOX.test(box) ? lstatSync(join(this.#folder, name), { throwIfNoEntry: false }) : undefined
      if (stat?.isFile() !== true || now.size > MAX_HELD_BOXES) continue
      const stamp = `${stat.ino} ${stat.size} ${stat.mtimeMs}`
      const before = this.#known.get(box)
      now.set(box, before?.stamp === stamp ? before : { stamp, bytes: stat.size, head: this.#open(box)?.head })
    }
    this.#known = now
  }

  #open(box: string): { head: HeldInventory; bytes: Buffer } | undefined {
    if (!BOX.test(box)) return undefined
    const file = this.#fileOf(box)
    const stat = lstatSync(file, { throwIfNoEntry: false })
    if (stat?.isFile() !== true || stat.size > MAX_FILE_BYTES) return undefined
    return unseal(this.#key, readFileSync(file), box)
  }

  #fileOf(box: string): string {
    return join(this.#folder, `${box}${ENDING}`)
  }
}

/** A name is its machine's, and what a certificate or a person brought is no passer-by's to replace. */
function refuseRival(before: HeldInventory, { box, inventory, way, address, nowMs }: OfferedInventory): void {
  if (way === 'hand') return
  const installid = installidOf(inventory)
  const isSame =
    before.machine === null
      ? installid !== null && before.installid === installid // two that tell neither are not the same for that
      : before.machine === inventory.machine
  const isFresh = nowMs - before.receivedMs < DAY_MS
  if (way === 'network' && before.way === 'enrolled') throw conflict(box, 'it has a certificate')
  if (way === 'network' && before.way === 'hand' && !isSame) throw conflict(box, 'its inventory was added by hand')
  if (way === 'network' && !isSame && isFresh && before.address !== address)
    throw conflict(box, 'it is another machine’s')
  // A clock that was ahead once must not keep a box out for good.
  const beforeMs = Math.min(Date.parse(before.createdAt), before.receivedMs)
  if (!isSame || Date.parse(inventory.createdAt) >= beforeMs) return
  throw new GapferryError('INVENTORY_OLDER', `${box}: the inventory is older than the one that is here`, {
    hint: 'set the clock of the box, then: gapferry-box keep',
  })
}

function headOf(offered: OfferedInventory, before: HeldInventory | undefined): HeldInventory {
  const { box, bytes, inventory, way, address, group, nowMs } = offered
  return {
    box,
    sha256: inventory.digest,
    bytes: bytes.length,
    machine: inventory.machine ?? null,
    installid: installidOf(inventory),
    createdAt: inventory.createdAt,
    receivedMs: nowMs,
    firstMs: before === undefined || before.machine !== (inventory.machine ?? null) ? nowMs : before.firstMs,
    address,
    group: group ?? before?.group ?? null,
    way,
  }
}

function installidOf({ freepbx }: Pick<Inventory, 'freepbx'>): string | null {
  return freepbx?.profile.get('installid')?.slice(0, 64).toLowerCase() ?? null
}

/** To a certificate or a person all others do: whoever invents boxes for longer than a day must not keep those out. */
function givesWay(one: HeldInventory, { way }: HeldInventory): boolean {
  return way === 'network' ? rank(one) === 2 : rank(one) > 0
}

function stayingFirst(a: HeldInventory, b: HeldInventory): number {
  return rank(a) - rank(b) || b.receivedMs - a.receivedMs
}

/** 0: a certificate or a person vouches for it; 1: it was here over a day or more; 2: a passer-by. */
function rank({ way, firstMs, receivedMs }: HeldInventory): 0 | 1 | 2 {
  if (way !== 'network') return 0
  return receivedMs - firstMs < DAY_MS ? 2 : 1
}

function seal(key: Buffer, head: HeldInventory, inventory: Buffer): Buffer {
  const nonce = randomBytes(NONCE_BYTES)
  const cipher = createCipheriv('aes-256-gcm', key, nonce)
  cipher.setAAD(Buffer.from(`${MAGIC}${head.box}`))
  const plain = [Buffer.from(`${JSON.stringify(head)}\n`), gzipSync(inventory)]
  const data = [...plain.map((bytes) => cipher.update(bytes)), cipher.final()]
  return Buffer.concat([Buffer.from(MAGIC), nonce, cipher.getAuthTag(), ...data])
}

/** @returns undefined for what another mirror, or this one with another identity, has written, and for what was changed */
function unseal(key: Buffer, sealed: Buffer, box: string): { head: HeldInventory; bytes: Buffer } | undefined {
  const data = MAGIC.length + NONCE_BYTES + TAG_BYTES
  if (sealed.length <= data || sealed.toString('latin1', 0, MAGIC.length) !== MAGIC) return undefined
  const nonce = sealed.subarray(MAGIC.length, MAGIC.length + NONCE_BYTES)
  const decipher = createDecipheriv('aes-256-gcm', key, nonce, { authTagLength: TAG_BYTES })
  decipher.setAAD(Buffer.from(`${MAGIC}${box}`))
  decipher.setAuthTag(sealed.subarray(MAGIC.length + NONCE_BYTES, data))
  try {
    const plain = Buffer.concat([decipher.update(sealed.subarray(data)), decipher.final()])
    const at = plain.indexOf('\n')
    const head = JSON.parse(plain.toString('utf8', 0, at)) as HeldInventory
    const bytes = gunzipSync(plain.subarray(at + 1), { maxOutputLength: MAX_INVENTORY_BYTES })
    return sha256Of(bytes) === head.sha256 ? { head, bytes } : undefined
  } catch {
    return undefined
  }
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder).sort()
  } catch (error) {
    if (['ENOENT', 'ENOTDIR'].includes(systemCode(error))) return []
    throw error
  }
}

function sum(numbers: number[]): number {
  return numbers.reduce((all, one) => all + one, 0)
}

function conflict(box: string, why: string): GapferryError {
  return new GapferryError('BOX_CONFLICT', `${box}: another machine has this name here: ${why}`, {
    hint: 'give each box a host name of its own; where the machine was replaced: gapferry-mirror boxes add FILE',
  })
}

function tooMany({ box }: HeldInventory): GapferryError {
  return new GapferryError('INVENTORY_LIMIT', `${box}: there is no room for the inventory of another box`, {
    hint: 'gapferry-mirror boxes list; what is not wanted: gapferry-mirror boxes forget BOX',
  })
}
