/**
 * When an upstream is asked again. While a file gets on, at once and at the same address; otherwise the addresses take
 * turns, with pauses that double and end. Nothing is tried for ever, whatever a server does.
 */
import { GapferryError } from '../manifests/errors.ts'
import { FetchFailure, publicUrl, withoutForm } from './fetch-failure.ts'
import type { RemoteFile } from './remote-file.ts'

export interface RetryRules {
  /** pauses without progress before a file is given up */
  retries: number
  /** no pause is longer; a server that asks for more is not waited for */
  maxWaitMs: number
  /** 0 to 1 */
  random: () => number
  /** @throws the signal's reason */
  wait: (ms: number, signal: AbortSignal) => Promise<void>
  /** whether this failure at this address may pass */
  isPassing: (failure: FetchFailure, url: string) => boolean
}

export interface Attempts<R> {
  /** @throws FetchFailure for what another attempt may mend */
  attempt: (url: string) => Promise<R>
  /** what is here of the file */
  heldBytes: () => number
  /** less than this more than ever before is no progress */
  progressBytes: (failure: FetchFailure) => number
}

const FIRST_WAIT_MS = 50

/** Lists and files change under us: one address of those that sent other bytes than declared is asked once more.
 *  @throws one error for all addresses, with the code and the hint of the last failure; what an attempt throws otherwise */
export async function firstThatGives<R>(
  file: RemoteFile,
  signal: AbortSignal,
  rules: RetryRules,
  attempts: Attempts<R>,
): Promise<R> {
  const failures = new Map<string, FetchFailure>()
  const state: State = { failures, tries: 0, mostBytes: attempts.heldBytes() }
  let mayHeal = true
  let urls = [...new Set(file.urls)]
  for (let waits = 0; urls.length > 0; waits++) {
    const round = await tryAll(urls, signal, { ...attempts, isPassing: rules.isPassing }, state)
    if ('result' in round) return round.result
    const other = urls.find((url) => mayHeal && failures.get(url)?.code === 'FETCH_DIGEST_MISMATCH')
    if (other !== undefined) mayHeal = false
    urls = urls.filter((url) => url === other || isWorthWaiting(failures.get(url)!, url, rules))
    if (round.hasProgress) waits = 0
    if (urls.length === 0 || waits >= rules.retries) break
    await rules.wait(waitMs(waits, urls, failures, rules), signal)
    signal.throwIfAborted()
  }
  throw failed(file, failures, state.tries)
}

interface State {
  failures: Map<string, FetchFailure>
  tries: number
  /** the most that was ever here: a server that begins anew each time makes no progress */
  mostBytes: number
}

async function tryAll<R>(
  urls: string[],
  signal: AbortSignal,
  { attempt, heldBytes, progressBytes, isPassing }: Attempts<R> & Pick<RetryRules, 'isPassing'>,
  state: State,
): Promise<{ result: R } | { hasProgress: boolean }> {
  let hasProgress = false
  for (const url of urls) {
    for (let isGettingOn = true; isGettingOn;) {
      signal.throwIfAborted()
      state.tries++
      try {
        return { result: await attempt(url) }
      } catch (error) {
        if (!(error instanceof FetchFailure)) throw error
        state.failures.delete(url)
        state.failures.set(url, error)
        isGettingOn = isPassing(error, url) && heldBytes() - state.mostBytes >= progressBytes(error)
        state.mostBytes = Math.max(state.mostBytes, heldBytes())
        hasProgress ||= isGettingOn
      }
    }
  }
  return { hasProgress }
}

function isWorthWaiting(failure: FetchFailure, url: string, { maxWaitMs, isPassing }: RetryRules): boolean {
  return isPassing(failure, url) && (failure.retryAfterMs ?? 0) <= maxWaitMs
}

/** Where every address asks for patience, the shortest that one asks for. */
function waitMs(waits: number, urls: string[], failures: Map<string, FetchFailure>, rules: RetryRules): number {
  const doubled = Math.min(FIRST_WAIT_MS * 2 ** waits, rules.maxWaitMs)
  const jittered = doubled * (0.5 + rules.random() / 2)
  return Math.max(jittered, Math.min(...urls.map((url) => failures.get(url)?.retryAfterMs ?? 0)))
}

function failed(file: RemoteFile, failures: Map<string, FetchFailure>, tries: number): GapferryError {
  const told = [...failures].map(([url, failure]) => `${publicUrl(url)}: ${failure.message}${laterOf(failure)}`)
  const last = [...failures.values()].at(-1)
  if (last === undefined) return new GapferryError('FETCH_FAILED', `${file.what}: no address to fetch it from`)
  const which = told.length === 1 ? '' : `none of ${told.length} addresses gave it: `
  const often = tries > told.length ? ` (tried ${tries} times)` : ''
  const shown = (text: string): string => (file.form === undefined ? text : withoutForm(text, file.form))
  return new GapferryError(last.code, shown(`${file.what}: ${which}${told.join('; ')}${often}`), {
    ...(file.form === undefined ? { cause: last } : {}),
    ...(last.hint === undefined ? {} : { hint: shown(last.hint) }),
  })
}

function laterOf({ retryAfterMs }: FetchFailure): string {
  return retryAfterMs === undefined ? '' : `, asks to be left alone for ${Math.ceil(retryAfterMs / 1000)} s`
}
