/**
 * `gapferry-mirror serve`: the mirror, until it is told to end.
 */
import { once } from 'node:events'
import type { DestinationStream } from 'pino'
import { pino } from 'pino'
import { redact } from '../manifests/errors.ts'
import { buildMirror } from './app.ts'
import type { MirrorConfig } from './config.ts'
import { clockFloor, type MirrorStore } from './store.ts'

export interface ServedUrls {
  admin: string
  origins: readonly { group: string; url: string }[]
}

/** @param args.around  logs go to `stderr`; ends when `signal` is aborted
 *  @param args.onUp    told once every listener is open
 *  @throws LISTEN_FAILED; nothing is left open then */
export async function serve(args: {
  store: MirrorStore
  config: MirrorConfig
  around: { stderr: DestinationStream & { isTTY?: boolean }; nowMs: () => number; signal: AbortSignal }
  onUp: (urls: ServedUrls) => void
}): Promise<void> {
  const { store, config, around, onUp } = args
  const log = pino({ base: null, timestamp: pino.stdTimeFunctions.isoTime }, logTo(around.stderr))
  const floorMs = clockFloor(store.catalog)
  const mirror = buildMirror({
    config,
    releases: store.releases,
    blobs: store.blobs,
    status: (number) => ({
      site: store.site,
      createdAtMs: number === null ? null : (store.catalog.bundle(number)?.createdAtMs ?? null),
      store: { path: store.dir },
    }),
    clock: () => Math.max(around.nowMs(), floorMs),
    log,
  })
  await mirror.listen()
  try {
    onUp({ admin: mirror.adminUrl, origins: mirror.origins })
    if (!around.signal.aborted) await once(around.signal, 'abort')
  } finally {
    await mirror.close()
  }
  log.info('ended')
}

/** JSON lines for a log collector; on a terminal the same as a person reads it: time, what, about what. */
function logTo(stderr: DestinationStream & { isTTY?: boolean }): DestinationStream {
  if (stderr.isTTY !== true) return stderr
  return {
    write: (line) => {
      const { level, time, msg, ...about } = JSON.parse(line) as { level: number; time: string; msg: string }
      const facts = Object.entries(about).map(
        ([name, value]) => `${name}=${typeof value === 'string' ? value : JSON.stringify(value)}`,
      )
      const weight =
        level >= pino.levels.values['error']! ? 'ERROR ' : level >= pino.levels.values['warn']! ? 'warning: ' : ''
      stderr.write(`${redact([time.slice(11, 19), `${weight}${msg}`, ...facts].join('  '))}\n`)
    },
  }
}
