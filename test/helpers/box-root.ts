import { chmodSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { boxTool } from '../../bundler/box/tool.ts'
import { makeRpmDatabase } from './rpm-database.ts'
import type { PackageSpec } from './rpm-spec.ts'
import { run, type Outcome } from './process.ts'

/** The tool as boxes get it, in a file that goes when the test's process ends. */
export const GAPFERRY_BOX = writeTool()
/** Every shell the sh file is written for, as a command. bash stands for CentOS 7's /bin/sh, dash for Debian's. */
export const SHELLS: [string, ...string[]][] = [['dash'], ['bash', '--posix'], ['bash'], ['busybox', 'sh']]

/** Whose awk, sed and the like a box has: CentOS 7's awk is gawk, Debian's mawk; busybox has all of its own. */
export const TOOLS = ['gawk', 'mawk', 'busybox'] as const
const BUSYBOX = [
  'awk',
  'sed',
  'tr',
  'head',
  'tail',
  'sort',
  'cut',
  'sha256sum',
  'date',
  'basename',
  'grep',
  'id',
  'uname',
]

function writeTool(): string {
  const dir = mkdtempSync(join(tmpdir(), 'gapferry-box-tool-'))
  process.on('exit', () => rmSync(dir, { recursive: true, force: true }))
  const file = join(dir, 'gapferry-box')
  writeFileSync(file, boxTool(), { mode: 0o755 })
  return file
}

/** A folder for `path` of runBox in which these tools are the named ones. */
export function toolsFolder(dir: string, tools: (typeof TOOLS)[number]): string {
  const folder = join(dir, tools)
  mkdirSync(folder, { recursive: true })
  for (const name of tools === 'busybox' ? BUSYBOX : ['awk']) symlinkSync(`/usr/bin/${tools}`, join(folder, name))
  return folder
}

/** A box's system below `root`: an rpm database of these packages, `/usr/bin/yum` or dnf, and any other file. */
export async function makeBoxRoot(
  root: string,
  packages: readonly PackageSpec[],
  files: Record<string, string | Uint8Array> = {},
  manager: 'yum' | 'dnf' = 'yum',
): Promise<void> {
  if (packages.length > 0) await makeRpmDatabase(root, packages)
  for (const [path, text] of Object.entries({ [`/usr/bin/${manager}`]: '#!/usr/bin/python\n', ...files })) {
    mkdirSync(dirname(join(root, path)), { recursive: true })
    writeFileSync(join(root, path), text)
    if (path.includes('bin/')) chmodSync(join(root, path), 0o755)
  }
}

/** Runs `gapferry-box` in one of the shells. @param path  folders in front of PATH, as with stubs of mysql or php */
export async function runBox(
  args: readonly string[],
  {
    shell = SHELLS[0]!,
    path,
    env = {},
    cwd,
  }: { shell?: [string, ...string[]]; path?: string; env?: Record<string, string>; cwd?: string } = {},
): Promise<Outcome> {
  const [command, ...rest] = shell
  const PATH = `${path === undefined ? '' : `${path}:`}/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin`
  return run(command, [...rest, GAPFERRY_BOX, ...args], {
    env: { PATH, ...env },
    ...(cwd === undefined ? {} : { cwd }),
  })
}

/** Packages of the size and kind of a CentOS 7 based box: shared libraries with versioned symbols, perl and python
 *  modules, three kernels with their symbols, 130 files each. The same on every call. */
export function manyPackages(count: number): PackageSpec[] {
  const kernels = [1, 2, 3].map((i) => kernel(`${1160 + i}.el7`))
  return [...kernels, ...Array.from({ length: count - kernels.length }, (_, i) => ordinary(i))]
}

function ordinary(i: number): PackageSpec {
  const name = `${['lib', 'perl-', 'python-', 'asterisk-', ''][i % 5]}component${i}`
  const symbols = ['2.2.5', '2.3', '2.3.4', '2.4', '2.14', '2.15']
    .slice(0, 2 + (i % 5))
    .map((v) => `libc.so.6(GLIBC_${v})(64bit)`)
  const others = Array.from({ length: i % 9 }, (_, k) => `libother${(i * 7 + k * 13) % 400}.so.${k}()(64bit)`)
  const modules = Array.from({ length: i % 7 }, (_, k) => `perl(Module::Number${(i * 3 + k) % 900}) >= ${k}.0${k}`)
  return {
    name,
    version: `${i % 12}.${i % 31}.${i % 7}`,
    release: `${1 + (i % 60)}.el7_9.${i % 9}`,
    ...(i % 10 === 0 ? { epoch: 1 + (i % 3) } : {}),
    arch: i % 3 === 0 ? 'noarch' : 'x86_64',
    requires: [
      ...['/bin/sh', '/bin/sh', 'rpmlib(CompressedFileNames) <= 3.0.4-1', 'rtld(GNU_HASH)', 'libpthread.so.0()(64bit)'],
      ...['/sbin/ldconfig', `/usr/bin/tool${(i * 11) % 300}`, `component${(i + 5) % 1000}(x86-64) = ${i % 12}.1`],
      ...symbols,
      ...others,
      ...modules,
    ],
    provides: [
      `${name}(x86-64) = ${i % 12}.${i % 31}`,
      ...Array.from({ length: i % 11 }, (_, k) => `${name}-part${k}.so.${k}()(64bit)`),
    ],
    files: Object.fromEntries(
      Array.from({ length: 130 }, (_, k) => [
        `/usr/${k === 0 ? `bin/tool${i}` : `share/${name}/locale/part${k}/LC_MESSAGES/file${k}.mo`}`,
        '',
      ]),
    ),
  }
}

function kernel(release: string): PackageSpec {
  const provides = Array.from(
    { length: 3000 },
    (_, k) => `kernel(symbol_number_${k}) = 0x${((k * 2654435761) % 2 ** 32).toString(16).padStart(8, '0')}`,
  )
  return {
    name: 'kernel',
    version: '3.10.0',
    release,
    arch: 'x86_64',
    provides,
    files: { [`/boot/vmlinuz-3.10.0-${release}`]: '' },
  }
}
