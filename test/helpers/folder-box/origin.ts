import { mkdirSync, writeFileSync } from 'node:fs'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { dirname, join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import { setupText } from '../../../bundler/box/setup-text.ts'
import { siteKeyWords } from '../../../manifests/words.ts'
import { gpgKey } from '../gpg.ts'
import { moduleKeys } from '../module-keys.ts'
import type { Teardown } from '../process.ts'
import { serveFolder, type StaticServer } from '../static-server.ts'

/** What a box that is set up asks a mirror for, from a plain web server. */
export interface Origin {
  url: string
  /** of the site key */
  words: string
  requests: StaticServer['requests']
  /** puts a file there */
  put(path: string, text: string | Buffer): void
  /** the inventories that came: query and text */
  told: { target: string; text: string }[]
  /** how inventories are answered; default 204 */
  answer: { status: number }
  close(): Promise<void>
}

/** Repositories of an SNG7 box: the vendor's ids, one of them with packages that the vendor signs, and one that no file has. */
export const CARRIED = [
  { id: 'sng-base', gpgcheck: false },
  { id: 'sng-pkgs', gpgcheck: false },
  { id: 'sng-cr', gpgcheck: true },
  { id: 'sng-sng7php74', gpgcheck: false },
]

/** @param dir  an empty folder */
export async function makeOrigin(
  t: Teardown,
  dir: string,
  {
    group = 'pbxact16',
    yum = CARRIED,
    major = 16,
    ...listen
  }: {
    group?: string
    yum?: typeof CARRIED
    major?: number
    host?: string
    port?: number
    hosts?: readonly string[]
  } = {},
): Promise<Origin> {
  const [site, { signer }] = [await gpgKey('site'), await moduleKeys()]
  const answer = { status: 204 }
  const told: Origin['told'] = []
  const put = (path: string, text: string | Buffer): void => {
    mkdirSync(dirname(join(dir, path)), { recursive: true })
    writeFileSync(join(dir, path), text)
  }
  const take = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const body = await bodyOf(request)
    told.push({ target: request.url ?? '', text: (body[0] === 0x1f ? gunzipSync(body) : body).toString('latin1') })
    response.writeHead(answer.status).end()
  }
  const server = await serveFolder(dir, {
    ...listen,
    route: (request, response) => {
      if (listen.hosts?.includes(request.headers.host ?? '') === false)
        return response.writeHead(421).end() !== undefined
      if (request.method !== 'POST') return false
      void take(request, response)
      return true
    },
  })
  t.teardown(() => server.close())
  const key = `keys/modules/${signer.fingerprint.slice(-16)}.key`
  put('keys/site.asc', site.publicArmored)
  put('keys/sng-cr.asc', site.publicArmored)
  put(key, signer.publicArmored)
  put('gapferry/setup.txt', setupText({ name: group, yum }, [`all-${major}.0.xml`, key]))
  const { url, requests } = server
  return { url, words: siteKeyWords(site.publicArmored), requests, put, told, answer, close: () => server.close() }
}

async function bodyOf(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of request) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks)
}
