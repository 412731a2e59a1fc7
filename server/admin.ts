/**
 * The operator's side: is the mirror serving, and what. Its listener is loopback by default and answers only to names of
 * its own, so that a web page in the operator's browser cannot read it.
 */
import type { FastifyInstance } from 'fastify'
import type { Logger } from 'pino'
import { Type, type Static } from 'typebox'
import { httpStatus } from '../manifests/errors.ts'
import { readHead } from './conditions.ts'
import { refusal } from './content.ts'
import type { HostTable } from './hosts.ts'
import { errorFields } from './send.ts'

const Status = Type.Object({
  site: Type.Union([Type.String(), Type.Null()]),
  /** number of the newest bundle that is served; null before the first release */
  bundle: Type.Union([Type.Integer(), Type.Null()]),
  origins: Type.Array(
    Type.Object({
      group: Type.String(),
      url: Type.String(),
      /** repository ids, sorted; empty while nothing is released */
      yum: Type.Array(Type.String()),
    }),
  ),
  store: Type.Object({
    path: Type.String(),
    blobs: Type.Optional(Type.Integer()),
    bytes: Type.Optional(Type.Integer()),
  }),
  /** since the bundle that is served was made at the laptop; null before the first release */
  ageSeconds: Type.Union([Type.Integer(), Type.Null()]),
})

/** The answer of `GET /api/v1/status`. */
export type MirrorStatus = Static<typeof Status>

export interface AdminArgs {
  /** the names of the admin listener, once it listens */
  hosts: () => HostTable<'admin'>
  /** true when every listener is up and something is released */
  isServing: () => boolean
  status: () => MirrorStatus
  log: Logger
}

/** Adds the routes: `/healthz` (200 when serving, else 503), `/api/v1/status`. */
export function addAdminRoutes(app: FastifyInstance, { hosts, isServing, status, log }: AdminArgs): void {
  app.addHook('onRequest', async (request) => {
    hosts().find('/', readHead(request.raw.rawHeaders), request.raw.socket)
  })
  app.setErrorHandler((error, _, reply) => {
    // Fastify's own errors (a bad body, say) carry their status; their texts are for developers.
    const own = (error as { statusCode?: number }).statusCode
    const code = own !== undefined && own < 500 ? own : httpStatus(error)
    if (code >= 500) log.error(errorFields(error), 'a request failed')
    const text = own === code ? `${code}\n` : refusal(error).body
    return reply.code(code).type('text/plain; charset=utf-8').send(text)
  })
  app.setNotFoundHandler((_, reply) => reply.code(404).type('text/plain; charset=utf-8').send('404\n'))
  app.get('/healthz', async (_, reply) => {
    const isUp = isServing()
    return reply.code(isUp ? 200 : 503).send({ status: isUp ? 'serving' : 'nothing is released yet' })
  })
  app.get('/api/v1/status', { schema: { response: { 200: Status } } }, async () => status())
}
