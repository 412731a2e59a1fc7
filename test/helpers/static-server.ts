import { createReadStream, statSync } from 'node:fs'
import { createServer } from 'node:http'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join, normalize } from 'node:path'

/** One request as it came, with the status it got. */
interface ServedRequest {
  method: string
  url: string
  headers: IncomingMessage['headers']
  status: number
}

/** A running server. */
export interface StaticServer {
  /** `http://127.0.0.1:PORT`, no slash at the end. */
  url: string
  /** Every request so far, in the order of their answers. */
  requests: ServedRequest[]
  close(): Promise<void>
}

/** Answers a request itself by returning true. */
export type Route = (request: IncomingMessage, response: ServerResponse) => boolean

/** Serves the plain files below `root` on loopback, as a vendor's web server would: GET and HEAD, Content-Length and
 *  Last-Modified, 404 for everything else. No Range, no ETag: upstreams need not have them.
 *  @param options.host   default 127.0.0.1
 *  @param options.port   0 (default) takes a free one
 *  @param options.route  asked first on every request */
export async function serveFolder(
  root: string,
  options: { host?: string; port?: number | undefined; route?: Route | undefined } = {},
): Promise<StaticServer> {
  const { host = '127.0.0.1' } = options
  const requests: ServedRequest[] = []
  const server = createServer((request, response) => {
    response.on('close', () => {
      const { method = '', url = '', headers } = request
      requests.push({ method, url, headers, status: response.statusCode })
    })
    if (options.route?.(request, response) !== true) answer(root, request, response)
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(options.port ?? 0, host, resolve)
  })
  return {
    url: `http://${host}:${(server.address() as AddressInfo).port}`,
    requests,
    close: () =>
      new Promise<void>((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}

function answer(root: string, request: IncomingMessage, response: ServerResponse): void {
  const file = request.method === 'GET' || request.method === 'HEAD' ? fileFor(root, request.url ?? '/') : undefined
  if (file === undefined) {
    response.writeHead(404, { 'content-type': 'text/plain' }).end('not found\n')
    return
  }
  const { size, mtime } = statSync(file)
  response.writeHead(200, {
    'content-type': file.endsWith('.xml') ? 'text/xml' : 'application/octet-stream',
    'content-length': size,
    'last-modified': mtime.toUTCString(),
  })
  if (request.method === 'HEAD') response.end()
  else
    createReadStream(file)
      .on('error', () => response.destroy())
      .pipe(response)
}

function fileFor(root: string, url: string): string | undefined {
  const path = decode(url.split('?')[0]!)
  if (path === undefined || path.includes('\0') || path.split('/').includes('..')) return undefined
  const file = join(root, normalize(path))
  return statSync(file, { throwIfNoEntry: false })?.isFile() === true ? file : undefined
}

function decode(path: string): string | undefined {
  try {
    return decodeURIComponent(path)
  } catch {
    return undefined
  }
}
