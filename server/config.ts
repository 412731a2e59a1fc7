/**
 * `mirror.yaml`: where the store is, where the mirror listens, and which origin each group of boxes is pointed at.
 * Strict; see README.md.
 */
import { readFileSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import * as v from 'valibot'
import type { Sha256 } from '../manifests/digest.ts'
import { strictObject } from '../manifests/document.ts'
import { GapferryError } from '../manifests/errors.ts'
import { digestSettings, parseListen, parseSettings } from '../manifests/settings.ts'
import { parseName } from '../manifests/tree.ts'
import { VENDOR_NAMES } from '../manifests/vendor-names.ts'
import { systemCode } from '../storage/durable.ts'

/** More than that no settings are. */
export const MAX_CONFIG_BYTES = 1024 * 1024

// A name or address, with a port only where boxes use another one than the listener's.
const HOST = /^(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?$/

const Path = v.pipe(v.string(), v.minLength(1))
const Listen = v.pipe(v.string(), v.minLength(1), v.maxLength(300))
const Host = v.pipe(v.string(), v.minLength(1), v.maxLength(253))
const Hosts = v.exactOptional(v.pipe(v.array(Host), v.maxLength(100)), [])

const MirrorSettings = strictObject({
  apiVersion: v.literal('gapferry/v1'),
  kind: v.literal('Mirror'),
  store: v.exactOptional(Path, './store'),
  admin: v.exactOptional(strictObject({ listen: v.exactOptional(Listen, '127.0.0.1:8480'), hosts: Hosts }), {}),
  origins: v.exactOptional(
    v.pipe(
      v.array(
        strictObject({
          group: v.string(),
          listen: Listen,
          hosts: Hosts,
          vendorNames: v.exactOptional(v.boolean(), false),
        }),
      ),
      v.maxLength(100),
    ),
    [],
  ),
  inventories: v.exactOptional(v.boolean(), true),
  boxes: v.exactOptional(strictObject({ listen: Listen, hosts: Hosts })),
  warnAfterDays: v.exactOptional(v.pipe(v.number(), v.minValue(0), v.maxValue(3660)), 100),
  keepPreviousHours: v.exactOptional(v.pipe(v.number(), v.minValue(0), v.maxValue(8784)), 48),
})

/** A socket to listen on, and the further names under which it is reached. */
export interface Listener {
  /** an address or name of this machine; `0.0.0.0` or `::` for all of its addresses */
  host: string
  /** 0: any free one */
  port: number
  /** lower case; each with a port only where that differs from the listener's */
  hosts: string[]
}

export interface OriginListener extends Listener {
  group: string
  /** it also answers under the vendor's names, for boxes on which nothing but name resolution was changed */
  vendorNames?: true
}

export interface MirrorConfig {
  /** the settings file, absolute */
  file: string
  /** absolute */
  storeDir: string
  admin: Listener
  /** at most one per group; those that share a socket differ in every one of their hosts; at an address one at most has the
   *  vendor's names */
  origins: OriginListener[]
  /** whether origins take inventories from boxes */
  takesInventories: boolean
  /** where boxes fetch licenses, over TLS; undefined: nowhere */
  boxes: Listener | undefined
  /** the newest bundle is an alarm when it is so old; 0: never */
  warnAfterDays: number
  /** immutable paths of a replaced tree stay fetchable for so long, counted from being replaced */
  keepPreviousHours: number
}

/** Reads and checks `file`; relative paths in it are taken from its folder.
 *  @throws CONFIG_MISSING, CONFIG_INVALID, CONFIG_KEY_UNKNOWN */
export function loadMirrorConfig(file: string): MirrorConfig {
  try {
    return parseMirrorConfig(readFileSync(file, 'utf8'), file)
  } catch (cause) {
    if (systemCode(cause) !== 'ENOENT') throw cause
    throw new GapferryError('CONFIG_MISSING', `${file}: there is no such file`, {
      hint: 'gapferry-mirror init --trust ROOT.json, or name the settings with --config FILE',
      cause,
    })
  }
}

/** @throws CONFIG_INVALID, CONFIG_KEY_UNKNOWN */
export function parseMirrorConfig(text: string, file: string): MirrorConfig {
  const settings = parseSettings(MirrorSettings, text, file)
  const config: MirrorConfig = {
    file: resolve(file),
    storeDir: resolve(dirname(file), settings.store),
    admin: parseListener(settings.admin, `${file}: admin`),
    origins: settings.origins.map((origin) => parseOrigin(origin, file)),
    takesInventories: settings.inventories,
    boxes: settings.boxes === undefined ? undefined : parseListener(settings.boxes, `${file}: boxes`),
    warnAfterDays: settings.warnAfterDays,
    keepPreviousHours: settings.keepPreviousHours,
  }
  refuseTwice(config)
  return config
}

/** `digestSettings` of what `file` says. @throws as loadMirrorConfig */
export function settingsDigests(file: string): Map<string, Sha256> {
  const text = readFileSync(file, 'utf8')
  return digestSettings(text, parseSettings(MirrorSettings, text, file))
}

/** One origin as `init --origin GROUP=HOST:PORT` gives it. @throws USAGE_INVALID */
export function parseOriginOption(text: string, hosts: string[]): OriginListener {
  const at = text.indexOf('=')
  try {
    if (at > 0) return parseOrigin({ group: text.slice(0, at), listen: text.slice(at + 1), hosts }, '--origin')
  } catch (cause) {
    throw new GapferryError('USAGE_INVALID', (cause as Error).message, { cause })
  }
  throw new GapferryError('USAGE_INVALID', `--origin: "${text}" is not GROUP=HOST:PORT, as in pbxact16=0.0.0.0:8416`)
}

/** `HOST:PORT` as `parseListen` reads it. */
export function formatListen({ host, port }: Pick<Listener, 'host' | 'port'>): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`
}

/** The address under which a listener is reached, as far as its settings tell. */
export function listenerUrl({ host, port, hosts }: Listener): string {
  const [name] = hosts
  if (name === undefined) return `http://${formatListen({ host, port })}`
  return /:\d+$/.test(name) ? `http://${name}` : `http://${name}:${port}`
}

/** The names under which requests are an origin's, beside the address that it listens at. */
export function namesOf({ hosts, vendorNames }: OriginListener): string[] {
  return [...new Set([...hosts, ...(vendorNames === true ? VENDOR_NAMES : [])])]
}

/** True for an address of this machine's own, or one that stands for all of them. */
export function isAnyAddress(host: string): boolean {
  return host === '0.0.0.0' || host === '::'
}

type OriginSettings = Omit<v.InferOutput<typeof MirrorSettings>['origins'][number], 'vendorNames'> & {
  vendorNames?: boolean
}

function parseOrigin(settings: OriginSettings, what: string): OriginListener {
  const group = parseGroup(settings.group, what)
  const listener = parseListener(settings, `${what}: origin ${group}`)
  return { group, ...listener, ...(settings.vendorNames === true ? { vendorNames: true } : {}) }
}

function parseGroup(text: string, what: string): string {
  try {
    return parseName(text, `${what}: group "${text}"`)
  } catch (cause) {
    throw new GapferryError('CONFIG_INVALID', (cause as Error).message, { cause })
  }
}

function parseListener({ listen, hosts }: { listen: string; hosts: string[] }, what: string): Listener {
  for (const host of hosts) {
    if (!HOST.test(host)) {
      throw new GapferryError(
        'CONFIG_INVALID',
        `${what}: hosts: "${host}" is not a name or address, as in mirror.hq.lan`,
      )
    }
  }
  return { ...parseListen(listen, what), hosts: hosts.map((host) => host.toLowerCase()) }
}

/** What could not be told apart when a request comes in, or could not be opened twice. */
function refuseTwice({ file, admin, origins, boxes }: MirrorConfig): void {
  if (boxes !== undefined && [admin, ...origins].some((other) => sharesSocket(boxes, other))) {
    throw new GapferryError('CONFIG_INVALID', `${file}: boxes listens at ${formatListen(boxes)}, where another does`, {
      hint: 'give it a port of its own, as in 0.0.0.0:8490',
    })
  }
  for (const [i, origin] of origins.entries()) {
    const others = origins.slice(i + 1)
    if (others.some((other) => other.group === origin.group)) {
      throw new GapferryError('CONFIG_INVALID', `${file}: group ${origin.group} has two origins`)
    }
    if (sharesSocket(origin, admin)) {
      throw new GapferryError('CONFIG_INVALID', `${file}: origin ${origin.group} listens where admin does`)
    }
    const other = others.find((one) => one.vendorNames && origin.vendorNames && sharesAddress(one, origin))
    if (other !== undefined) {
      throw new GapferryError(
        'CONFIG_INVALID',
        `${file}: origins ${origin.group} and ${other.group} both have vendorNames at ${other.host}: a name leads to one place`,
        { hint: 'let each listen at an address of its own, and the names lead to the one or the other for each box' },
      )
    }
    const rival = others.find((other) => sharesSocket(origin, other) && !areToldApart(origin, other))
    if (rival === undefined) continue
    throw new GapferryError(
      'CONFIG_INVALID',
      `${file}: origins ${origin.group} and ${rival.group} listen at ${formatListen(rival)} and need hosts of their own`,
      { hint: 'give each its own port, or each other names in hosts' },
    )
  }
}

function sharesSocket(a: Listener, b: Listener): boolean {
  return a.port === b.port && a.port !== 0 && sharesAddress(a, b)
}

function sharesAddress(a: Listener, b: Listener): boolean {
  return a.host === b.host || isAnyAddress(a.host) || isAnyAddress(b.host)
}

function areToldApart(a: OriginListener, b: OriginListener): boolean {
  const names = namesOf(b)
  return (
    a.host === b.host && a.hosts.length > 0 && b.hosts.length > 0 && !namesOf(a).some((host) => names.includes(host))
  )
}
