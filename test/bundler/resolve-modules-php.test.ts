import t, { type Test } from 'tap'
import { parseModuleFeed, writeModuleList, type ModuleFeed } from '../../manifests/module-feed.ts'
import { randomFrom } from '../bench/random.ts'
import { makeTgz, moduleXml } from '../helpers/module-archive.ts'
import { moduleWorld, type ModuleWorld } from '../helpers/module-random.ts'
import { WalkingBox, type Held } from '../helpers/module-walk.ts'
import { feedOf, resolve, type ModuleSpec } from '../helpers/module-world.ts'
import { makeBox, type BoxRun, type HeldModule, type PhpBox } from '../helpers/php-box.ts'
import { startUpstream } from '../helpers/upstream.ts'

const WORLDS = 12

/** A vendor that has no more than a text for a list, and any archive that it names. */
interface Shelf {
  url: string
  put(list: ModuleFeed, specs: readonly ModuleSpec[]): void
}

t.test('in random worlds a box in PHP does with what is carried what it does with the whole list', async (t) => {
  const shelf = await openShelf(t)
  let fetched = 0
  for (let seed = 1000; seed < 1000 + WORLDS; seed++) {
    const world = moduleWorld(randomFrom(seed), false)
    const list = feedOf(world.list)
    const resolved = resolve({ ...world, list, boxes: world.boxes.map(({ box }) => box) })
    const cut = parseModuleFeed(writeModuleList(list, resolved.carried), 'cut', 16)
    for (const each of world.boxes) {
      const name = `world ${seed}, ${each.box.name}`
      const told = resolved.boxes.find((one) => one.name === each.box.name)!
      const box = await makeBox(t, { major: 16, edge: each.box.edge, modules: modulesOf(each.held) })
      box.use(shelf.url)
      shelf.put(cut, world.list)
      const offline = box.clone()
      const run = await offline.run('upgradeall')
      fetched += Object.keys(run.fetched).length
      const expected = told.upgrades.map(({ rawname, to }) => [rawname, to])
      t.strictSame(
        run.upgraded.map(({ rawname, to }) => [rawname, to]),
        expected,
        `${name}: as foretold`,
      )
      const walked = new WalkingBox(each.held, cut, each.box.edge)
      walked.upgradeAll()
      t.strictSame(stateOf(offline), heldState(walked.held), `${name}: as the walk of the other tests`)
      if (told.unresolved.length > 0 || told.unknown.length > 0) continue
      shelf.put(feedOf(world.restricted), world.list)
      const online = box.clone()
      const whole = await online.run('upgradeall')
      t.strictSame(summary(run), summary(whole), `${name}: the same as online`)
      t.strictSame(offline.files(), online.files(), `${name}: the same files`)
    }
  }
  t.ok(fetched > WORLDS, `${fetched} downloads`)
})

async function openShelf(t: Test): Promise<Shelf> {
  let text = ''
  const archives = new Map<string, Buffer>()
  const { url } = await startUpstream(t, ({ path }) => {
    return path.startsWith('/all-') ? Buffer.from(text) : archives.get(path)
  })
  return {
    url,
    put: (list, specs) => {
      text = list.text
      archives.clear()
      for (const { rawname, version, location, depends } of specs) {
        archives.set(
          `/modules/${location}`,
          makeTgz({ [`${rawname}/module.xml`]: moduleXml({ rawname, version, depends }) }),
        )
      }
    },
  }
}

function modulesOf(held: ModuleWorld['boxes'][number]['held']): Record<string, HeldModule> {
  const rows = [...held].map(([rawname, one]): [string, HeldModule] => {
    const state =
      one.file === undefined ? 'broken' : one.db === undefined ? 'not-installed' : one.isOn ? undefined : 'disabled'
    return [
      rawname,
      {
        version: one.file ?? one.db!,
        depends: { module: [...one.depends] },
        ...(one.db === undefined ? {} : { installed: one.db }),
        ...(state === undefined ? {} : { state }),
      },
    ]
  })
  return Object.fromEntries(rows)
}

/** rawname → version in the database, switched on or off, version of the files */
function stateOf(box: PhpBox): Record<string, unknown[]> {
  return Object.fromEntries(box.held().map(({ rawname, db, isOn, file }) => [rawname, [db, isOn, file]]))
}

function heldState(held: ReadonlyMap<string, Held>): Record<string, unknown[]> {
  const rows = [...held].sort(([a], [b]) => (a < b ? -1 : 1))
  return Object.fromEntries(
    rows.map(([rawname, { db, isOn, file }]) => [rawname, [db, db !== undefined && isOn, file]]),
  )
}

function summary({ status, upgraded, fetched, pending, installed }: BoxRun): Record<string, unknown> {
  return { status, upgraded, fetched, pending, installed }
}
