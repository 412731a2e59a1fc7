/** The vendor's names, where an origin answers under them: do they lead here, and what does an unmodified box find. */
import { setTimeout as delay } from 'node:timers/promises'
import { sha256Of } from '../../manifests/digest.ts'
import { GapferryError, isGapferryError } from '../../manifests/errors.ts'
import { isOn } from '../../manifests/ini.ts'
import type { Inventory } from '../../manifests/inventory.ts'
import { MAX_MIRRORLIST_BYTES, parseMirrorlist } from '../../manifests/mirrorlist.ts'
import type { TreePath } from '../../manifests/path.ts'
import { MAX_REPOMD_BYTES } from '../../manifests/repomd.ts'
import type { Tree } from '../../manifests/tree.ts'
import { isVendorName, VENDOR_NAMES, VENDOR_PREFIX, VENDOR_WORDS, vendorId } from '../../manifests/vendor-names.ts'
import type { OriginListener } from '../config.ts'
import { ask, statusText } from './modules.ts'
import { BoxClient, type AskLimits } from './ask.ts'
import { localAddress, LOOKUP_MS, type Network } from './reach.ts'
import type { Sheet } from './sheet.ts'

export interface VendorNamesArgs {
  sheet: Sheet
  /** with vendorNames */
  listener: OriginListener
  /** as the group's boxes are told */
  origin: string
  tree: Tree
  /** the box that is played */
  box: Inventory | undefined
  group: string
  configFile: string
  network: Network
  /** where boxes ask for these names */
  port: number
  signal: AbortSignal
  limits: Partial<AskLimits>
}

const CHECK = 'vendor names'
const LISTS = 'mirrorlist.sangoma.net'
const NO_LIST = 'yum cannot retrieve the mirrorlist, and updates nothing, from no repository'
const EMPTY = 'yum finds that repository empty, and nothing in it to update'

export async function checkVendorNames(args: VendorNamesArgs): Promise<void> {
  await checkLookups(args)
  const port = await portHere(args)
  const answered: string[] = []
  const empty: string[] = []
  for (const word of VENDOR_WORDS) {
    const id = await checkWord({ ...args, port }, word)
    if (id === undefined) return
    if (id === '') empty.push(vendorId(word))
    else answered.push(id)
  }
  if (args.box !== undefined) checkBox(args, args.box)
  judgeCarried(args, answered, empty)
}

/** @param answered  ids; `empty` those of the vendor's files that a box asks for in vain */
function judgeCarried({ sheet, tree, group }: VendorNamesArgs, answered: string[], empty: string[]): void {
  const ids = [...tree.stamps.keys()]
  if (ids.length > 0 && !ids.some((id) => id.startsWith(VENDOR_PREFIX))) {
    sheet.found(CHECK, {
      asked: `what is released for group ${group}`,
      text: `none of its repositories (${ids.join(', ')}) has an id of the vendor’s files`,
      effect: EMPTY,
      remedy: `in gapferry.yaml, give them the ids of the vendor’s files: ${VENDOR_WORDS.map(vendorId).join(', ')}`,
    })
    return
  }
  if (answered.length > 0) sheet.passed(CHECK, `unmodified boxes get ${answered.join(', ')}`)
  if (empty.length > 0) sheet.skipped(CHECK, `not carried, so that boxes find them empty: ${empty.join(', ')}`)
}

/** Where boxes are led is for their name server or their /etc/hosts to say; this machine may know neither. */
async function checkLookups({ sheet, listener, network }: VendorNamesArgs): Promise<void> {
  const ours = network.addresses()
  const unknown: string[] = []
  for (const name of VENDOR_NAMES) {
    const found = await Promise.race([network.lookup(name).catch(() => []), delay(LOOKUP_MS, [], { ref: false })])
    const [first] = found
    if (first === undefined) unknown.push(name)
    else if (!found.some((one) => ours.includes(one) || one.startsWith('127.'))) {
      sheet.found(CHECK, {
        asked: `the address of ${name}`,
        text: `it is ${first}, which is no address of this machine`,
        effect: 'where boxes are told the same, they ask that machine, wait, and update nothing',
        remedy: `let ${name} lead to this machine: in the name server, or in /etc/hosts of each box`,
      })
    }
  }
  const shown = localAddress(listener).startsWith('127.') ? ours.find((one) => !one.startsWith('127.')) : listener.host
  if (unknown.length > 0) {
    const text = `do not resolve here: ${unknown.join(', ')}; on the boxes they have to lead to ${shown ?? listener.host}`
    sheet.skipped(CHECK, text)
  } else if (sheet.isClean(CHECK)) sheet.passed(CHECK, `${VENDOR_NAMES.join(', ')} lead to this machine`)
}

