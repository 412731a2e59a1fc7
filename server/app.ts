/**
 * Builds the mirror's listeners: one for the operator, and one for each address that origins listen on, where the Host
 * header tells their groups apart.
 */
import Fastify, { type FastifyInstance } from 'fastify'
import type { Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Logger } from 'pino'
import { GapferryError } from '../manifests/errors.ts'
import { systemCode } from '../storage/durable.ts'
import { addAdminRoutes, answerBadPath, checksHost, type MirrorStatus } from './admin.ts'
import { formatListen, listenerUrl, namesOf, type Listener, type MirrorConfig, type OriginListener } from './config.ts'
import { contentAnswers, refusal, type Answer, type ContentRequest } from './content.ts'
import { HostTable } from './hosts.ts'
import type { Contacts } from './contacts.ts'
import { isInventoryRequest, MAX_INVENTORY_BODY_BYTES, type InventoryTaker } from './inventories.ts'
import { answerClientError, ConnectionLimit, limitedServer, MAX_BODY_BYTES, readsBody } from './listener.ts'
import { hasForm } from './module-answers.ts'
import { Sender, type BlobSource } from './send.ts'
import { Served, type ReleaseSource } from './served.ts'

export interface MirrorArgs {
  config: Pick<MirrorConfig, 'admin' | 'origins' | 'keepPreviousHours'>
  releases: ReleaseSource
  blobs: BlobSource
  /** What the store knows. @param number  the newest bundle that is served; null before the first release */
  status: (number: number | null) => {
    site: string | null
    createdAtMs: number | null
    store: MirrorStatus['store']
    alarms?: MirrorStatus['alarms']
  }
  /** milliseconds since 1970 */
  clock: () => number
  log: Logger
  /** who notes which boxes ask; whoever makes it closes it */
  contacts?: Pick<Contacts, 'note'>
  /** who keeps inventories; undefined where they are switched off */
  inventories?: InventoryTaker | undefined
}

export interface Mirror {
  /** Opens every listener, the operator's last. @throws LISTEN_FAILED naming the address; nothing is left open then */
  listen(): Promise<void>
  /** Takes no new connection and lets the answers under way end, for a few seconds. */
  close(): Promise<void>
  /** with the real port once it listens */
  readonly adminUrl: string
  /** in the order of the settings, with real ports once it listens */
  readonly origins: readonly OriginUrl[]
}

/** Where an origin is; `vendorNames`: under the vendor's names, too. */
export interface OriginUrl {
  group: string
  url: string
  vendorNames?: true
}

/** How long an answer under way may still take when the mirror is told to end. */
const CLOSE_GRACE_MS = 5_000
const CLOSE_CHECK_MS = 50
const HOUR_MS = 3_600_000

/** The mirror, not listening yet. */
export function buildMirror(args: MirrorArgs): Mirror {
  const { config, log } = args
  const served = new Served({ ...args, keepPreviousMs: config.keepPreviousHours * HOUR_MS })
  const shared = {
    served,
    sender: new Sender(args.blobs, log),
    limit: new ConnectionLimit(),
    contacts: args.contacts,
    inventories: args.inventories,
  }
  const endpoints = new Map<OriginListener, Endpoint>()
  for (const origins of bySocket(config.origins)) {
    const endpoint = originEndpoint(origins, shared)
    for (const origin of origins) endpoints.set(origin, endpoint)
  }
  const origins = (): OriginUrl[] =>
    config.origins.map((origin) => {
      const url = endpoints.get(origin)!.urlOf(origin)
      return { group: origin.group, url, ...(origin.vendorNames === true ? { vendorNames: true } : {}) }
    })
  let isUp = false
  const admin = adminEndpoint(config.admin, log, {
    isServing: () => isUp && config.origins.some(({ group }) => served.released().has(group)),
    status: () => describe(args, served, origins()),
  })
  const all = [...new Set(endpoints.values()), admin]
  return {
    async listen() {
      await openAll(all)
      isUp = true
      for (const origin of origins()) log.info(origin, 'origin')
      log.info({ url: this.adminUrl }, 'admin')
    },
    async close() {
      isUp = false
      await closeAll(all)
    },
    get adminUrl() {
      return admin.urlOf(config.admin)
    },
    get origins() {
      return origins()
    },
  }
}

/** A Fastify instance, and where it listens. */
class Endpoint {
  readonly app: FastifyInstance
  readonly #listener: Listener
  readonly #server: Server
  #port: number

