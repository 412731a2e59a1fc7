/**
 * The operator's side: is the mirror serving, and what. Its listener is loopback by default and answers only to names of
 * its own, so that a web page in the operator's browser cannot read it.
 */
import type { FastifyError, FastifyInstance, FastifyReply } from 'fastify'
import type { RequestListener } from 'node:http'
import type { Logger } from 'pino'
import { httpStatus } from '../manifests/errors.ts'
import { readHead } from './conditions.ts'
import { refusal } from './content.ts'
import type { HostTable } from './hosts.ts'
import { errorFields } from './send.ts'

/** The answer of `GET /api/v1/status`. */
export interface MirrorStatus {
  /** what an operator must hear; empty when all is well */
  alarms: { name: string; text: string }[]
  site: string | null
  /** number of the newest bundle that is served; null before the first release */
  bundle: number | null
  /** `yum`: repository ids, sorted; empty while nothing is released */
  origins: { group: string; url: string; yum: string[] }[]
  store: { path: string; blobs?: number; bytes?: number }
  /** since the bundle that is served was made at the laptop; null before the first release */
  ageSeconds: number | null
}

const TEXT = { type: 'string' }
const COUNT = { type: 'integer' }
/** MirrorStatus as JSON Schema, for Fastify: what stands not in it is not sent. */
const STATUS = objectOf({
  alarms: { type: 'array', items: objectOf({ name: TEXT, text: TEXT }) },
  site: { type: ['string', 'null'] },
  bundle: { type: ['integer', 'null'] },
  origins: { type: 'array', items: objectOf({ group: TEXT, url: TEXT, yum: { type: 'array', items: TEXT } }) },
  store: { type: 'object', required: ['path'], properties: { path: TEXT, blobs: COUNT, bytes: COUNT } },
  ageSeconds: { type: ['integer', 'null'] },
} satisfies Record<keyof MirrorStatus, object>)

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
  app.get('/api/v1/status', { schema: { response: { 200: STATUS } } }, async () => status())
}

function objectOf(properties: Record<string, object>) {
  return { type: 'object', required: Object.keys(properties), properties }
}

function refuse(reply: FastifyReply, code: number, text: unknown): FastifyReply {
  return reply.code(code).type('text/plain; charset=utf-8').send(text)
}
