/**
 * `gapferry verify` and `gapferry inspect`: bundles judged with nothing but the root.
 */
import { existsSync, readFileSync, statSync } from 'node:fs'
import { basename, dirname, resolve } from 'node:path'
import type { Command } from 'commander'
import { parsePartName } from '../manifests/bundle.ts'
import { errorObject, formatBytes, formatTable, formatTime, plural } from '../manifests/console.ts'
import { GapferryError, isGapferryError } from '../manifests/errors.ts'
import { MAX_METADATA_BYTES } from '../manifests/metadata.ts'
import { examples, print, PrintedError, type GlobalOptions, type Surroundings } from '../manifests/program.ts'
import { withScratch } from './scratch.ts'
import { makeProgress } from '../manifests/progress.ts'
import { inspectFiles, verifyFiles, type InspectedBundle, type JudgedBundle, type JudgeOptions } from './verify.ts'

interface Options extends GlobalOptions {
  trust?: string
}

const SHOWN_MISSING = 10

export function addVerifyCommands(program: Command, around: Surroundings): void {
  judging(program, 'verify', 'check every byte of a bundle: signatures, trees, digests').action(
    async (files: string[], _: object, command: Command) => {
      const options = command.optsWithGlobals<Options>()
      const step = makeProgress(around).step('verify')
      const paths = pathsOf(files, around)
      const bundles = await withScratch(async (scratchDir) => {
        const judge = await judgeOptions(files, options, around)
        return verifyFiles(paths, { ...judge, scratchDir, isPastCache: true, onProgress: (bytes) => step.add(bytes) })
      })
        .catch((error: unknown) => {
          throw withWayOut(error, paths, options)
        })
        .finally(() => step.end())
      const failure = incomplete(bundles)
      if (options.json === true) print(around, JSON.stringify({ bundles, ...(failure && errorObject(failure)) }))
      else print(around, bundles.map(renderJudged).join('\n'))
      if (failure !== undefined)
        throw options.json === true ? new PrintedError('incomplete', { cause: failure }) : failure
    },
  )
  judging(program, 'inspect', 'list what a bundle carries, path by path').action(
    async (files: string[], _: object, command: Command) => {
      const options = command.optsWithGlobals<Options>()
      const paths = pathsOf(files, around)
      const bundles = await withScratch(async (scratchDir) => {
        return inspectFiles(paths, { ...(await judgeOptions(files, options, around)), scratchDir })
      })
      print(around, options.json === true ? JSON.stringify({ bundles }) : bundles.map(renderInspected).join('\n\n'))
    },
  )
}

/** A part that this laptop made, it can mend. */
function withWayOut(error: unknown, paths: string[], { trust }: Options): unknown {
  const isDamage = isGapferryError(error) && /^(?:BLOB|BUNDLE|TREE)_/.test(error.code)
  if (!isDamage || trust !== undefined || error.code === 'BUNDLE_MIXED') return error
  const stick = resolve(dirname(paths[0] ?? ''), '../..')
  return new GapferryError(error.code, error.message, { hint: `gapferry pack --repair --to ${stick}`, cause: error })
}

function judging(program: Command, name: string, description: string): Command {
  return program
    .command(name)
    .description(description)
    .argument('<FILE...>', 'parts of a bundle')
    .option('--trust <ROOT.json>', 'the root to believe (default: the one in keys/ of the bundle’s site)')
    .addHelpText('after', examples(program, `${name} /media/stick/gapferry/hq/hq-7.tar --trust 1.root.json`))
}

type Judging = Omit<JudgeOptions, 'scratchDir'>

async function judgeOptions(files: string[], options: Options, around: Surroundings): Promise<Judging> {
  const roots =
    options.trust === undefined
      ? await ownRoots(files, options, around)
      : [readRoot(resolve(around.cwd, options.trust))]
  return { trusted: { roots }, nowMs: around.nowMs(), signal: around.signal }
}