  /** @param onUp  learns the real port before the first connection is handled */
  constructor(listener: Listener, { app, onUp }: { app: FastifyInstance; onUp: (port: number) => void }) {
    this.app = app
    this.#listener = listener
    this.#port = listener.port
    this.#server = app.server.once('listening', () => {
      this.#port = (app.server.address() as AddressInfo).port
      onUp(this.#port)
    })
  }

  urlOf(listener: Listener): string {
    return listenerUrl({ ...listener, port: this.#port })
  }

  async open(): Promise<void> {
    const { host, port } = this.#listener
    try {
      await this.app.listen({ host, port })
    } catch (cause) {
      const why = LISTEN_ERRORS.get(systemCode(cause)) ?? systemCode(cause)
      throw new GapferryError('LISTEN_FAILED', `cannot listen at ${formatListen({ host, port })}: ${why}`, {
        hint: LISTEN_HINTS.get(systemCode(cause)) ?? LISTEN_HINT,
        cause,
      })
    }
  }

  async close(): Promise<void> {
    // A connection becomes idle, and may be closed, when its answer has ended.
    const sweep = setInterval(() => this.#server.closeIdleConnections(), CLOSE_CHECK_MS)
    const cut = setTimeout(() => this.#server.closeAllConnections(), CLOSE_GRACE_MS)
    try {
      await this.app.close()
    } finally {
      clearInterval(sweep)
      clearTimeout(cut)
    }
  }
}

const LISTEN_HINT = 'end the program that has it, or choose another listen address in mirror.yaml'
const LISTEN_HINTS = new Map([
  [
    'EACCES',
    'ports below 1024 are for root: in the service, AmbientCapabilities=CAP_NET_BIND_SERVICE; or choose another in mirror.yaml',
  ],
])
const LISTEN_ERRORS = new Map([
  ['EADDRINUSE', 'another program has this port'],
  ['EACCES', 'this user may not use this port'],
  ['EADDRNOTAVAIL', 'this machine has no such address'],
  ['ENOTFOUND', 'this name has no address'],
])

interface Shared {
  served: Served
  sender: Sender
  limit: ConnectionLimit
  contacts: MirrorArgs['contacts']
  inventories: MirrorArgs['inventories']
}

/** One listener of origins. Fastify opens and closes it, but its router is not on the way: it would judge targets and
 *  methods before the one function that does. (Measured for 4 KB answers, the router costs 0–8 % of processor time.) */
function originEndpoint(origins: OriginListener[], { served, sender, limit, contacts, inventories }: Shared): Endpoint {
  const [listener] = origins as [OriginListener]
  let answer: (request: ContentRequest) => Answer
  const isInventory = (method: string, target: string): boolean =>
    inventories !== undefined && isInventoryRequest(method, target)
  const wants = (method: string, target: string): number =>
    isInventory(method, target) ? MAX_INVENTORY_BODY_BYTES : hasForm(target) ? MAX_BODY_BYTES : 0
  const { request, checkContinue } = readsBody(wants, (req, res, head, { refused, kept: form }) => {
    const { method = '', url: target = '', socket: connection } = req
    const isHeadOnly = method === 'HEAD'
    if (refused !== undefined) return sender.send(res, refusal(refused, { isHeadOnly, isLast: true }))
    const given = answer({ method, target, head, form, connection })
    if (isInventory(method, target) && given.group !== undefined) {
      const address = connection.remoteAddress ?? ''
      return sender.send(res, inventories!.answer({ target, body: form, address, group: given.group }))
    }
    sender.send(res, given)
    if (form === undefined || given.group === undefined || contacts === undefined) return
    contacts.note({ group: given.group, target, form, address: connection.remoteAddress ?? '', status: given.status })
  })
  const app = Fastify({
    serverFactory: () => limitedServer(limit, request).on('checkContinue', checkContinue),
    clientErrorHandler: answerClientError,
  })
  return new Endpoint(listener, {
    app,
    onUp: (port) => {
      const named = origins.map((origin) => ({ hosts: namesOf(origin), value: origin.group }))
      const vendorNames = new Set(origins.filter((origin) => origin.vendorNames).map(({ group }) => group))
      answer = contentAnswers(new HostTable({ host: listener.host, port }, named), served, vendorNames)
    },
  })
}

/** The operator's listener has a limit of its own: boxes cannot crowd the operator out. */
function adminEndpoint(
  listener: Listener,
  log: Logger,
  { isServing, status }: { isServing: () => boolean; status: () => MirrorStatus },
): Endpoint {
  let hosts = new HostTable<'admin'>(listener, [])
  const limit = new ConnectionLimit()
  const app = Fastify({
    serverFactory: (handle) =>
      limitedServer(
        limit,
        checksHost(() => hosts, handle),
      ),
    clientErrorHandler: answerClientError,
    frameworkErrors: answerBadPath,
  })
  addAdminRoutes(app, { isServing, status, log })
  return new Endpoint(listener, {
    app,
    onUp: (port) => (hosts = new HostTable({ host: listener.host, port }, [{ hosts: listener.hosts, value: 'admin' }])),
  })
}

/** Origins that share a listen address share a listener; port 0 is a new one each time. */
function bySocket(origins: readonly OriginListener[]): OriginListener[][] {
  const groups = new Map<string, OriginListener[]>()
  for (const [i, origin] of origins.entries()) {
    const key = origin.port === 0 ? `any ${i}` : formatListen(origin)
    groups.set(key, [...(groups.get(key) ?? []), origin])
  }
  return [...groups.values()]
}

function describe(args: MirrorArgs, served: Served, origins: Mirror['origins']): MirrorStatus {
  const released = served.released()
  const numbers = args.config.origins.flatMap(({ group }) => released.get(group)?.number ?? [])
  const bundle = numbers.length === 0 ? null : Math.max(...numbers)
  const { site, createdAtMs, store, alarms = [] } = args.status(bundle)
  return {
    alarms,
    site,
    bundle,
    origins: origins.map(({ group, url }) => ({
      group,
      url,
      yum: [...(released.get(group)?.tree.stamps.keys() ?? [])].sort(),
    })),
    store,
    ageSeconds: createdAtMs === null ? null : Math.max(0, Math.floor((args.clock() - createdAtMs) / 1000)),
  }
}

async function openAll(endpoints: Endpoint[]): Promise<void> {
  try {
    for (const endpoint of endpoints) await endpoint.open()
  } catch (error) {
    await closeAll(endpoints)
    throw error
  }
}

async function closeAll(endpoints: Endpoint[]): Promise<void> {
  await Promise.all(endpoints.map((endpoint) => endpoint.close()))
}
