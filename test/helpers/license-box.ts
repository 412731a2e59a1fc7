import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { canonicalJson } from '../../manifests/json.ts'
import { runBox } from './box-root.ts'
import { makeFolderBox, type FolderBox, type FolderBoxSpec } from './folder-box/box.ts'
import type { Outcome } from './process.ts'
import { pythons } from './pythons.ts'

/** A text that stands in no other file, and the deployment ID of the box that it is for. */
export const MARKER = 'MARKER-f3b81c'
export const DEPLOYMENT = '77001234'

/** A license file as FreePBX reads it. */
export function licenseText({ deployment = DEPLOYMENT, until = '2027-01-31' } = {}): string {
  return `Product-Name = PBXact\ndeploymentid = ${deployment}\nsysadmin_exp = ${until}\nendpoint_exp = ${until}\nSignature = ${MARKER}\n`
}

export interface DocumentFile {
  path: string
  text: string
  mode?: string
  owner?: string
  group?: string
  sha256?: string
}

const FILES: DocumentFile[] = [
  { path: '/etc/sangoma/license.txt', text: licenseText({ until: '2029-02-28' }), mode: '0644', group: 'asterisk' },
  { path: '/etc/schmooze/schmooze.zl', text: licenseText({ until: '2029-02-28' }), mode: '0640', owner: 'asterisk' },
]

/** The bytes of a license document, right unless it is told otherwise. */
export function licenseDocument({
  files = FILES,
  ...changes
}: { files?: DocumentFile[] } & Record<string, unknown> = {}): Buffer {
  return canonicalJson({
    ...{ _type: 'gapferry-license', format: 1, site: 'hq', deploymentId: DEPLOYMENT, product: 'PBXact', expires: [] },
    ...{ host: null, capturedAt: null, files: files.map(documentFile) },
    ...changes,
  })
}

function documentFile({ path, text, mode = '0644', owner = 'root', group = 'root', sha256 }: DocumentFile) {
  const data = Buffer.from(text)
  const digest = sha256 ?? createHash('sha256').update(data).digest('hex')
  return { path, mode, owner, group, sha256: digest, data: data.toString('base64') }
}

/** Which python runs the tool: that of the manager, as its first line names it. */
export const PYTHONS = await pythons()

export interface LicenseBox extends FolderBox {
  dir: string
  /** the services that were restarted since the last `forget` */
  restarts(): string[]
  run(args: readonly string[], options?: Parameters<typeof runBox>[1]): Promise<Outcome>
}

/** A box with an old license of the deployment, and services that record what is done to them. */
export async function makeLicenseBox(
  dir: string,
  { python = PYTHONS[0]!, ...spec }: Partial<FolderBoxSpec> & { python?: string } = {},
): Promise<LicenseBox> {
  const major = spec.major ?? 16
  mkdirSync(dir, { recursive: true })
  const box = await makeFolderBox(dir, {
    major,
    ...spec,
    files: {
      '/etc/passwd': 'root:x:0:0:root:/root:/bin/bash\nasterisk:x:995:993::/var/lib/asterisk:/bin/bash\n',
      '/etc/group': 'root:x:0:\nasterisk:x:993:\n',
      '/etc/schmooze/pbxid': `${DEPLOYMENT}\n`,
      '/etc/schmooze/schmooze.zl': licenseText(),
      ...(major === 17 ? { '/etc/sangoma/license.txt': licenseText() } : {}),
      ...(major === 17 ? {} : { '/usr/bin/yum': { text: `#!${python}\n`, mode: 0o755 } }),
      ...spec.files,
    },
  })
  // quicker than the stub of the other programs, and asked often
  const log = join(dir, 'systemctl.log')
  writeFileSync(join(box.path, 'systemctl'), `#!/bin/sh\necho "$*" >>'${log}'\n`, { mode: 0o755 })
  const restarts = (): string[] => {
    const lines = existsSync(log) ? readFileSync(log, 'utf8').split('\n') : []
    return lines.flatMap((line) => (line.startsWith('restart ') ? [line.slice(8)] : []))
  }
  const forget = (): void => {
    box.forget()
    rmSync(log, { force: true })
  }
  const run: LicenseBox['run'] = (args, options = {}) =>
    runBox([...args, '--root', box.root], { ...options, path: options.path ?? box.path })
  return { ...box, dir, run, restarts, forget }
}
