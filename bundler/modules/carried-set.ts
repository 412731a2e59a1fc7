/**
 * What is carried so far, and why. The first reason stays: so what demands something was always carried before it, and a
 * chain of reasons ends. An edge build stands beside the entry for all other boxes, which has no reason of its own until
 * one of those needs it.
 */
import type { ModuleFeed, ModuleEntry } from '../../manifests/module-feed.ts'
import type { BoxView, Slots } from './box-view.ts'
import type { Offers } from './offers.ts'

export type ModuleReason = 'upgrade' | 'wanted' | 'pinned' | 'dependency' | 'always' | 'kept'

export interface ModuleBecause {
  /** the first box by name that the reason holds for */
  box?: string
  /** version of the module on that box */
  from?: string
  /** rawname of what demands it; the module's own for the entry that its edge build needs beside it */
  by?: string
  /** the demand as the list spells it, or the weakness that an upgrade ends */
  requirement?: string
  /** how many boxes the reason holds for */
  boxes: number
}

export interface ResolvedModule {
  entry: ModuleEntry
  feed: ModuleFeed
  reason: ModuleReason
  because: ModuleBecause
}

/** A reason, where the set counts the boxes. */
export interface Cause extends Omit<ModuleBecause, 'boxes'> {
  reason: ModuleReason
}

interface Carried {
  entry: ModuleEntry
  feed: ModuleFeed
  cause: Cause
  boxes: Set<string>
}

export class CarriedSet {
  readonly #offers: Offers
  readonly #onNew: (rawname: string) => void
  readonly #slots = new Map<string, Slots<Carried>>()

  /** @param onNew  called when a module, or its edge build, comes in */
  constructor(offers: Offers, onNew: (rawname: string) => void) {
    this.#offers = offers
    this.#onNew = onNew
  }

  /** By their names, sorted. */
  rawnames(): string[] {
    return [...this.#slots.keys()].sort()
  }

  slotsOf(rawname: string): Slots | undefined {
    return this.#slots.get(rawname)
  }

  /** Takes in what the box finds of the module; without a box what every box finds.
   *  @throws MODULE_CONFLICT */
  add(rawname: string, view: BoxView | undefined, cause: Cause): void {
    const edge = view?.box.edge === true ? this.#offers.edge(view.box.name, rawname) : undefined
    if (edge === undefined) return this.#put(rawname, 'stable', cause, view)
    this.#put(rawname, 'stable', { reason: 'dependency', by: rawname, requirement: `edge ${edge.version}` }, undefined)
    this.#put(rawname, 'edge', cause, view)
  }

  /** @param boxes  how many the group has */
  resolved(boxes: number): ResolvedModule[] {
    return this.rawnames().flatMap((rawname) => {
      const { stable, edge } = this.#slots.get(rawname)!
      return [stable, ...(edge === undefined ? [] : [edge])].map(({ entry, feed, cause, boxes: some }) => {
        const { reason, ...because } = cause
        const counted = cause.by === rawname ? edge!.boxes : some
        return { entry, feed, reason, because: { ...because, boxes: reason === 'always' ? boxes : counted.size } }
      })
    })
  }

  #put(rawname: string, slot: 'stable' | 'edge', cause: Cause, view: BoxView | undefined): void {
    const slots = this.#slots.get(rawname)
    const known = slots?.[slot]
    const boxes = new Set(view === undefined ? [] : [view.box.name])
    if (known === undefined) {
      const offer = this.#offers.carriedAs(rawname, slot)
      if (offer === undefined) return
      const carried = { ...offer, cause, boxes }
      this.#slots.set(rawname, slots === undefined ? { stable: carried } : { ...slots, [slot]: carried })
      this.#onNew(rawname)
    } else if (known.cause.by === rawname && cause.by !== rawname) Object.assign(known, { cause, boxes })
    else if (known.cause.reason === cause.reason && view !== undefined) known.boxes.add(view.box.name)
  }
}
