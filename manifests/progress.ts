/**
 * What a person sees while a step runs: a bar on a terminal, otherwise one line when the step ends. Never on standard
 * output, which carries results.
 */
import { MultiBar, type SingleBar } from 'cli-progress'
import { formatBytes } from './console.ts'
import { redact } from './errors.ts'
import type { Surroundings } from './program.ts'

const BAR_FORMAT = '{what} [{bar}] {percentage}% {done}{speed}{note}'
const COUNT_FORMAT = '{what} {done}{speed}{note}'
const FILE_FORMAT = '  [{bar}] {percentage}% {note}'
const BAR_CHARACTERS = 20
const FILE_STEPS = 1000
/** A rate is that of about the last ten seconds. */
const RATE_EVERY_MS = 1000
const RATE_WEIGHT = 0.2

export interface Progress {
  /** Begins a step. @param totalBytes  where it is known, else only what was done is shown */
  step(what: string, totalBytes?: number): ProgressStep
}

export interface ProgressStep {
  /** @param bytes  done since the last call; negative for bytes that were done in vain */
  add(bytes: number): void
  /** Says what is being worked on; shown on a terminal. '': nothing
   *  @param share  how much of it is done, 0 to 1: then it has a bar of its own below that of the step */
  note(text: string, share?: number): void
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
    note: () => {},
    end: () => {
      if (!isOpen) return
      isOpen = false
      const seconds = ((nowMs() - startMs) / 1000).toFixed(1)
      stderr.write(`${what}: ${describe(doneBytes, totalBytes)} in ${seconds} s\n`)
    },
  }
}

function barStep(what: string, totalBytes: number | undefined, { stderr, nowMs }: Shown): ProgressStep {
  const bars = new MultiBar({
    stream: stderr,
    format: totalBytes === undefined ? COUNT_FORMAT : BAR_FORMAT,
    barsize: BAR_CHARACTERS,
    hideCursor: true,
  })
  let doneBytes = 0
  let note = ''
  let isOpen = true
  const rateOf = makeRate(nowMs)
  const bar = bars.create(totalBytes ?? 0, 0, { what, done: describe(0, totalBytes), speed: '', note })
  bars.update()
  let file: SingleBar | undefined
  const update = (): void => {
    const speed = speedText(rateOf(doneBytes), totalBytes === undefined ? undefined : totalBytes - doneBytes)
    bar.update(doneBytes, { done: describe(doneBytes, totalBytes), speed, note })
  }
  const showFile = (text: string, share: number): void => {
    const payload = { note: text }
    const isNew = file === undefined
    file ??= bars.create(FILE_STEPS, 0, payload, { format: FILE_FORMAT })
    file.update(Math.round(Math.min(1, Math.max(0, share)) * FILE_STEPS), payload)
    if (isNew) bars.update()
  }
  const hideFile = (): void => {
    if (file !== undefined) bars.remove(file)
    file = undefined
  }
  return {
    add: (bytes) => {
      doneBytes += bytes
      update()
    },
    note: (text, share) => {
      if (!isOpen) return
      const shown = redact(text)
      if (share === undefined || text === '') hideFile()
      else showFile(shown, share)
      note = share !== undefined || text === '' ? '' : `  ${shown}`
      update()
    },
    end: () => {
      if (!isOpen) return
      isOpen = false
      hideFile()
      bars.stop()
    },
  }
}

/** @returns told of what was done in all: bytes per second, undefined in the first second */
function makeRate(nowMs: () => number): (doneBytes: number) => number | undefined {
  let last = { ms: nowMs(), bytes: 0 }
  let rate: number | undefined
  return (bytes) => {
    const ms = nowMs()
    if (ms - last.ms < RATE_EVERY_MS) return rate
    const now = Math.max(0, ((bytes - last.bytes) * 1000) / (ms - last.ms))
    rate = rate === undefined ? now : rate + (now - rate) * RATE_WEIGHT
    last = { ms, bytes }
    return rate
  }
}

function speedText(rate: number | undefined, leftBytes: number | undefined): string {
  if (rate === undefined) return ''
  const speed = `, ${formatBytes(rate)}/s`
  if (leftBytes === undefined || rate < 1 || leftBytes <= 0) return speed
  return `${speed}, ${formatSeconds(leftBytes / rate)} left`
}

function formatSeconds(seconds: number): string {
  const whole = Math.ceil(seconds)
  if (whole < 60) return `${whole} s`
  const minutes = Math.floor(whole / 60)
  return minutes < 60 ? `${minutes} min ${whole % 60} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`
}

function describe(doneBytes: number, totalBytes: number | undefined): string {
  if (totalBytes === undefined) return formatBytes(doneBytes)
  return `${formatBytes(doneBytes)} of ${formatBytes(totalBytes)}`
}
