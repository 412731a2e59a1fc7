/**
 * What the lists of a group offer, as the policy leaves it. A list is personal to its boxes: what a box would get at the
 * upstream is read from its own list (`own`), what all boxes of the group get is one entry for all (`carriedAs`).
 * A box that takes edge builds takes that of a module where it is newer than the one in the list, and never one of a
 * module that is not in the list: so such an entry needs the module's own beside it (rule: getonlinexml of framework).
 */
import { shortList } from '../../manifests/console.ts'
import { GapferryError } from '../../manifests/errors.ts'
import type { ModuleEntry, ModuleFeed } from '../../manifests/module-feed.ts'
import { compareModuleVersions } from '../../manifests/module-version.ts'
import type { Policy } from './policy.ts'

/** One answer of the upstream and the boxes that it is for. */
export interface OfferedList {
  boxes: readonly string[]
  feed: ModuleFeed
}

export interface Offer {
  entry: ModuleEntry
  feed: ModuleFeed
}

export class Offers {
  /** the list of the first box by name first */
  readonly #lists: PersonalList[]
  readonly #listOf = new Map<string, PersonalList>()

  /** @param takesEdge  whether every box takes edge builds: then they stand in the list as the module's own */
  constructor(lists: readonly OfferedList[], policy: ReadonlyMap<string, Policy>, takesEdge: boolean) {
    this.#lists = lists
      .map((list) => new PersonalList(list, policy, takesEdge))
      .sort((a, b) => (a.first < b.first ? -1 : 1))
    for (const list of this.#lists) for (const name of list.boxes) this.#listOf.set(name, list)
  }

  /** Entries of a module in all lists and sections, blocked or not. */
  entriesOf(rawname: string): readonly ModuleEntry[] {
    return this.#lists.flatMap((list) => list.entries.get(rawname) ?? [])
  }

  /** Every module in a list. */
  rawnames(): Set<string> {
    return new Set(this.#lists.flatMap((list) => [...list.entries.keys()]))
  }

  /** Why the entry of a module was left out of the lists, where one was. */
  problemOf(rawname: string): string | undefined {
    const start = `module "${rawname}": `
    const problem = this.#lists.flatMap(({ feed }) => feed.problems).find((text) => text.startsWith(start))
    return problem?.slice(start.length)
  }

  listOf(box: string): ModuleFeed | undefined {
    return this.#personal(box)?.feed
  }

  /** What the box's own list gives it of a module. */
  own(box: string, rawname: string, isEdge: boolean): ModuleEntry | undefined {
    const list = this.#personal(box)
    return (isEdge ? list?.edge.get(rawname) : undefined) ?? list?.stable.get(rawname)
  }

  /** What its own list has besides for a box that takes edge builds. */
  edge(box: string, rawname: string): ModuleEntry | undefined {
    return this.#personal(box)?.edge.get(rawname)
  }

  /** The one entry of a module that is carried for all boxes.
   *  @throws MODULE_CONFLICT where lists differ in its version or its file */
  carriedAs(rawname: string, slot: 'stable' | 'edge'): Offer | undefined {
    let first: { list: PersonalList; entry: ModuleEntry } | undefined
    for (const list of this.#lists) {
      const entry = list[slot].get(rawname)
      if (entry === undefined) continue
      if (first === undefined) first = { list, entry }
      else if (!isSameFile(first.entry, entry)) throw conflict(rawname, first, { list, entry })
    }
    return first && { entry: first.entry, feed: first.list.feed }
  }

  /** What the box's own list says of a version that the box has already. */
  versionOf(box: string, rawname: string, version: string): ModuleEntry | undefined {
    const entries = this.#personal(box)?.entries.get(rawname)
    return entries?.find((one) => compareModuleVersions(one.version, version) === 0)
  }

  #personal(box: string): PersonalList | undefined {
    return this.#listOf.get(box) ?? this.#lists[0]
  }
}

class PersonalList {
  readonly boxes: readonly string[]
  readonly feed: ModuleFeed
  readonly entries: Map<string, ModuleEntry[]>
  /** rawname → what every box finds */
  readonly stable = new Map<string, ModuleEntry>()
  /** rawname → what a box finds that takes edge builds, where that is newer */
  readonly edge = new Map<string, ModuleEntry>()

  constructor({ boxes, feed }: OfferedList, policy: ReadonlyMap<string, Policy>, takesEdge: boolean) {
    this.boxes = [...boxes].sort()
    this.feed = feed
    this.entries = Map.groupBy(feed.entries, ({ rawname }) => rawname)
    for (const entry of feed.entries) this.#add(entry, policy.get(entry.rawname))
    for (const [rawname, entry] of this.edge) {
      const stable = this.stable.get(rawname)
      const isNewer = stable !== undefined && compareModuleVersions(stable.version, entry.version) < 0
      if (!isNewer || takesEdge) this.edge.delete(rawname)
      if (isNewer && takesEdge) this.stable.set(rawname, entry)
    }
  }

  /** The first of its boxes; a list of none comes last. */
  get first(): string {
    return this.boxes[0] ?? '\uffff'
  }

  #add(entry: ModuleEntry, rule: Policy | undefined): void {
    const { rawname, section, version } = entry
    if (rule?.kind === 'block') return
    if (rule?.kind === 'pin') {
      // several sections may have it, and mean the same
      const isPinned = compareModuleVersions(version, rule.version) === 0 && !this.stable.has(rawname)
      if (isPinned) this.stable.set(rawname, entry)
    } else if (section === 'module') this.stable.set(rawname, entry)
    else if (section === 'edge') this.edge.set(rawname, entry)
  }
}

/** One path is one file, and the digest tells two builds apart that an upstream gives out by who asks. */
function isSameFile(a: ModuleEntry, b: ModuleEntry): boolean {
  return (
    a.version === b.version &&
    a.location === b.location &&
    (['signedSha1', 'sha1', 'md5'] as const).every((digest) => (a[digest] ?? b[digest]) === (b[digest] ?? a[digest]))
  )
}

function conflict(rawname: string, ...[a, b]: readonly { list: PersonalList; entry: ModuleEntry }[]): GapferryError {
  const told = [a!, b!].map(({ list, entry }) => {
    const digest = entry.signedSha1 ?? entry.sha1 ?? entry.md5
    return `${list.boxes.length === 0 ? 'the captured request' : boxesText(list.boxes)}: ${entry.version} at ${entry.location}${digest === undefined ? '' : ` (${digest})`}`
  })
  return new GapferryError(
    'MODULE_CONFLICT',
    `${rawname} is not the same for all boxes of the group; ${told.join('; ')}`,
    {
      hint: 'put these boxes into two groups: one origin lists a module once',
    },
  )
}

const SHOWN_BOXES = 3

/** The first few of many boxes. */
export function boxesText(names: readonly string[]): string {
  return shortList(names, SHOWN_BOXES)
}
