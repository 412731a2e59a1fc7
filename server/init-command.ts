/**
 * `gapferry-mirror init` as a person meets it.
 */
import { relative, resolve } from 'node:path'
import type { Command } from 'commander'
import { askLine } from '../storage/ask.ts'
import { formatTime } from '../manifests/console.ts'
import type { PinnedRoot } from '../manifests/metadata.ts'
import { append, examples, print, talk, type GlobalOptions, type Surroundings } from '../manifests/program.ts'

const LINES_OF_WORDS = 4

export function addInit(program: Command, around: Surroundings): void {
  program
    .command('init')
    .description('make a mirror: pin the root of its site after its fingerprint was compared, write mirror.yaml')
    .argument('[DIR]', 'where', '.')
    .requiredOption('--trust <ROOT.json>', 'the root that gapferry init made on the laptop')
    .option('--fingerprint <WORDS>', 'the twelve words that this root must have; nothing is asked then')
    .option('--yes', 'trust the root as it is; nothing is asked')
    .option('--origin <GROUP=HOST:PORT>', 'where to serve a group of boxes; may be repeated', append)
    .option('--host <NAME>', 'a name by which boxes reach the origins; may be repeated', append)
    .option(
      '--boxes <HOST:PORT>',
      'where boxes enrol and fetch licenses, over TLS (as in 0.0.0.0:8490; default: nowhere)',
    )
    .option('--admin <HOST:PORT>', 'where to serve the operator (default: 127.0.0.1:8480)')
    .addHelpText(
      'after',
      examples(
        program,
        'init mirror --trust 1.root.json --origin pbxact16=0.0.0.0:8416 --host mirror.hq.lan',
        'init mirror --trust 1.root.json --origin pbxact16=0.0.0.0:8416 --boxes 0.0.0.0:8490 --host mirror.hq.lan',
      ),
    )
    .action(async (dir: string, options: InitOptions, command: Command) => {
      const { config, json } = command.optsWithGlobals<GlobalOptions>()
      const isTerminal = around.stdin.isTTY === true && around.stderr.isTTY === true
      const { initialize } = await import('./init.ts') // what checks signatures is not loaded to serve
      const made = await initialize({
        configFile: resolve(around.cwd, config ?? resolve(around.cwd, dir, 'mirror.yaml')),
        rootFile: resolve(around.cwd, options.trust),
        fingerprint: options.fingerprint,
        isConfirmed: options.yes === true,
        ask: isTerminal ? (root) => askToTrust(root, around) : undefined,
        origins: options.origin ?? [],
        hosts: options.host ?? [],
        boxes: options.boxes,
        admin: options.admin,
        by: around,
      })
      if (json === true) return print(around, JSON.stringify(made))
      print(around, `site ${made.site}: its root is ${made.isNew ? 'pinned' : 'pinned already'}`)
      if (made.isRecovered) {
        print(
          around,
          'what was served, and which numbers were seen, came back from state.json; the audit trail begins anew',
        )
      }
      print(around, `  fingerprint  ${made.fingerprint}`)
      print(around, `  identity     ${made.identity}`)
      print(around, `  settings     ${made.config}`)
      print(around, `  store        ${made.store}`)
      print(around, `  public part  on the laptop, for licenses: gapferry report add ${made.identityFile}`)
      if (made.origins === 0) talk(around, `next: add the groups of boxes to origins in ${made.config}`)
      else talk(around, `next: gapferry-mirror import --config ${relative(around.cwd, made.config)} FILE or DIR`)
    })
}

interface InitOptions {
  trust: string
  fingerprint?: string
  yes?: boolean
  origin?: string[]
  host?: string[]
  boxes?: string
  admin?: string
}

async function askToTrust(root: PinnedRoot, around: Surroundings): Promise<boolean> {
  const words = root.fingerprint.split(' ')
  const lines = Array.from({ length: LINES_OF_WORDS }, (_, i) => words.slice(i * 3, i * 3 + 3))
  talk(around, `root of site ${root.site}, version ${root.version}, good until ${formatTime(root.expiresAtMs)}`)
  talk(around, 'its fingerprint:\n')
  for (const line of lines) talk(around, `    ${line.map((word) => word.padEnd(10)).join('')}`.trimEnd())
  talk(around, '\nCompare these words with those on the laptop, by phone or from paper, not from the stick.')
  const answer = await askLine(around, 'Are they the same? [yes/no] ')
  return ['yes', 'y'].includes(answer.trim().toLowerCase())
}
