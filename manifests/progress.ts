/**
 * What a person sees while a step runs: a bar on a terminal, otherwise one line when the step ends. Never on standard
 * output, which carries results.
 */
import { SingleBar } from 'cli-progress'
import { formatBytes } from './console.ts'
import { redact } from './errors.ts'
import type { Surroundings } from './program.ts'

const BAR_FORMAT = '{what} [{bar}] {percentage}% {done}, {eta_formatted} left'
const COUNT_FORMAT = '{what} {done}'
const BAR_CHARACTERS = 30

export interface Progress {
  /** Begins a step. @param totalBytes  where it is known, else only what was done is shown */
  step(what: string, totalBytes?: number): ProgressStep
}

export interface ProgressStep {
  /** @param bytes  done since the last call; negative for bytes that were done in vain */
  add(bytes: number): void
  /** Ends the step, also one that failed: shows how far it came. More calls do nothing. */
  end(): void
}

/** @param around  `stderr`: where it is shown; on a terminal as a bar, elsewhere as one line per step */
export function makeProgress(around: Shown): Progress {
  return {
    step: (what, totalBytes) => (around.stderr.isTTY === true ? barStep : lineStep)(redact(what), totalBytes, around),
  }
}

type Shown = Pick<Surroundings, 'stderr' | 'nowMs'>

function lineStep(what: string, totalBytes: number | undefined, { stderr, nowMs }: Shown): ProgressStep {
  const startMs = nowMs()
  let doneBytes = 0
  let isOpen = true
  return {
    add: (bytes) => void (doneBytes += bytes),
    end: () => {
      if (!isOpen) return
      isOpen = false
      const seconds = ((nowMs() - startMs) / 1000).toFixed(1)
      stderr.write(`${what}: ${describe(doneBytes, totalBytes)} in ${seconds} s\n`)
    },
  }
}

function barStep(what: string, totalBytes: number | undefined, { stderr }: Shown): ProgressStep {
  const bar = new SingleBar({
    stream: stderr,
    format: totalBytes === undefined ? COUNT_FORMAT : BAR_FORMAT,
    barsize: BAR_CHARACTERS,
    hideCursor: true,
    etaBuffer: 100,
  })
  let doneBytes = 0
  bar.start(totalBytes ?? 0, 0, { what, done: describe(0, totalBytes) })
  return {
    add: (bytes) => {
      doneBytes += bytes
      bar.update(doneBytes, { done: describe(doneBytes, totalBytes) })
    },
    end: () => bar.stop(),
  }
}

function describe(doneBytes: number, totalBytes: number | undefined): string {
  if (totalBytes === undefined) return formatBytes(doneBytes)
  return `${formatBytes(doneBytes)} of ${formatBytes(totalBytes)}`
}
