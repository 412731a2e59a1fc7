/** A dozen sites on one laptop: each is worked on by itself, and one that fails blocks no other. */
import { GapferryError, isGapferryError, type ErrorCode } from '../manifests/errors.ts'

export interface SiteFailure {
  site: string
  error: GapferryError
}

/** What is wrong with the laptop, the link or the stick: no other site would fare better. */
const OF_ALL: ErrorCode[] = ['SPACE_SHORT', 'BUDGET_EXCEEDED', 'MEDIUM_UNUSABLE', 'STORE_BUSY', 'STORE_UNREADABLE']

/** Works on one site after the other. After a failure that every site would meet, the others are not tried and fail with it.
 *  @throws the failure where there is one site alone; what is no GapferryError; the signal's reason */
export async function eachSite<T>(
  sites: readonly string[],
  signal: AbortSignal,
  work: (site: string) => Promise<T>,
): Promise<{ done: T[]; failures: SiteFailure[] }> {
  const done: T[] = []
  const failures: SiteFailure[] = []
  let last: GapferryError | undefined
  for (const site of sites) {
    if (last !== undefined) {
      failures.push({ site, error: last })
      continue
    }
    try {
      done.push(await work(site))
    } catch (error) {
      signal.throwIfAborted()
      if (!isGapferryError(error) || sites.length === 1) throw error
      failures.push({ site, error })
      if (OF_ALL.includes(error.code)) last = error
    }
  }
  return { done, failures }
}

/** One error for all, with code and hint of the first. @param count  of the sites that were worked on */
export function failureOfSites(failures: readonly SiteFailure[], count: number): GapferryError | undefined {
  const [first] = failures
  if (first === undefined) return undefined
  const told = [...Map.groupBy(failures, ({ error }) => error)].map(([error, same]) => {
    return `${same.map(({ site }) => site).join(', ')}: ${error.message} [${error.code}]`
  })
  const rest = failures.length < count ? '; the others are done' : ''
  return new GapferryError(first.error.code, `${failures.length} of ${count} sites failed: ${told.join('; ')}${rest}`, {
    cause: first.error,
    ...(first.error.hint === undefined ? {} : { hint: first.error.hint }),
  })
}

/** For `--json`. */
export function failureRows(failures: readonly SiteFailure[]): { site: string; code: string; message: string }[] {
  return failures.map(({ site, error: { code, message } }) => ({ site, code, message }))
}
