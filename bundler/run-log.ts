/**
 * What a run did, event by event: one JSON object per line in `store/log/`, one file for each run, the newest kept. The same
 * events go to standard error where a script asks for them (README.md#events). Nothing in it is a secret: names, sizes,
 * codes and messages as people are shown them.
 */
import { randomUUID } from 'node:crypto'
import { appendFileSync, mkdirSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { exitStatus, isGapferryError, redact } from '../manifests/errors.ts'
import { ENDED_BY_SIGNAL, PrintedError, type Surroundings } from '../manifests/program.ts'
import type { Progress, ProgressStep } from '../manifests/progress.ts'

/** `event`: its kind; the other fields are its own. */
export type RunEvent = { event: string } & Record<string, string | number | null>
export type Tell = (event: RunEvent) => void

const KEPT_RUNS = 20
const MAX_LOG_BYTES = 1_000_000
const PROGRESS_EVERY_MS = 1000

export interface RunLog {
  tell: Tell
  /** tells of each step: how far it is, once a second, and how it ended */
  watch: (progress: Progress) => Progress
  /** @param error  what the run ended with; undefined: it did what was asked for */
  end: (error?: unknown) => void
}

/** @param command  names the run
 *  @param show  the events are wanted on standard error, too */
export function openRunLog(
  storeDir: string,
  command: string,
  around: Pick<Surroundings, 'stderr' | 'nowMs' | 'version' | 'signal'>,
  show: boolean,
): RunLog {
  const write = fileWriter(join(storeDir, 'log'), command, around.nowMs())
  const tell = (event: RunEvent, isKept = true): void => {
    const safe = Object.entries(event).map(([key, value]) => [key, typeof value === 'string' ? redact(value) : value])
    const time = new Date(around.nowMs()).toISOString()
    const line = `${JSON.stringify({ time, ...(Object.fromEntries(safe) as RunEvent) })}\n`
    if (isKept) write(line)
    if (show) around.stderr.write(line)
  }
  tell({ event: 'begin', command, version: around.version })
  const watch = (progress: Progress): Progress => ({
    step: (what, totalBytes) => watchStep(progress.step(what, totalBytes), what, totalBytes ?? null),
  })
  const watchStep = (step: ProgressStep, what: string, totalBytes: number | null): ProgressStep => {
    const startMs = around.nowMs()
    let toldMs = startMs
    let bytes = 0
    let isOpen = true
    return {
      note: (text, share) => step.note(text, share),
      add: (some) => {
        step.add(some)
        bytes += some
        if (around.nowMs() - toldMs < PROGRESS_EVERY_MS) return
        toldMs = around.nowMs()
        tell({ event: 'progress', step: what, bytes, totalBytes }, false)
      },
      end: () => {
        step.end()
        if (isOpen) tell({ event: 'step', step: what, bytes, totalBytes, ms: around.nowMs() - startMs })
        isOpen = false
      },
    }
  }
  const end = (thrown?: unknown): void => {
    const error = thrown instanceof PrintedError ? thrown.cause : thrown
    if (error !== undefined) tell(errorEvent(error))
    const status = around.signal.aborted ? ENDED_BY_SIGNAL : exitStatus(error)
    tell({ event: 'end', status: error === undefined ? 0 : status })
  }
  return { tell, watch, end }
}

/** For a disk that is full or gone: the run matters more than its log. */
function fileWriter(dir: string, command: string, nowMs: number): (line: string) => void {
  const time = new Date(nowMs).toISOString().replace(/[-:]|\.\d+/g, '')
  const file = join(dir, `${time}-${command}-${randomUUID().slice(0, 8)}.jsonl`)
  let bytes = 0
  let isOpen = true
  const append = (line: string): void => {
    try {
      appendFileSync(file, line, { mode: 0o600 })
    } catch {
      isOpen = false
    }
  }
  try {
    mkdirSync(dir, { recursive: true, mode: 0o700 })
    const old = readdirSync(dir).filter((name) => name.endsWith('.jsonl'))
    for (const name of old.sort().slice(0, Math.max(0, old.length - KEPT_RUNS + 1))) rmSync(join(dir, name))
  } catch {
    isOpen = false
  }
  return (line) => {
    if (!isOpen) return
    bytes += line.length
    if (bytes <= MAX_LOG_BYTES) return append(line)
    append('{"event":"cut"}\n')
    isOpen = false
  }
}

function errorEvent(error: unknown): RunEvent {
  if (isGapferryError(error)) return { event: 'error', code: error.code, message: error.message }
  const text = error instanceof Error ? (error.stack ?? error.message) : String(error)
  return { event: 'error', code: 'INTERNAL', message: text }
}
