/**
 * What a box installs by itself, and when it does next: FreePBX's own schedule and anybody's lines in tables of cron, yum-cron,
 * timers. Pure; read from the fact `automatic` of an inventory. FORMAT.md#inventory.
 */
import type { Inventory } from './inventory.ts'
import { nextRun, parseCalendar, parseCronLine } from './schedule.ts'

export interface AutomaticJob {
  /** a command, a service or a setting, as a person knows it */
  what: string
  /** milliseconds since 1970; undefined where nothing tells */
  nextMs: number | undefined
  /** some time after that: anacron waits, and timers add a delay */
  isLoose: boolean
}

/** Of what gapferry-box writes none has more. */
const MAX_PIECES = 100
const MAX_PIECE = 400
const DAILY_HOUR = '3'
const INSTALLING = [
  /fwconsole\s.*\b(?:ma|moduleadmin)\s.*\b(?:install|installall|installlocal|upgrade|upgradeall|update|updateall|downloadinstall)\b/,
  /fwconsole\s.*\bsys\s.*\b(?:upgrade|upgradeall|update|updateall)\b/,
  /\b(?:yum|dnf)\s(?!.*\b(?:check-update|makecache)\b).*\b(?:update|upgrade|install)\b/,
  /\bapt(?:-get)?\s.*\b(?:upgrade|dist-upgrade|full-upgrade|install)\b/,
  /\bunattended-upgrades?\b/,
]
/** Settings of FreePBX: `enabled`, `emailonly`, `disabled`. */
const SETTINGS: Record<string, { what: string; command: RegExp }> = {
  automoduleupdates: { what: 'modules (AUTOMODULEUPDATES)', command: /\b(?:ma|moduleadmin)\s/ },
  autosecurityupdates: { what: 'modules with security fixes (AUTOSECURITYUPDATES)', command: /\b(?:ma|moduleadmin)\s/ },
  autosystemupdates: { what: 'system packages (AUTOSYSTEMUPDATES)', command: /\bsys\s/ },
}
const OFF = /^(?:no|0|false|disabled|emailonly|none|)$/i

/** What is on, the next one first.
 *  @param fromMs  the jobs after that
 *  @returns undefined where the inventory does not tell at all */
export function automaticJobs({ readiness, isGuess }: Inventory, fromMs: number): AutomaticJob[] | undefined {
  if (isGuess) return undefined
  const all = (readiness.get('automatic') ?? '').split(' | ')
  const pieces = all.filter((piece) => piece !== '' && piece.length <= MAX_PIECE).slice(0, MAX_PIECES)
  const settings = new Map(pieces.flatMap((piece) => settingOf(piece) ?? []))
  const timers = pieces.flatMap((piece) => timerOf(piece) ?? [])
  const zone = readiness.get('timezone') ?? readiness.get('utc-offset') ?? 'UTC'
  const next = (name: string): number | undefined =>
    earliest(timers.flatMap((one) => (one.name === name ? (nextOf(one.calendar, fromMs, zone) ?? []) : [])))
  const isOn = (name: string): boolean => settings.has(name) && !OFF.test(settings.get(name)!)
  const lines = pieces.flatMap((piece) => cronJob(piece, fromMs, zone) ?? [])
  const jobs: AutomaticJob[] = [...lines]
  for (const [name, { what, command }] of Object.entries(SETTINGS)) {
    const hasLine = lines.some((job) => command.test(job.what))
    if (isOn(name) && !hasLine) jobs.push({ what, nextMs: undefined, isLoose: false })
  }
  const daily = parseCronLine(`0 ${DAILY_HOUR} * * * yum-cron`)!.schedule
  if (isOn('yum-cron')) jobs.push({ what: 'yum-cron', nextMs: nextRun(daily, fromMs, zone), isLoose: true })
  const isTold = Number(readiness.get('readiness') ?? 1) > 1
  const timed = (name: string, isWanted: boolean): void => {
    const isEnabled = timers.some((one) => one.name === `${name}.timer`)
    if (isWanted && (isEnabled || !isTold)) jobs.push({ what: name, nextMs: next(`${name}.timer`), isLoose: true })
  }
  timed('dnf-automatic', isOn('dnf-automatic'))
  timed('dnf-automatic-install', isTold)
  timed('apt-daily-upgrade', isOn('unattended-upgrades'))
  return jobs.sort((a, b) => (a.nextMs ?? Infinity) - (b.nextMs ?? Infinity) || (a.what < b.what ? -1 : 1))
}

function settingOf(piece: string): [[name: string, value: string]] | undefined {
  const [, name, value] = /^([a-z-]+)=(\S*)$/.exec(piece) ?? []
  return name === undefined || value === undefined ? undefined : [[name, value]]
}

function timerOf(piece: string): { name: string; calendar: string } | undefined {
  const [, name, calendar] = /^timer (\S+) (.+)$/.exec(piece) ?? []
  return name === undefined || calendar === undefined ? undefined : { name, calendar }
}

function nextOf(calendar: string, fromMs: number, zone: string): number | undefined {
  const schedule = parseCalendar(calendar)
  return schedule && nextRun(schedule, fromMs, zone)
}

/** Only of what installs. */
function cronJob(piece: string, fromMs: number, zone: string): AutomaticJob | undefined {
  const isJob = INSTALLING.some((pattern) => pattern.test(piece)) && /^[\d*@]/.test(piece)
  if (!isJob) return undefined
  const job = parseCronLine(piece)
  const command = (job?.command ?? piece).replace(/\s*(?:>|2>|&>).*$/, '').trim()
  return { what: command, nextMs: job && nextRun(job.schedule, fromMs, zone), isLoose: false }
}

function earliest(times: number[]): number | undefined {
  return times.length === 0 ? undefined : Math.min(...times)
}
