import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { removeFolder } from './cache.ts'
import { DnfClient, repoFileText } from './dnf.ts'
import type { DnfOptions } from './dnf.ts'
import { gpgKey } from './gpg.ts'
import type { GpgKey } from './gpg.ts'
import type { Teardown } from './process.ts'
import { buildRpms, makeRepository } from './rpms.ts'
import type { BuiltRpm, RepositoryOptions } from './rpms.ts'
import type { PackageSpec } from './rpm-spec.ts'
import { serveFolder } from './static-server.ts'
import type { StaticServer } from './static-server.ts'

/** A vendor's server and as many boxes as a test wants, all real: rpmbuild, createrepo_c, gpg, dnf. */
export interface Lab {
  /** A folder of the test's own, removed in teardown. */
  dir: string
  /** The vendor's key; `keyFile` is its public part on disk, `keyUrl` the same as a `file://` URL. */
  key: GpgKey
  keyFile: string
  keyUrl: string
  /** The vendor's web server over `www`: `http://127.0.0.1:PORT`. */
  url: string
  /** What that server serves; put any file there. */
  www: string
  /** Every request the vendor's server answered. */
  requests: StaticServer['requests']
  /** A new folder below `dir`. */
  folder(name: string): string
  /** Builds the packages, signs them and the metadata with the vendor's key and publishes them as repository `path`;
   *  again with more packages: the next generation of that repository. */
  publish(path: string, specs: readonly PackageSpec[], options?: PublishOptions): Promise<Published>
  /** A new box with no packages. With `repositories` (id → path as published) it updates from the vendor. */
  box(options?: DnfOptions & { repositories?: Record<string, string> }): DnfClient
}

/** As {@link RepositoryOptions}; `signed` default true: packages and metadata; `metadata`, `packages`: only these. */
interface PublishOptions extends Omit<RepositoryOptions, 'signWith'> {
  signed?: boolean | 'metadata' | 'packages'
}

/** A published repository: where it lies, its URL without a slash at the end, its packages in the order given. */
interface Published {
  dir: string
  url: string
  rpms: BuiltRpm[]
}

/** Makes a lab for one test: an empty vendor's server on a free loopback port. Teardown closes it and removes the folder.
 *  ```ts
 *  const lab = await makeLab(t)
 *  await lab.publish('pkgs', [{ name: 'a', version: '1' }, { name: 'a', version: '2' }])
 *  const box = lab.box({ repositories: { lab: 'pkgs' } })
 *  await box.makecache(); await box.install('a-1-1.noarch'); await box.pending()
 *  ``` */
export async function makeLab(t: Teardown): Promise<Lab> {
  const dir = mkdtempSync(join(tmpdir(), 'gapferry-lab-'))
  t.teardown(() => removeFolder(dir))
  const folder = (name: string) => {
    mkdirSync(join(dir, name), { recursive: true })
    return join(dir, name)
  }
  const www = folder('www')
  const server = await serveFolder(www)
  t.teardown(() => server.close())
  const key = await gpgKey('vendor')
  const keyFile = join(dir, 'RPM-GPG-KEY-vendor')
  writeFileSync(keyFile, key.publicArmored)
  const publish = async (path: string, specs: readonly PackageSpec[], options: PublishOptions = {}) => {
    const { signed = true, ...rest } = options
    const rpms = await buildRpms(specs, { signWith: signed === true || signed === 'packages' ? key : undefined })
    const signMetadata = signed === true || signed === 'metadata'
    await makeRepository(join(www, path), rpms, { ...rest, ...(signMetadata ? { signWith: key } : {}) })
    return { dir: join(www, path), url: `${server.url}/${path}`, rpms }
  }
  let boxes = 0
  const box = ({ repositories = {}, ...options }: DnfOptions & { repositories?: Record<string, string> } = {}) => {
    const own = Object.entries(repositories).map(([id, path]) => {
      return [`${id}.repo`, repoFileText({ id, url: `${server.url}/${path}`, gpgkey: `file://${keyFile}` })]
    })
    const repoFiles = { ...(Object.fromEntries(own) as Record<string, string>), ...options.repoFiles }
    return new DnfClient(join(dir, `box-${++boxes}`), { ...options, repoFiles })
  }
  const { url, requests } = server
  return { dir, key, keyFile, keyUrl: `file://${keyFile}`, url, www, requests, folder, publish, box }
}
