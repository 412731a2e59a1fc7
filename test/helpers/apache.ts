import {
  chmodSync,
  cpSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { createServer } from 'node:net'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { removeFolder } from './cache.ts'
import { start } from './process.ts'
import type { Teardown } from './process.ts'

/** A running Debian apache2. */
export interface Apache {
  /** `http://127.0.0.1:PORT`, no slash at the end. */
  url: string
  /** The document root: a copy of the folder given. Call `publish` after changing it by hand. */
  root: string
  /** Replaces the document root by a copy of `folder`. */
  publish(folder: string): void
  /** The access log so far, combined format. */
  log(): string
}

const MODULES = '/usr/lib/apache2/modules'
/** The modules of Debian's default that can touch an answer (`a2query -m` on a fresh install). */
const STOCK_MODULES = [
  'mpm_event',
  'authz_core',
  'alias',
  'autoindex',
  'deflate',
  'dir',
  'filter',
  'mime',
  'negotiation',
]
const ATTEMPTS = 3

/** Serves a copy of `folder` with Debian's apache2, set up as Debian ships it as far as answers go (content types,
 *  compression of text, index pages), on a loopback port, from a folder of its own, in the foreground; ended by pid in
 *  `t`'s teardown. No system service or file is touched. The folder is copied and made readable, since apache2 started
 *  by root serves as www-data. */
export async function makeApache(t: Teardown, folder: string): Promise<Apache> {
  const dir = mkdtempSync(join(tmpdir(), 'gapferry-apache-'))
  t.teardown(() => removeFolder(dir))
  const root = join(dir, 'html')
  const publish = (from: string) => {
    rmSync(root, { recursive: true, force: true })
    cpSync(from, root, { recursive: true, preserveTimestamps: true })
    makeReadable(dir)
  }
  publish(folder)
  const port = await startOnFreePort(t, dir)
  return { url: `http://127.0.0.1:${port}`, root, publish, log: () => textOf(join(dir, 'access.log')) }
}

/** Apache cannot choose a free port itself, so the one found may be gone again: then another is tried. */
async function startOnFreePort(t: Teardown, dir: string): Promise<number> {
  for (let attempt = 1; ; attempt++) {
    const port = await freePort()
    writeFileSync(join(dir, 'apache2.conf'), configText(dir, port))
    const args = ['-d', dir, '-f', join(dir, 'apache2.conf'), '-DFOREGROUND']
    const errors = () => textOf(join(dir, 'error.log'))
    try {
      const ready = async () => errors().includes('resuming normal operations')
      await start(t, 'apache2', args, { ready })
      return port
    } catch (error) {
      const isTaken = String(error).includes('Address already in use')
      if (attempt === ATTEMPTS || !isTaken) throw new Error(`apache2: ${errors()}`, { cause: error })
    }
  }
}

function textOf(file: string): string {
  return existsSync(file) ? readFileSync(file, 'utf8') : ''
}

async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  await new Promise((resolve) => server.close(resolve))
  return port
}

function configText(dir: string, port: number): string {
  const user = process.getuid?.() === 0 ? ['User www-data', 'Group www-data'] : []
  return [
    ...STOCK_MODULES.map((name) => `LoadModule ${name}_module ${MODULES}/mod_${name}.so`),
    ...user,
    `Listen 127.0.0.1:${port}`,
    `ServerName 127.0.0.1`,
    `PidFile "${dir}/apache2.pid"`,
    `DefaultRuntimeDir "${dir}"`,
    `ErrorLog "${dir}/error.log"`,
    'LogLevel warn mpm_event:notice core:notice',
    'LogFormat "%h %l %u %t \\"%r\\" %>s %O \\"%{Referer}i\\" \\"%{User-Agent}i\\"" combined',
    `CustomLog "${dir}/access.log" combined`,
    'TypesConfig /dev/null',
    'AddType application/xml .xml',
    'AddType application/x-gzip .gz .tgz',
    'AddType application/x-bzip2 .bz2',
    'AddOutputFilterByType DEFLATE text/html text/plain text/xml text/css application/xml',
    'StartServers 1',
    'ServerLimit 1',
    'ThreadsPerChild 8',
    'MaxRequestWorkers 8',
    '<Directory />',
    '  Require all denied',
    '</Directory>',
    `DocumentRoot "${dir}/html"`,
    `<Directory "${dir}/html">`,
    '  Options Indexes FollowSymLinks',
    '  AllowOverride None',
    '  Require all granted',
    '</Directory>',
    '',
  ].join('\n')
}

function makeReadable(path: string): void {
  const isFolder = statSync(path).isDirectory()
  chmodSync(path, isFolder ? 0o755 : 0o644)
  if (isFolder) for (const name of readdirSync(path)) makeReadable(join(path, name))
}
