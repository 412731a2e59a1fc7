/** gapferry-box on the demo's box: as root of the folder, which an ordinary user is in a user namespace. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { FolderBox } from '../helpers/folder-box/box.ts'
import { run } from '../helpers/process.ts'

/** How a command of the box is started. */
export interface BoxCommand {
  file: string
  args: string[]
  env: Record<string, string>
}

export interface BoxTool {
  /** what cannot be shown here, and why: a line each */
  missing: string[]
  canSetUp: boolean
  canEnrol: boolean
  /** @param tool  the file; `args` as a person would type them on the box itself */
  command(tool: string, args: readonly string[]): BoxCommand
}

const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
const UNSHARE = ['unshare', '--map-root-user', '--'] as const

/** Looks what this machine has. */
export async function lookAround(box: FolderBox): Promise<BoxTool> {
  const [python, openssl, root] = await Promise.all([
    works('/usr/bin/python3', '-c', 'import sqlite3, ssl'),
    works('openssl', 'version'),
    process.getuid?.() === 0 ? Promise.resolve([]) : works(...UNSHARE, 'true').then((is) => (is ? UNSHARE : undefined)),
  ])
  const lacking = [
    ...(root === undefined ? ['you are not root, and user namespaces are not allowed'] : []),
    ...(python ? [] : ['there is no python3 here']),
  ]
  const canSetUp = lacking.length === 0
  const env = { PATH: [...(root === undefined ? [fakeRoot(box)] : []), box.path, PATH].join(':') }
  return {
    missing: [
      ...lacking.map((why) => `the box’s set-up and license: ${why}`),
      ...(canSetUp && !openssl ? ['the box’s license: there is no openssl here'] : []),
    ],
    canSetUp,
    canEnrol: canSetUp && openssl,
    command: (tool, args) => {
      const [file, ...rest] = [...(root ?? []), 'sh', tool, ...args, '--root', box.root]
      return { file, args: rest, env }
    },
  }
}

async function works(...[command, ...args]: readonly [string, ...string[]]): Promise<boolean> {
  const outcome = await run(command, args).catch(() => undefined)
  return outcome?.status === 0
}

/** A folder with an `id` that says root: enough for what only reads. */
function fakeRoot(box: FolderBox): string {
  const folder = join(box.path, '../as-root')
  mkdirSync(folder, { recursive: true })
  writeFileSync(join(folder, 'id'), '#!/bin/sh\necho 0\n', { mode: 0o755 })
  return folder
}
