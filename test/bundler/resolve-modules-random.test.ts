import t from 'tap'
import { isMet, missingModules, parseModuleDemand } from '../../manifests/module-depends.ts'
import { parseModuleFeed, writeModuleList, type ModuleEntry, type ModuleFeed } from '../../manifests/module-feed.ts'
import type { ResolvedModules } from '../../bundler/resolve-modules.ts'
import { randomFrom } from '../bench/random.ts'
import { moduleWorld, type ModuleWorld } from '../helpers/module-random.ts'
import { WalkingBox } from '../helpers/module-walk.ts'
import { feedOf, resolve } from '../helpers/module-world.ts'

const WORLDS = 250
const ROUNDS = 8

interface Case {
  /** names the case in messages: seed and box */
  name: string
  world: ModuleWorld
  resolved: ResolvedModules
  each: ModuleWorld['boxes'][number]
  told: ResolvedModules['boxes'][number]
  /** what the policy leaves of the vendor's list, and what is carried of it */
  full: ModuleFeed
  cut: ModuleFeed
}

function casesOf(isLooped: boolean): Case[] {
  return Array.from({ length: WORLDS }).flatMap((_, seed) => {
    const world = moduleWorld(randomFrom(seed), isLooped)
    const list = feedOf(world.list)
    const resolved = resolve({ ...world, list, boxes: world.boxes.map(({ box }) => box) })
    const cut = parseModuleFeed(writeModuleList(list, resolved.carried), 'cut')
    const full = feedOf(world.restricted)
    return world.boxes.map((each) => {
      const told = resolved.boxes.find(({ name }) => name === each.box.name)!
      return { name: `world ${seed}, ${each.box.name}`, world, resolved, each, told, full, cut }
    })
  })
}

/** A box that does what `work` says until nothing changes. */
function walk({ each }: Case, feed: ModuleFeed, work: (box: WalkingBox) => void): WalkingBox {
  const box = new WalkingBox(each.held, feed, each.box.edge)
  let before = ''
  for (let i = 0; i < ROUNDS && before !== stateOf(box); i++) {
    before = stateOf(box)
    work(box)
  }
  return box
}

function stateOf(box: WalkingBox): string {
  return JSON.stringify([...box.held].sort(([a], [b]) => (a < b ? -1 : 1)))
}

function upgradeAndWant({ world }: Case): (box: WalkingBox) => void {
  const wanted = Object.keys(world.policy).filter((rawname) => world.policy[rawname] === 'want')
  return (box) => {
    box.upgradeAll()
    for (const rawname of wanted) if (box.status(rawname) !== 'enabled') box.fetchAndInstall(rawname)
  }
}

/** A demand that nothing fulfils sends a box through its own modules and to the list for what it has already, in vain at
 *  the upstream, too. */
function isWhole({ told }: Case): boolean {
  return told.unresolved.length === 0 && told.unknown.length === 0
}

/** What a box finds of a list. */
function seenIn(feed: ModuleFeed, takesEdge: boolean): ModuleEntry[] {
  return [...new WalkingBox(new Map(), feed, takesEdge).online.values()]
}

const straight = casesOf(false)
const looped = casesOf(true)

t.test('a box gets from what is carried all that it would get from the whole list', (t) => {
  const whole = straight.filter(isWhole)
  const wrong = whole.find((one) => {
    const work = upgradeAndWant(one)
    return stateOf(walk(one, one.full, work)) !== stateOf(walk(one, one.cut, work))
  })
  t.equal(wrong?.name, undefined)
  t.ok(whole.length > WORLDS / 2, `${whole.length} boxes`)
  t.end()
})

t.test('upgrades are foretold, and what stays pending has a told cause', (t) => {
  const wrong = [...straight, ...looped].find(({ each, cut, told }) => {
    const first = new WalkingBox(each.held, cut, each.box.edge).showUpgrades()
    return String(first) !== String(told.upgrades.map(({ rawname }) => rawname))
  })
  t.equal(wrong?.name, undefined)
  const pending = straight.filter((one) => walk(one, one.cut, (box) => box.upgradeAll()).showUpgrades().length > 0)
  const untold = pending.find(
    ({ told }) => told.unknown.length === 0 && told.unresolved.every(({ isWeekly }) => isWeekly),
  )
  t.equal(untold?.name, undefined)
  t.ok(pending.length > 0 && pending.length < straight.length, `${pending.length} boxes of ${straight.length}`)
  t.end()
})

t.test('the weekly installall of a box asks for nothing that the list should have', (t) => {
  const wrong = straight.filter(isWhole).find((one) => {
    const { missed } = walk(one, one.cut, (box) => box.installAll())
    return seenIn(one.full, false).some(({ rawname }) => missed.has(rawname))
  })
  t.equal(wrong?.name, undefined)
  t.end()
})

t.test('what a box lacks for what is listed is told, and could not have been carried', (t) => {
  let lacking = 0
  const wrong = [...straight, ...looped].find(({ each, told, full, cut }) => {
    const offered = new Map(seenIn(full, each.box.edge).map(({ rawname, version }) => [rawname, version]))
    const installed = new Map(each.box.modules.map((one) => [one.name, one]))
    const missing = missingModules(seenIn(cut, each.box.edge), installed)
    lacking += missing.length
    return missing.some(({ by, requirement, rawname, found }) => {
      const version = offered.get(rawname)
      const isFit = version !== undefined && isMet(version, parseModuleDemand(requirement)!.version)
      const isTold =
        told.unresolved.some((one) => one.by === by && one.requirement === requirement) ||
        told.unknown.some((one) => one.by.includes(by) && one.requirement === requirement)
      return !isTold || (isFit && found === undefined)
    })
  })
  t.equal(wrong?.name, undefined)
  t.ok(lacking > 0)
  t.end()
})

t.test('nothing is carried that nobody fetches, wants, keeps or always has', (t) => {
  let checked = 0
  let wrong: string | undefined
  for (const cases of Map.groupBy(straight, ({ resolved }) => resolved).values()) {
    if (!cases.every(isWhole)) continue
    const boxes = cases.flatMap((one) => [
      walk(one, one.cut, (box) => box.installAll()),
      walk(one, one.cut, upgradeAndWant(one)),
    ])
    for (const { entry, reason, because } of cases[0]!.resolved.carried) {
      const isNeeded = reason === 'upgrade' || (reason === 'dependency' && because.by !== entry.rawname)
      const name = `${entry.rawname} ${entry.version}`
      if (isNeeded && !boxes.some(({ fetched }) => fetched.has(name))) wrong ??= `${cases[0]!.name}: ${name}`
      checked++
    }
  }
  t.equal(wrong, undefined)
  t.ok(checked > WORLDS, `${checked} modules`)
  t.end()
})
