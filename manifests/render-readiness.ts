/** How a box's judgement is shown to a person, by both programs. */
import { formatTable } from './console.ts'
import type { FeatureRow } from './features.ts'
import { countReadiness, type ReadinessRow } from './readiness.ts'

/** Each fact, what to do about those that are not ready, and the features.
 *  @param width  of the terminal, where there is one */
export function renderReadiness(
  rows: readonly ReadinessRow[],
  features: readonly FeatureRow[],
  width: number | undefined,
): string {
  const table = (cells: string[][]): string => formatTable(cells, { indent: '  ', width })
  const remedies = rows.flatMap((one) => (one.remedy === undefined ? [] : [[one.fact, one.remedy]]))
  return [
    `ready to live without the internet? ${countReadiness(rows).ready} of ${rows.length}`,
    table(rows.map((one) => [one.state, one.fact, one.why])),
    ...(remedies.length === 0 ? [] : ['what to do', table(remedies)]),
    ...(features.length === 0
      ? []
      : ['what works there', table(features.map(({ state, feature, why }) => [state, feature, why]))]),
  ].join('\n')
}
