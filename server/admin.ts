/**
 * The operator's side: is the mirror serving, and what. Its listener is loopback by default and answers only to names of
 * its own, so that a web page in the operator's browser cannot read it.
 */
import type { FastifyError, FastifyInstance, FastifyReply } from 'fastify'
import type { RequestListener } from 'node:http'
import type { Logger } from 'pino'
import { Type, type Static } from '../manifests/schema.ts'
import { httpStatus } from '../manifests/errors.ts'
import { readHead } from './conditions.ts'
import { refusal } from './content.ts'
import type { HostTable } from './hosts.ts'
import { errorFields } from './send.ts'

const Status = Type.Object({
  /** what an operator must hear; empty when all is well */
  alarms: Type.Array(Type.Object({ name: Type.String(), text: Type.String() })),
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
  /** true when every listener is up and something is released */
  isServing: () => boolean
  status: () => MirrorStatus
  log: Logger
}

/** Lets through what asks for a name of this listener, in origin form; to come before Fastify, which judges paths first.
 *  @param hosts  the names of the admin listener, once it listens */
export function checksHost(hosts: () => HostTable<'admin'>, handle: RequestListener): RequestListener {
  return (req, res) => {
    try {
      req.url = hosts().find(req.url ?? '', readHead(req.rawHeaders), req.socket).target
    } catch (error) {
      const { status, headers, body } = refusal(error)
      res.writeHead(status, headers as string[]).end(body)
      return
    }
    handle(req, res)
  }
}

/** What Fastify refuses before it has a route: a path that cannot be decoded. */
export function answerBadPath({ statusCode }: FastifyError, _: unknown, reply: FastifyReply): void {
  void refuse(reply, statusCode ?? 400, `${statusCode ?? 400}\n`)
}

/** Adds the routes: `/healthz` (200 when serving, else 503), `/api/v1/status`. */
export function addAdminRoutes(app: FastifyInstance, { isServing, status, log }: AdminArgs): void {
  app.setErrorHandler((error, _, reply) => {
    // Fastify's own errors (a bad body, say) carry their status; their texts are for developers.
    const own = (error as { statusCode?: number }).statusCode
    const code = own !== undefined && own < 500 ? own : httpStatus(error)
    if (code >= 500) log.error(errorFields(error), 'a request failed')
    const text = own === code ? `${code}\n` : refusal(error).body
    return refuse(reply, code, text)
  })
  app.setNotFoundHandler((_, reply) => refuse(reply, 404, '404\n'))
  app.get('/healthz', async (_, reply) => {
    const isUp = isServing()
    return reply.code(isUp ? 200 : 503).send({ status: isUp ? 'serving' : 'nothing is released yet' })
  })
  app.get('/api/v1/status', { schema: { response: { 200: Status } } }, async () => status())
}

function refuse(reply: FastifyReply, code: number, text: unknown): FastifyReply {
  return reply.code(code).type('text/plain; charset=utf-8').send(text)
}