/** What a firewall does with a port it does to other machines alone, so that the mirror may be right and nothing here show it.
 *  @returns where to ask: the port of the names, or the listener's where nothing listens at that */
async function portHere({ sheet, listener, port, signal, limits }: VendorNamesArgs): Promise<number> {
  if (listener.port === port || listener.port === 0) return port
  const place = { origin: `http://${LISTS}:${port}`, address: localAddress(listener) }
  const answer = await ask(() => new BoxClient(place, signal, limits).get('/', MAX_MIRRORLIST_BYTES))
  if (!(answer instanceof GapferryError)) return port
  const text =
    `boxes ask at port ${port}, where nothing listens on this machine; whether the firewall passes it on to ${listener.port} shows on ` +
    `a box: curl "http://${LISTS}/?repo=os". The rest was asked at port ${listener.port}`
  sheet.skipped(CHECK, text)
  return listener.port
}

/** Asks as yum does, first for the mirrorlist, then at the place it names.
 *  @returns the id that was answered, '' for an empty repository, undefined where something is wrong */
async function checkWord(args: VendorNamesArgs, word: string): Promise<string | undefined> {
  const { sheet, listener, tree, port, signal, limits, configFile, group } = args
  const client = new BoxClient(
    { origin: `http://${LISTS}${port === 80 ? '' : `:${port}`}`, address: localAddress(listener) },
    signal,
    limits,
  )
  const target = `/?release=7&arch=x86_64&repo=${word}`
  const asked = `GET http://${LISTS}${target}`
  const remedy = `in ${configFile}, let group ${group} listen at port 80, or let the firewall pass port 80 on to it`
  const list = await ask(() => client.get(target, MAX_MIRRORLIST_BYTES))
  if (list instanceof GapferryError || list.status !== 200) {
    const text = list instanceof GapferryError ? list.message : statusText(list)
    sheet.found(CHECK, { asked, text, effect: NO_LIST, remedy })
    return undefined
  }
  const base = baseOf(list.body)
  if (base === undefined) {
    const text = 'the answer is no mirrorlist of this mirror'
    sheet.found(CHECK, { asked, text, effect: NO_LIST, remedy: 'end the program that has port 80' })
    return undefined
  }
  const index = `${base}repodata/repomd.xml`
  const reply = await ask(() => client.get(index, MAX_REPOMD_BYTES))
  const signed = tree.entries.get(index.slice(1) as TreePath)?.sha256
  const isRight = !(reply instanceof GapferryError) && reply.status === 200
  if (isRight && (signed === undefined || signed === sha256Of(reply.body))) {
    return signed === undefined ? '' : base.split('/')[2]!
  }
  const text = isRight
    ? 'it is not the index that was released'
    : reply instanceof GapferryError
      ? reply.message
      : statusText(reply)
  sheet.found(CHECK, { asked: `GET http://${LISTS}${index}`, text, effect: NO_LIST, remedy: 'gapferry-mirror verify' })
  return undefined
}

/** The path of the first place that a mirrorlist names. */
function baseOf(body: Buffer): string | undefined {
  try {
    const [first = ''] = parseMirrorlist(body, 'the list')
    const url = new URL(first)
    return url.hostname === LISTS ? url.pathname : undefined
  } catch (error) {
    if (!isGapferryError(error, 'MIRRORLIST_EMPTY')) throw error
    return undefined
  }
}

/** The repositories of a box, as it has them. */
function checkBox({ sheet, origin, tree }: VendorNamesArgs, box: Inventory): void {
  const enabled = box.repositories.filter(({ options }) => isOn(options.get('enabled'), true))
  const placed = enabled.map(({ id, options }) => {
    const place = (options.get('mirrorlist') ?? options.get('metalink') ?? options.get('baseurl') ?? '').split('\n')[0]!
    return { id, place, isHere: place.startsWith(`${origin}/`) || isVendorName(URL.parse(place)?.host ?? '') }
  })
  for (const { id, place } of placed.filter(({ isHere }) => !isHere)) {
    sheet.found(CHECK, {
      asked: `the inventory of ${box.box}`,
      text: `${id} comes from ${place || 'nowhere'}, which is none of these names`,
      effect: 'yum waits for a server that it cannot reach, and updates nothing, from no repository',
      remedy: `on that box: yum-config-manager --disable ${id}`,
    })
  }
  const missing = placed.filter(({ id, isHere }) => isHere && !tree.stamps.has(id)).map(({ id }) => id)
  if (missing.length > 0) sheet.skipped(CHECK, `${box.box} has ${missing.join(', ')}, which this bundle does not carry`)
}
