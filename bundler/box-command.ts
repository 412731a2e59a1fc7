/**
 * `gapferry box`: the tool for boxes, before there is any bundle that brings it.
 */
import { mkdirSync } from 'node:fs'
import { join, resolve } from 'node:path'
import type { Command } from 'commander'
import { formatTable } from '../manifests/console.ts'
import { examples, print, type GlobalOptions, type Surroundings } from '../manifests/program.ts'
import { replaceFile } from '../storage/durable.ts'
import { BOX_TOOL_NAME, boxTool, boxToolDigests } from './box/tool.ts'

export function addBoxCommand(program: Command, around: Surroundings): void {
  program
    .command('box')
    .description('write gapferry-box, the one sh file that boxes are looked at and set up with')
    .requiredOption('--to <DIR>', 'the stick, or any folder; the file is DIR/gapferry-box')
    .addHelpText('after', examples(program, 'box --to /media/stick'))
    .action(({ to }: { to: string }, command: Command) => {
      const { json } = command.optsWithGlobals<GlobalOptions>()
      const file = join(resolve(around.cwd, to), BOX_TOOL_NAME)
      const { sha256, words } = boxToolDigests()
      mkdirSync(resolve(around.cwd, to), { recursive: true })
      replaceFile(file, boxTool(), 0o755)
      print(around, json === true ? JSON.stringify({ file, sha256, words }) : rendered(file, sha256, words))
    })
}

function rendered(file: string, sha256: string, words: string): string {
  const rows = [
    ['sha256', sha256],
    ['words', words],
  ]
  return [
    file,
    formatTable(rows, { indent: '  ' }),
    'on a box, as root: sha256sum gapferry-box, compare, read it, then: sh gapferry-box inventory > box.gfi',
  ].join('\n')
}
