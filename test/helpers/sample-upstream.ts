import type { IncomingMessage, ServerResponse } from 'node:http'
import { resolve } from 'node:path'
import { serveFolder } from './static-server.ts'
import type { Route, StaticServer } from './static-server.ts'

const SAMPLE = resolve(import.meta.dirname, '../sample')
/** The `repo` of a mirrorlist request → where that repository lies, as mirrorlist.sangoma.net has it. */
const REPOSITORIES: Record<string, string> = { sng7: 'sng7/sng7', updates: 'os/7/updates/x86_64' }

/** Serves the sample upstream of test/sample on loopback: the vendor's files, and at `/` the answer of the vendor's
 *  mirrorlist server (`/?release=7&arch=x86_64&repo=sng7` → one base URL on a line of its own; an empty list for a
 *  repository, release or architecture it does not have). It needs nothing but Node.
 *  @param port  0 (default) takes a free one
 *  @param more  answers what is not there */
export async function serveSample(port = 0, more?: Route): Promise<StaticServer> {
  const route: Route = (request, response) => mirrorlist(request, response) || more?.(request, response) === true
  return serveFolder(SAMPLE, { port, route })
}

function mirrorlist(request: IncomingMessage, response: ServerResponse): boolean {
  const url = new URL(request.url ?? '/', `http://${request.headers.host ?? 'localhost'}`)
  if (url.pathname !== '/') return false
  const path = REPOSITORIES[url.searchParams.get('repo') ?? '']
  const isKnown = url.searchParams.get('release') === '7' && url.searchParams.get('arch') === 'x86_64'
  response.writeHead(200, { 'content-type': 'text/plain' })
  response.end(isKnown && path !== undefined ? `${url.origin}/${path}/\n` : '')
  return true
}
