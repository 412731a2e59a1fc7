/** A released tree with modules, as small as one can be, and the requests of a FreePBX box, byte for byte as recorded. */
import { gzipSync } from 'node:zlib'
import type { BlobStore } from '../../storage/blobs.ts'
import { makeTree, type TestFile } from './content.ts'

export const CORE = 'packages/core/core-16.0.68.tgz.gpg'
export const LIST =
  '<xml><module><rawname>core</rawname><version>16.0.68</version></module>' +
  '<module><rawname>framework</rawname><version>16.0.40</version></module></xml>'
export const SOUNDS = '<xml><sounds><package/><package/></sounds></xml>'
export const TAG = JSON.stringify({ rawname: 'core', version: '16.0.68', location: CORE })

export function moduleFiles(): Record<string, TestFile> {
  const list = { kind: 'pointer', type: 'text/xml' } as const
  const packed = (bytes: string, of: string): TestFile => ({
    bytes: gzipSync(bytes, { level: 9 }),
    kind: 'companion',
    of,
    type: 'application/gzip',
  })
  return {
    'all-16.0.xml': { bytes: LIST, ...list },
    'all-16.0.xml.gz': packed(LIST, 'all-16.0.xml'),
    'modules-16.0.xml': { bytes: LIST, ...list },
    'sounds-16.0.xml': { bytes: SOUNDS, ...list },
    'sounds-16.0.xml.gz': packed(SOUNDS, 'sounds-16.0.xml'),
    'sounds/asterisk-core-sounds-en-ulaw-1.6.1.tar.gz': { bytes: 'sounds', type: 'application/gzip' },
    [`modules/${CORE}`]: { bytes: 'a signed module', type: 'application/octet-stream' },
    'version-16.0.40.html': { bytes: '', kind: 'pointer', type: 'text/html' },
    'gapferry/modules/core-16.0.68.json': { bytes: TAG, kind: 'pointer', type: 'application/json' },
  }
}

export function makeModuleTree(blobs: BlobStore, { group = 'pbx', number = 1 } = {}) {
  return makeTree(blobs, moduleFiles(), { group, number })
}

export interface BoxFields {
  installid?: string
  deploymentid?: string
  pbxver?: string
  phpver?: string
  brandid?: string
  /** rawname → version, all enabled */
  modules?: Record<string, string>
}

/** The form of a list request, in PHP's spelling. */
export function boxForm(fields: BoxFields = {}): string {
  const { installid = '6f0e2a8c-0b51-4f0c-9a52-0d3b8d1c7a11', modules = { core: '16.0.60', framework: '16.0.30' } } =
    fields
  const { deploymentid = '12345678', pbxver = '16.0.30', phpver = '7.4.33', brandid = 'pbxact' } = fields
  const pairs: [string, string][] = [
    ['lastaccesseduuid', '1f3870be-274f-4c49-b3e3-1a0c6728957f'],
    ['currentuuid', 'd1a5279d-7ef2-4dce-bdd2-2a1b3f0a9d3f'],
    ['machineid', 'c0ffee'.repeat(10)],
    ['installid', installid],
    ['type', ''],
    ...Object.entries(modules).flatMap(([rawname, version]): [string, string][] => [
      [`modules[${rawname}][version]`, version],
      [`modules[${rawname}][status]`, '2'],
      [`modules[${rawname}][rawname]`, rawname],
      [`modules[${rawname}][license]`, 'GPLv3+'],
    ]),
    ...Object.entries({ brandid, deploymentid, astver: '18.9-cert1', phpver, distro: 'freepbxdistro' }),
    ...Object.entries({ distrover: '12.7.8-2204-1.sng7', pbxver, ucount: '42', extraid: 'eyJhIjoxfQ==', sv: '2' }),
  ]
  return pairs.map(([key, value]) => `${phpEscape(key)}=${phpEscape(value)}`).join('&')
}

/** http_build_query's. */
function phpEscape(text: string): string {
  return encodeURIComponent(text)
    .replace(/[!'()*]/g, (one) => `%${one.charCodeAt(0).toString(16).toUpperCase()}`)
    .replaceAll('%20', '+')
}

/** The request of PHP's Requests library: lists, module packages, versions, announcements. */
export function requestsPost(host: string, path: string, form: string): string {
  return [
    `POST ${path} HTTP/1.1`,
    `Host: ${host}`,
    'User-Agent: php-requests/1.7',
    'Accept: */*',
    'Accept-Encoding: deflate, gzip',
    `Referer: http://${host}${path}`,
    'Connection: close',
    'Content-Type: application/x-www-form-urlencoded',
    `Content-Length: ${form.length}`,
    '',
    form,
  ].join('\r\n')
}

/** The request of Pest, which is curl: sounds. */
export function pestPost(host: string, path: string, form: string): string {
  const type = 'Content-Type: application/x-www-form-urlencoded'
  return `POST ${path} HTTP/1.1\r\nHost: ${host}\r\nAccept: */*\r\nContent-Length: ${form.length}\r\n${type}\r\n\r\n${form}`
}

/** get_headers of PHP before each download: HTTP/1.0, an empty query, a Host without its port. */
export function headRequest(host: string, path: string): string {
  return `HEAD ${path}? HTTP/1.0\r\nHost: ${host.replace(/:\d+$/, '')}\r\n\r\n`
}
