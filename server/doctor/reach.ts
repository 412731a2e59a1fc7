/**
 * Whether boxes come to this mirror at all: name, address, listener, Host, certificate, clock; and that it is this mirror
 * which answers, with what was released.
 */
import { lookup } from 'node:dns/promises'
import { isIP } from 'node:net'
import { networkInterfaces } from 'node:os'
import { setTimeout as delay } from 'node:timers/promises'
import { sha256Of } from '../../manifests/digest.ts'
import { GapferryError, isGapferryError } from '../../manifests/errors.ts'
import type { TreePath } from '../../manifests/path.ts'
import type { Tree } from '../../manifests/tree.ts'
import { formatListen, type OriginListener } from '../config.ts'
import { BoxClient, bare, type AskLimits, type Reply } from './ask.ts'
import type { Sheet } from './sheet.ts'

/** What this machine knows of the network; a test knows other things. */
export interface Network {
  /** addresses of a name. Rejects where there are none */
  lookup(name: string): Promise<string[]>
  /** of this machine, those that other machines can use first */
  addresses(): string[]
}

export const thisNetwork: Network = {
  lookup: async (name) => (await lookup(name, { all: true })).map(({ address }) => address),
  addresses: () => {
    const all = Object.values(networkInterfaces()).flatMap((list) => list ?? [])
    return all.sort((a, b) => Number(a.internal) - Number(b.internal)).map(({ address }) => address)
  },
}

export interface ReachArgs {
  sheet: Sheet
  /** as the group's boxes are told */
  origin: string
  /** the group's settings in mirror.yaml; undefined where it has none */
  listener: OriginListener | undefined
  configFile: string
  /** what is released for the group */
  tree: Tree
  group: string
  network: Network
  nowMs: () => number
  signal: AbortSignal
  limits?: Partial<AskLimits>
}

export const LOOKUP_MS = 10_000
const MAX_OFF_SECONDS = 300
const MAX_PROBE_BYTES = 1024 * 1024

/** Finds the way to the mirror as a box would, and names what stands in it.
 *  @returns what to ask the rest with; undefined where the mirror cannot be asked */
export async function reach(args: ReachArgs): Promise<BoxClient | undefined> {
  const found = await resolve(args)
  const path = probePath(args)
  const answer = await probe(args, found.address, path)
  const isRight = judgeProbe(args, found, answer, path)
  if (isRight) return await proceed(args, answer as Answered)
  // The name leads elsewhere: the rest is asked here, so that one walk to the machine is enough.
  if (found.isOurs || args.listener === undefined) return undefined
  const here = localAddress(args.listener)
  const second = await probe(args, here, path)
  if ('failed' in second || second.reply.status !== 200) return undefined
  args.sheet.skipped('name', `the rest was asked at ${here}, as if the name led there`)
  return await proceed(args, second)
}

interface Found {
  address: string
  /** it is an address of this machine */
  isOurs: boolean
}
interface Answered {
  client: BoxClient
  reply: Reply
}
type Probe = Answered | { client: BoxClient; failed: GapferryError }

async function resolve({ sheet, origin, listener, network }: ReachArgs): Promise<Found> {
  const name = bare(new URL(origin).hostname)
  const ours = network.addresses()
  // The whole of 127/8 is this machine's; one address of it stands for all.
  const isOurs = (address: string): boolean =>
    ours.includes(address) || (address.startsWith('127.') && ours.includes('127.0.0.1'))
  if (isIP(name) !== 0) {
    if (isOurs(name)) sheet.passed('name', `${name} is this machine${loopbackNote(name)}`)
    return { address: name, isOurs: isOurs(name) }
  }
  const addresses = await Promise.race([network.lookup(name).catch(() => []), delay(LOOKUP_MS, [], { ref: false })])
  const [first] = addresses
  if (first !== undefined) {
    const address = addresses.find(isOurs) ?? first
    if (isOurs(address)) sheet.passed('name', `${name} is ${address}, this machine${loopbackNote(address)}`)
    return { address, isOurs: isOurs(address) }
  }
  const address = ours.find((one) => isIP(one) === 4 && !one.startsWith('127.')) ?? 'ADDRESS'
  sheet.found('name', {
    asked: `the address of ${name}`,
    text: `${name} does not resolve`,
    effect: 'yum and fwconsole say that the host cannot be resolved, and nothing is updated',
    remedy: `enter ${name} = ${address} in the name server of this network, or in /etc/hosts of each box`,
  })
  return { address: listener === undefined ? '127.0.0.1' : localAddress(listener), isOurs: false }
}

