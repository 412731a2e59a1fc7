/** The four works that a crash may end, and what must hold after it, before and after the same command is run again. */
import { mkdirSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import {
  command,
  leftovers,
  partsOn,
  servedBy,
  succeeded,
  wrongBlobs,
  type Killed,
  type ProgramName,
  type Scene,
} from './crash.ts'

export interface Work {
  name: 'import' | 'release' | 'pack' | 'pull'
  program: ProgramName
  /** a new copy of where it starts */
  begin(scene: Scene): string
  args(scene: Scene): string[]
  /** @returns what was found wrong, and `state`: what the crash left, in a word */
  check(
    scene: Scene,
    dir: string,
    killed: Pick<Killed, 'status' | 'stdout'>,
  ): Promise<{ wrong: string[]; state: string }>
}

const STICK = 'stick'

export const WORKS: Record<Work['name'], Work> = {
  import: {
    name: 'import',
    program: 'gapferry-mirror',
    begin: (scene) => scene.copy(scene.toImport),
    args: (scene) => ['import', scene.stick],
    check: (scene, dir, killed) =>
      collected(async (expect) => {
        const state = stateOf(dir, await bundlesOf(dir))
        expect('served after the crash', await servedBy(dir, scene), 'old')
        expect('gapferry-mirror verify after the crash', await faultsOf(dir, isAcknowledged(killed)), [])
        if (isAcknowledged(killed)) expect('acknowledged', await bundlesOf(dir), [2, 1])
        succeeded(await mirror(dir, 'import', scene.stick))
        await expectMirror(scene, dir, expect, 'old')
        succeeded(await mirror(dir, 'release'))
        await expectMirror(scene, dir, expect, 'new')
        return state
      }),
  },
  release: {
    name: 'release',
    program: 'gapferry-mirror',
    begin: (scene) => scene.copy(scene.toRelease),
    args: () => ['release'],
    check: (scene, dir, killed) =>
      collected(async (expect) => {
        const served = await servedBy(dir, scene)
        expect('old or new', ['old', 'new'].includes(served) ? 'one of both' : served, 'one of both')
        if (isAcknowledged(killed)) expect('acknowledged', served, 'new')
        expect('gapferry-mirror verify after the crash', (await mirror(dir, 'verify')).status, 0)
        succeeded(await mirror(dir, 'release'))
        await expectMirror(scene, dir, expect, 'new')
        return served
      }),
  },
  pack: {
    name: 'pack',
    program: 'gapferry',
    begin: (scene) => withStick(scene.copy(scene.toPack)),
    args: ({ partSize }) => ['pack', '--to', STICK, '--part-size', partSize],
    check: (scene, dir, killed) =>
      collected(async (expect) => {
        expect('blobs whose bytes are others', wrongBlobs(join(dir, 'store')), [])
        const parts = partsOn(join(dir, STICK))
        const state = `${parts.length} part(s)`
        // A part has its name only when it is whole: 4 says that others are missing.
        if (parts.length > 0) {
          const { status } = await laptop(dir, 'verify', ...parts)
          expect(
            'gapferry verify after the crash',
            isAcknowledged(killed) ? status : status === 0 || status === 4,
            isAcknowledged(killed) ? 0 : true,
          )
        } else expect('acknowledged', isAcknowledged(killed), false)
        const { stdout } = succeeded(await laptop(dir, 'pack', '--to', STICK, '--part-size', scene.partSize, '--json'))
        expect(
          'number',
          (JSON.parse(stdout) as { bundles: { number: number }[] }).bundles.map(({ number }) => number),
          [2],
        )
        await expectStick(dir, expect)
        return state
      }),
  },
  pull: {
    name: 'pull',
    program: 'gapferry',
    begin: (scene) => withStick(scene.copy(scene.toPull)),
    args: () => ['pull'],
    check: (scene, dir, killed) =>
      collected(async (expect) => {
        expect('blobs whose bytes are others', wrongBlobs(join(dir, 'store')), [])
        const state = `${blobsIn(dir) - blobsIn(scene.toPull)} new blob(s)`
        if (!isAcknowledged(killed)) succeeded(await laptop(dir, 'pull'))
        expect('left over', leftovers(dir), [])
        expect('blobs', blobsIn(dir), blobsIn(scene.toPack))
        succeeded(await laptop(dir, 'pack', '--to', STICK))
        await expectStick(dir, expect)
        return state
      }),
  },
}

type Expect = (what: string, found: unknown, wanted: unknown) => void

async function collected(work: (expect: Expect) => Promise<string>): Promise<{ wrong: string[]; state: string }> {
  const wrong: string[] = []
  const expect: Expect = (what, found, wanted) => {
    const [a, b] = [JSON.stringify(found), JSON.stringify(wanted)]
    if (a !== b) wrong.push(`${what}: expected ${b}, found ${a}`)
  }
  try {
    return { state: await work(expect), wrong }
  } catch (error) {
    return { state: 'failed', wrong: [...wrong, String(error)] }
  }
}

/** Nothing is printed before it is done. */
function isAcknowledged({ status, stdout }: Pick<Killed, 'status' | 'stdout'>): boolean {
  return status === 0 || stdout !== ''
}

async function expectMirror(scene: Scene, dir: string, expect: Expect, served: string): Promise<void> {
  expect(`served: ${served}`, await servedBy(dir, scene), served)
  expect('bundles', await bundlesOf(dir), [2, 1])
  const verified = await mirror(dir, 'verify')
  expect('gapferry-mirror verify', verified.status === 0 ? '' : verified.stderr, '')
  expect('gapferry-mirror audit verify', (await mirror(dir, 'audit', 'verify')).status, 0)
  expect('left over', leftovers(dir), [])
}

async function expectStick(dir: string, expect: Expect): Promise<void> {
  const verified = await laptop(dir, 'verify', ...partsOn(join(dir, STICK)))
  expect('gapferry verify', verified.status === 0 ? '' : verified.stderr, '')
  expect('left over', leftovers(dir), [])
}

async function bundlesOf(dir: string): Promise<number[]> {
  const { stdout } = succeeded(await mirror(dir, 'bundles', '--json'))
  return (JSON.parse(stdout) as { bundles: { number: number }[] }).bundles.map(({ number }) => number)
}

/** What `verify` finds. Of a bundle whose first part was imported when the program was ended, the rest has not come. */
async function faultsOf(dir: string, isWhole: boolean): Promise<unknown[]> {
  const { status, stdout } = await mirror(dir, 'verify', '--json')
  const { rotten, incomplete } = JSON.parse(stdout) as { rotten: unknown[]; incomplete: unknown[] }
  const isRight = status === (incomplete.length > 0 ? 4 : 0)
  return [...rotten, ...(isWhole ? incomplete : []), ...(isRight ? [] : [`status ${status}`])]
}

function stateOf(dir: string, bundles: number[]): string {
  return `${bundles.length} bundle(s), ${leftovers(dir).length === 0 ? 'nothing' : 'something'} in staging`
}

function blobsIn(dir: string): number {
  return readdirSync(join(dir, 'store/blobs'), { recursive: true, withFileTypes: true }).filter((one) => one.isFile())
    .length
}

function withStick(dir: string): string {
  mkdirSync(join(dir, STICK))
  return dir
}

const mirror = (dir: string, ...args: string[]) => command('gapferry-mirror', dir, ...args)
const laptop = (dir: string, ...args: string[]) => command('gapferry', dir, ...args)

/** How a command must fail: never by a signal, with a code that is ours and the next command. `done` where it did not. */
export function plainFailure({ status, stderr }: Pick<Killed, 'status' | 'stderr'>): { code: string; wrong: string[] } {
  if (status === 0) return { code: 'done', wrong: [] }
  const code = / \[([A-Z_]+)\]$/m.exec(stderr)?.[1] ?? 'none'
  const isPlain =
    status !== null && status < 128 && code !== 'none' && code !== 'INTERNAL' && /^ {2}next: /m.test(stderr)
  return { code, wrong: isPlain ? [] : [`status ${status}: ${stderr.slice(0, 600)}`] }
}