/** The roots that this laptop holds for the site that the file's name tells; what the file says of itself proves nothing. */
async function ownRoots([file = '']: string[], { config }: Options, around: Surroundings): Promise<Buffer[]> {
  const site = parsePartName(basename(file))?.site
  if (site === undefined) {
    throw new GapferryError('USAGE_INVALID', `${file}: its name does not tell the site`, {
      hint: 'give --trust ROOT.json',
    })
  }
  const [{ loadFleet }, { loadSite }] = await Promise.all([import('./config.ts'), import('./keys/keys.ts')])
  return loadSite(loadFleet(resolve(around.cwd, config ?? 'gapferry.yaml')).keysDir, site).roots
}

function readRoot(file: string): Buffer {
  try {
    const stats = statSync(file)
    if (!stats.isFile() || stats.size > MAX_METADATA_BYTES.root) {
      throw new GapferryError(
        'ROOT_INVALID',
        `${file}: expected a plain file of ${MAX_METADATA_BYTES.root} bytes at most`,
      )
    }
    return readFileSync(file)
  } catch (cause) {
    if (isGapferryError(cause)) throw cause
    throw new GapferryError('USAGE_INVALID', `${file}: cannot be read`, { cause, hint: 'give --trust ROOT.json' })
  }
}

function renderJudged(bundle: JudgedBundle): string {
  const lines = [
    `bundle ${bundle.number} for ${bundle.site}: genuine, signed ${formatTime(bundle.createdAtMs)}, good until ${formatTime(bundle.expiresAtMs)}`,
    `  ${plural(bundle.parts.length, 'part')}, ${plural(bundle.blobs, 'blob')}, ${formatBytes(bundle.bytes)}`,
  ]
  if (bundle.missing.length === 0) return [...lines, '  complete'].join('\n')
  const shown = bundle.missing
    .slice(0, SHOWN_MISSING)
    .map((one) => [one.group, one.path, ...(bundle.isDifferential ? [] : [one.part ?? 'in a part that is not known'])])
  const more = bundle.missing.length - shown.length
  return [
    ...lines,
    bundle.isDifferential
      ? `  all its parts; left out, because the site shall have them: ${plural(bundle.missing.length, 'path')}`
      : `  incomplete: ${plural(bundle.missing.length, 'path')} missing`,
    formatTable(shown, { indent: '    ' }),
    ...(more > 0 ? [`    and ${more} more`] : []),
  ].join('\n')
}

function renderInspected(bundle: InspectedBundle): string {
  const groups = bundle.groups.map(({ group, origin, entries }) => {
    const rows = entries.map((entry) => [
      entry.path,
      formatBytes(entry.bytes),
      entry.verdict ?? 'made here',
      entry.isHere ? '' : 'not here',
    ])
    return `\n${group}  ${origin}\n${formatTable(rows, { indent: '  ', right: [1] })}`
  })
  return [renderJudged(bundle), ...groups, ...renderLicenses(bundle)].join('\n')
}

function renderLicenses({ licenses }: InspectedBundle): string[] {
  if (licenses === null) return []
  const rows = licenses.blobs.map(({ sha256, bytes, isHere }) => {
    return [sha256, formatBytes(bytes), sha256 === licenses.index ? 'index' : 'license', isHere ? '' : 'not here']
  })
  return [`\nlicenses, sealed\n${formatTable(rows, { indent: '  ', right: [1] })}`]
}

function incomplete(bundles: JudgedBundle[]): GapferryError | undefined {
  const bundle = bundles.find((one) => one.missing.length > 0 && !one.isDifferential)
  if (bundle === undefined) return undefined
  const parts = [...new Set(bundle.missing.map((one) => one.part).filter((part) => part !== undefined))]
  return new GapferryError(
    'BUNDLE_INCOMPLETE',
    `bundle ${bundle.number} for ${bundle.site}: ${plural(bundle.missing.length, 'path')} missing`,
    {
      hint: `give these parts too: ${parts.join(', ')}`,
    },
  )
}

function pathsOf(files: string[], around: Surroundings): string[] {
  return files.map((file) => {
    const path = resolve(around.cwd, file)
    if (existsSync(path)) return path
    throw new GapferryError('BUNDLE_NOT_FOUND', `${file}: there is no such file`, {
      hint: 'name the parts: DIR/gapferry/<site>/*.tar',
    })
  })
}