function loopbackNote(address: string): string {
  const isLoopback = address === '::1' || address.startsWith('127.')
  return isLoopback ? '; no other machine can reach it by that' : ''
}

async function probe(args: ReachArgs, address: string, path: TreePath): Promise<Probe> {
  const client = new BoxClient({ origin: args.origin, address }, args.signal, args.limits)
  try {
    return { client, reply: await client.get(`/${path}`, MAX_PROBE_BYTES) }
  } catch (failed) {
    if (!isGapferryError(failed, 'FETCH_FAILED', 'FETCH_TIMEOUT', 'FETCH_TOO_LONG')) throw failed
    return { client, failed }
  }
}

/** @returns true where this mirror answered with what was released */
function judgeProbe(args: ReachArgs, { address, isOurs }: Found, answer: Probe, path: TreePath): boolean {
  const { sheet, origin, tree } = args
  const where = `${origin}/${path}`
  const { hostname } = new URL(origin)
  const elsewhere = {
    asked: where,
    remedy: `let ${hostname} lead to this machine: in the name server, or in /etc/hosts of each box`,
  }
  const foreign = `${hostname} is ${address}, which is no address of this machine`
  if ('failed' in answer) {
    const effect = 'yum tries again ten times and gives up; fwconsole says that the online server cannot be reached'
    if (!isOurs) sheet.found('name', { ...elsewhere, text: `${foreign}; ${answer.failed.message}`, effect })
    else sheet.found('listener', { asked: where, text: answer.failed.message, effect, remedy: remedyForSilence(args) })
    return false
  }
  const { status, body } = answer.reply
  if (status === 200 && sha256Of(body) === tree.entries.get(path)?.sha256) {
    if (!isOurs) sheet.passed('name', `${foreign}, but what answers there is this mirror`)
    return true
  }
  const text = status === 200 ? `what answers at ${address} is not this mirror` : `${address} answers ${status}`
  const effect = 'it takes what that machine offers, or finds nothing'
  if (!isOurs) {
    sheet.found('name', { ...elsewhere, text: `${foreign}; ${text}`, effect })
    return false
  }
  return judgeRefusal(args, { where, status, text })
}

/** @returns true where it makes sense to ask on */
function judgeRefusal(
  { sheet, origin, configFile }: ReachArgs,
  { where, status, text }: { where: string; status: number; text: string },
): boolean {
  if (status === 421 || status === 403 || status === 400) {
    const { hostname, host } = new URL(origin)
    sheet.found('Host', {
      asked: `GET ${where} with Host: ${host}`,
      text: `it is answered ${status}: that name is not served there`,
      effect: 'yum gives up with that error; fwconsole takes the error text for a list it cannot parse',
      remedy: `in ${configFile}, under origins: hosts: [${hostname}]; then start gapferry-mirror serve again`,
    })
    return false
  }
  const isDamage = status >= 500
  sheet.found('listener', {
    asked: where,
    text,
    effect: isDamage ? 'it tries again and gives up' : 'it takes what that program offers, or finds nothing',
    remedy: isDamage
      ? 'gapferry-mirror verify'
      : 'end the program that has this port, then start gapferry-mirror serve',
  })
  return isDamage
}

