/**
 * Takes what boxes say of themselves: over the network, with or without a certificate, or from an operator's hand. An
 * inventory names a deployment ID: it is kept sealed, and neither an answer nor the log ever repeats a word of it.
 */
import { gunzipSync } from 'node:zlib'
import type { Logger } from 'pino'
import { GapferryError, httpStatus, isGapferryError } from '../manifests/errors.ts'
import { MAX_INVENTORY_BYTES } from '../manifests/inventory-lines.ts'
import { parseInventory } from '../manifests/inventory.ts'
import { BoxInventories, type HeldInventory, type InventoryWay } from '../storage/box-inventories.ts'
import { refusal, type Answer } from './content.ts'
import { derivedKey, type Identity } from './identity.ts'

/** A request with an inventory for its body. */
export interface InventoryRequest {
  /** as on the request line */
  target: string
  /** undefined: there was no room for it */
  body: Buffer | undefined
  address: string
  group: string
}

/** What an origin does with inventories. */
export interface InventoryTaker {
  answer(request: InventoryRequest): Answer
}

/** Also what a packed one may have, which is shorter. */
export const MAX_INVENTORY_BODY_BYTES = MAX_INVENTORY_BYTES
const PATH = '/gapferry/inventories'
const BOX_QUERY = /^box=([A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?)$/
const GZIP = Buffer.of(0x1f, 0x8b)
/** A box tells it every quarter of an hour. Reading one with 1,500 packages takes 0.05 s. */
const WINDOW_MS = 60_000
const MAX_PER_WINDOW = 60
const MAX_PER_WINDOW_AND_ADDRESS = 20
const MAX_ADDRESSES = 10_000
const KEPT: Answer = { status: 204, headers: ['Cache-Control', 'no-store'], body: undefined, isHeadOnly: false }

/** The inventories of a mirror. @param identity  its key seals them */
export function openInventories(storeDir: string, site: string, { key }: Pick<Identity, 'key'>): BoxInventories {
  return new BoxInventories(storeDir, { key: derivedKey(key, site, 'gapferry-inventories 1') })
}

/** Whether a request brings an inventory. @param target  as on the request line */
export function isInventoryRequest(method: string, target: string): boolean {
  return method === 'POST' && (target === PATH || target.startsWith(`${PATH}?`))
}

/** Reads an inventory, packed or not, and keeps it.
 *  @param args.box       what the mirror calls the box; undefined: what it calls itself
 *  @param args.address   that it came from; null where a person brought it
 *  @param args.enrolled  `box` stands in a certificate of the mirror's authority
 *  @throws INVENTORY_INVALID; what BoxInventories.keep throws */
export function keepInventory(
  inventories: BoxInventories,
  args: {
    box: string | undefined
    bytes: Buffer
    address: string | null
    enrolled: boolean
    group?: string | null
    nowMs: number
  },
): HeldInventory {
  const { address, enrolled, group = null, nowMs } = args
  const bytes = unpacked(args.bytes)
  const inventory = parseInventory(bytes, args.box ?? 'inventory')
  const box = (args.box ?? inventory.box).toLowerCase()
  const way: InventoryWay = enrolled ? 'enrolled' : address === null ? 'hand' : 'network'
  return inventories.keep({ box, bytes, inventory, address, group, way, nowMs })
}

/** What origins answer to inventories. It never throws.
 *  @param args.open  called at the first one, and again after it failed */
export function takeInventories(args: {
  open: () => BoxInventories
  clock: () => number
  log: Logger
}): InventoryTaker {
  const { open, clock, log } = args
  const rate = new Rate()
  let inventories: BoxInventories | undefined
  let failure: string | undefined
  const take = ({ target, body, address, group }: InventoryRequest): Answer => {
    const nowMs = clock()
    if (body === undefined || !rate.allows(address, nowMs)) throw later(address)
    const box = boxOf(target)
    inventories ??= open()
    const from = address.replace(/^::ffff:(?=\d+\.)/, '')
    const kept = keepInventory(inventories, { box, bytes: body, address: from, enrolled: false, group, nowMs })
    log.info({ box: kept.box, group, address: from }, 'an inventory came')
    failure = undefined
    return { ...KEPT, group }
  }
  return {
    answer(request) {
      try {
        return take(request)
      } catch (error) {
        const { group, address } = request
        const code = isGapferryError(error) ? error.code : 'INTERNAL'
        // The message of a refusal may quote what came; what is this mirror's own fault is logged with its answer.
        if (httpStatus(error) < 500 && code !== failure) log.warn({ code, group, address }, 'an inventory was not kept')
        failure = code
        return refusal(error, { group })
      }
    },
  }
}

/** How many are read: each costs more than an answer from a file. */
class Rate {
  #startMs = 0
  #all = 0
  #perAddress = new Map<string, number>()

  allows(address: string, nowMs: number): boolean {
    if (nowMs - this.#startMs >= WINDOW_MS || nowMs < this.#startMs) {
      this.#startMs = nowMs
      this.#all = 0
      this.#perAddress = new Map()
    }
    const fromThere = this.#perAddress.get(address) ?? 0
    if (this.#all >= MAX_PER_WINDOW || fromThere >= MAX_PER_WINDOW_AND_ADDRESS) return false
    if (this.#perAddress.size >= MAX_ADDRESSES) return false
    this.#all++
    this.#perAddress.set(address, fromThere + 1)
    return true
  }
}

function boxOf(target: string): string | undefined {
  const query = target.slice(PATH.length + 1)
  if (query === '') return undefined
  const box = BOX_QUERY.exec(query)?.[1]
  if (box !== undefined) return box
  throw new GapferryError('INVENTORY_INVALID', 'the query: expected box=NAME')
}

function unpacked(bytes: Buffer): Buffer {
  if (!bytes.subarray(0, GZIP.length).equals(GZIP)) return bytes
  try {
    return gunzipSync(bytes, { maxOutputLength: MAX_INVENTORY_BYTES })
  } catch (cause) {
    const why = `expected at most ${MAX_INVENTORY_BYTES} bytes in gzip, found more, or a damaged one`
    throw new GapferryError('INVENTORY_INVALID', why, { cause })
  }
}

function later(address: string): GapferryError {
  return new GapferryError('INVENTORY_LIMIT', `${address}: too many inventories at a time`)
}
