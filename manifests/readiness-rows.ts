/** What a judgement of a box consists of, and what it goes by. */
import type { Sha256 } from './digest.ts'
import { words } from './inside.ts'
import type { Pending } from './pending.ts'

export interface ReadinessRow {
  fact: string
  state: 'ready' | 'not' | 'unknown'
  why: string
  /** what to do on the box or about it; undefined where it is ready */
  remedy?: string
}

/** What is known where a box is judged. */
export interface Surrounding {
  /** under which the box's group reaches the mirror; undefined where nothing says it */
  origin: string | undefined
  nowMs: number
  /** what is served for the box and newer than what it has; undefined where that is not known */
  pending?: Pending | undefined
  /** of the site's key for packages, as it is served; undefined where that is not known */
  siteKey?: Sha256 | undefined
}

export function ready(fact: string, why: string): ReadinessRow {
  return { fact, state: 'ready', why }
}

export function not(fact: string, why: string, remedy: string): ReadinessRow {
  return { fact, state: 'not', why, remedy }
}

export function unknown(fact: string, why: string, remedy: string): ReadinessRow {
  return { fact, state: 'unknown', why, remedy }
}

/** Of a gapferry-box that did not look for all of it yet. */
export function isOlder(facts: Map<string, string>): boolean {
  return Number(facts.get('readiness') ?? 1) < 2
}

/** `a=b c=d` */
export function pairs(text: string | undefined): Map<string, string> {
  return new Map(
    words(text).map((word) => [word.slice(0, word.lastIndexOf('=')), word.slice(word.lastIndexOf('=') + 1)]),
  )
}