function remedyForSilence({ listener, group, origin, configFile }: ReachArgs): string {
  if (listener !== undefined) {
    const { port } = new URL(origin)
    const isOther = listener.port !== 0 && port !== '' && Number(port) !== listener.port
    if (isOther) return `in ${configFile}, let group ${group} listen at port ${port}, as its boxes are told`
    return 'gapferry-mirror serve'
  }
  return `in ${configFile}, add under origins: { group: ${group}, listen: 0.0.0.0:${new URL(origin).port || 80} }`
}

/** What is asked first: small, and in every tree of ours. */
function probePath({ tree, group }: ReachArgs): TreePath {
  const usual = [`gapferry-${group}.repo`, 'keys/site.asc'].find((path) => tree.entries.has(path as TreePath))
  const small = [...tree.entries].filter(([, { bytes }]) => bytes <= MAX_PROBE_BYTES)
  return (usual ?? small.sort(([, a], [, b]) => a.bytes - b.bytes)[0]?.[0] ?? 'keys/site.asc') as TreePath
}

async function proceed(args: ReachArgs, { client, reply }: Answered): Promise<BoxClient | undefined> {
  const { sheet, origin, listener } = args
  const at = listener === undefined ? '' : `, listening at ${formatListen(listener)}`
  if (sheet.isClean('listener')) sheet.passed('listener', `the mirror answers${at}`)
  checkClock(args, reply)
  await checkCertificate(args, client)
  return (await checkPortlessHost(args, client, origin)) ? client : undefined
}

/** PHP asks before a download with a Host that lacks the port. */
async function checkPortlessHost({ sheet, configFile, ...args }: ReachArgs, client: BoxClient, origin: string) {
  const { hostname } = new URL(origin)
  const path = `/${probePath({ sheet, configFile, ...args })}`
  const asked = `HEAD ${path}? over HTTP/1.0 with Host: ${hostname}`
  try {
    const { status } = await client.head(path)
    if (status < 400) {
      sheet.passed('Host', `${hostname} is answered with and without the port, over HTTP/1.1 and 1.0`)
      return true
    }
    sheet.found('Host', {
      asked,
      text: `it is answered ${status}`,
      effect: 'fwconsole takes any answer here, and asks for the module all the same',
      remedy: `in ${configFile}, under origins: hosts: [${hostname}], without a port`,
    })
  } catch (error) {
    if (!isGapferryError(error, 'FETCH_FAILED', 'FETCH_TIMEOUT')) throw error
    sheet.found('Host', {
      asked,
      text: error.message,
      effect: 'fwconsole downloads no module: it takes the server for dead',
      remedy: 'let what stands before the mirror (a proxy, a firewall) pass HTTP/1.0',
    })
  }
  return true
}

function checkClock({ sheet, nowMs }: ReachArgs, { headers }: Reply): void {
  const theirs = Date.parse(headers.date ?? '')
  if (Number.isNaN(theirs)) return
  const off = Math.round((theirs - nowMs()) / 1000)
  if (Math.abs(off) <= MAX_OFF_SECONDS) return
  sheet.found('clock', {
    asked: 'the Date of an answer',
    text: `it is ${Math.abs(off)} s ${off < 0 ? 'behind' : 'ahead of'} this machine's clock`,
    effect: 'signatures made in what it takes for the future are refused, and yum keeps old metadata',
    remedy: 'set the clock of the machine that answers',
  })
}

async function checkCertificate({ sheet, origin }: ReachArgs, client: BoxClient): Promise<void> {
  if (!origin.startsWith('https:')) return
  const fault = await client.certificateFault()
  if (fault === undefined) sheet.passed('certificate', 'a public authority vouches for it')
  else {
    sheet.found('certificate', {
      asked: origin,
      text: `no public authority vouches for it (${fault})`,
      effect:
        'FreePBX takes no module: PHP trusts only the authorities it brings along, whatever is installed on the box',
      remedy:
        'on the laptop, give the group an http origin (modules are signed and hashed), or use a public certificate',
    })
  }
}

/** Where this machine reaches a listener of its own. */
export function localAddress({ host }: OriginListener): string {
  if (host === '0.0.0.0') return '127.0.0.1'
  return host === '::' ? '::1' : host
}
