/**
 * When something runs next: a line of cron's table (cronie, vixie), or a systemd timer's OnCalendar, in a box's own time zone.
 * Pure. Sources: crontab(5); systemd.time(7), the forms that timers of distributions have.
 */

/** Which minutes it runs in. */
export interface Schedule {
  minutes: ReadonlySet<number>
  hours: ReadonlySet<number>
  days: ReadonlySet<number>
  /** 1 to 12 */
  months: ReadonlySet<number>
  /** 0 is Sunday */
  weekdays: ReadonlySet<number>
  /** cron runs on a day that either of two fields names, where both do */
  isEitherDay: boolean
}

type Range = readonly [first: number, last: number]

const MINUTES: Range = [0, 59]
const HOURS: Range = [0, 23]
const DAYS: Range = [1, 31]
const MONTHS: Range = [1, 12]
/** 7 is Sunday, too. */
const WEEKDAYS: Range = [0, 7]
const MONTH_NAMES = ['jan', 'feb', 'mar', 'apr', 'may', 'jun', 'jul', 'aug', 'sep', 'oct', 'nov', 'dec']
const DAY_NAMES = ['sun', 'mon', 'tue', 'wed', 'thu', 'fri', 'sat']
const NAMED = new Map([
  ['@yearly', '0 0 1 1 *'],
  ['@annually', '0 0 1 1 *'],
  ['@monthly', '0 0 1 * *'],
  ['@weekly', '0 0 * * 0'],
  ['@daily', '0 0 * * *'],
  ['@midnight', '0 0 * * *'],
  ['@hourly', '0 * * * *'],
])
const CALENDAR_NAMES = new Map([
  ['minutely', '*-*-* *:*:00'],
  ['hourly', '*-*-* *:00:00'],
  ['daily', '*-*-* 00:00:00'],
  ['weekly', 'mon *-*-* 00:00:00'],
  ['monthly', '*-*-01 00:00:00'],
  ['quarterly', '*-01,04,07,10-01 00:00:00'],
  ['semiannually', '*-01,07-01 00:00:00'],
  ['yearly', '*-01-01 00:00:00'],
  ['annually', '*-01-01 00:00:00'],
])
const MINUTE_MS = 60_000
const DAY_MS = 86_400_000
/** A 29th of February comes within eight years. */
const MAX_DAYS = 8 * 366 + 1

/** The time fields at the beginning of a line of a user's table.
 *  @returns them, and the command behind them; undefined for what is no job, or runs at no time (`@reboot`) */
export function parseCronLine(line: string): { schedule: Schedule; command: string } | undefined {
  const [, name = '', after = ''] = /^(@[a-z]+)\s+(.*)$/i.exec(line.trim()) ?? []
  const text = name === '' ? line.trim() : `${NAMED.get(name.toLowerCase()) ?? ''} ${after}`
  const [, minute = '', hour = '', day = '', month = '', weekday = '', command = ''] =
    /^(\S+)\s+(\S+)\s+(\S+)\s+(\S+)\s+(\S+)\s+(.*)$/.exec(text) ?? []
  const schedule = scheduleOf({ minute, hour, day, month, weekday }, !day.startsWith('*') && !weekday.startsWith('*'))
  return schedule === undefined || command === '' ? undefined : { schedule, command }
}

/** An OnCalendar= of a timer. @returns undefined for what is not understood */
export function parseCalendar(text: string): Schedule | undefined {
  const words = (CALENDAR_NAMES.get(text.trim().toLowerCase()) ?? text.trim()).toLowerCase().split(/\s+/)
  const weekday = /^[a-z]/.test(words[0] ?? '') ? words.shift()! : '*'
  const date = words[0]?.includes('-') === true ? words.shift()! : '*-*-*'
  const [time = '00:00', ...rest] = words
  const [, month, day] = /^\*-([^-]+)-([^-]+)$/.exec(date) ?? []
  const [, hour, minute, second = '0'] = /^([^:]+):([^:]+)(?::([^:]+))?$/.exec(time) ?? []
  if (rest.length > 0 || month === undefined || day === undefined) return undefined
  if (hour === undefined || minute === undefined || !/^0+$/.test(second)) return undefined
  const named = cron(weekday).replace(/([a-z]{3})[a-z]*/g, '$1')
  const fields = { minute: cron(minute), hour: cron(hour), day: cron(day), month: cron(month), weekday: named }
  return scheduleOf(fields, false)
}

/** When it runs next.
 *  @param fromMs  milliseconds since 1970; the result is later
 *  @param zone    as `Europe/Berlin`, or `+0100`; UTC for what is neither
 *  @returns milliseconds since 1970; undefined where no day fits */
export function nextRun(schedule: Schedule, fromMs: number, zone: string): number | undefined {
  const from = wallTime(fromMs, zone)
  const hours = [...schedule.hours].sort(byNumber)
  const minutes = [...schedule.minutes].sort(byNumber)
  const firstDay = Math.floor(from / DAY_MS) * DAY_MS
  for (let i = 0; i < MAX_DAYS; i++) {
    const day = firstDay + i * DAY_MS
    if (!fitsDay(schedule, new Date(day))) continue
    for (const hour of hours) {
      for (const minute of minutes) {
        const wall = day + (hour * 60 + minute) * MINUTE_MS
        const ms = wall > from ? msOfWall(wall, zone) : 0
        if (ms > fromMs) return ms
      }
    }
  }
  return undefined
}

/** Of a calendar's field. */
function cron(field: string): string {
  return field.replaceAll('..', '-')
}

interface Fields {
  minute: string
  hour: string
  day: string
  month: string
  weekday: string
}

function scheduleOf({ minute, hour, day, month, weekday }: Fields, isEitherDay: boolean): Schedule | undefined {
  const minutes = numbersOf(minute, MINUTES)
  const hours = numbersOf(hour, HOURS)
  const days = numbersOf(day, DAYS)
  const months = numbersOf(month, MONTHS, MONTH_NAMES, 1)
  const weekdays = numbersOf(weekday, WEEKDAYS, DAY_NAMES, 0)
  if (minutes === undefined || hours === undefined || days === undefined) return undefined
  if (months === undefined || weekdays === undefined) return undefined
  if (weekdays.delete(7)) weekdays.add(0)
  return { minutes, hours, days, months, weekdays, isEitherDay }
}

/** `*`, `3`, `1-5`, `0-23/2`, `mon,wed`. @returns undefined for anything else */
function numbersOf(
  field: string,
  [first, last]: Range,
  names: readonly string[] = [],
  firstName = 0,
): Set<number> | undefined {
  const found = new Set<number>()
  const numberOf = (text: string): number => {
    const named = names.indexOf(text.toLowerCase())
    return named >= 0 ? named + firstName : /^\d{1,2}$/.test(text) ? Number(text) : Number.NaN
  }
  for (const part of field.split(',')) {
    const [, range = '', step = '1'] = /^([^/]+)(?:\/(\d{1,2}))?$/.exec(part) ?? []
    const [from = '', to] = range.split('-', 2)
    const start = range === '*' ? first : numberOf(from)
    const end = range === '*' ? last : to === undefined ? (part.includes('/') ? last : start) : numberOf(to)
    if (!(start >= first && end <= last && start <= end && Number(step) > 0)) return undefined
    for (let i = start; i <= end; i += Number(step)) found.add(i)
  }
  return found
}

function fitsDay({ days, months, weekdays, isEitherDay }: Schedule, day: Date): boolean {
  if (!months.has(day.getUTCMonth() + 1)) return false
  const [isDay, isWeekday] = [days.has(day.getUTCDate()), weekdays.has(day.getUTCDay())]
  return isEitherDay ? isDay || isWeekday : isDay && isWeekday
}

/** What clocks there show, as if it were UTC. */
function wallTime(ms: number, zone: string): number {
  return ms + offsetMs(ms, zone)
}

/** The other way round; a time that clocks pass over in spring is taken for one an hour later. */
function msOfWall(wall: number, zone: string): number {
  const guess = wall - offsetMs(wall, zone)
  return wall - offsetMs(guess, zone)
}

function offsetMs(ms: number, zone: string): number {
  const [, sign, hours, minutes] = /^([+-])(\d{2})(\d{2})$/.exec(zone) ?? []
  if (sign !== undefined) return (sign === '-' ? -1 : 1) * (Number(hours) * 60 + Number(minutes)) * MINUTE_MS
  const format = formatOf(zone)
  if (format === undefined) return 0
  const parts = Object.fromEntries(format.formatToParts(ms).map(({ type, value }) => [type, Number(value)]))
  const { year = 0, month = 1, day = 1, hour = 0, minute = 0, second = 0 } = parts
  return Date.UTC(year, month - 1, day, hour, minute, second) - Math.floor(ms / 1000) * 1000
}

const FORMAT = { year: 'numeric', month: 'numeric', day: 'numeric', hour: 'numeric', minute: 'numeric' } as const
const formats = new Map<string, Intl.DateTimeFormat | undefined>()
const MAX_FORMATS = 100

function formatOf(zone: string): Intl.DateTimeFormat | undefined {
  if (formats.has(zone)) return formats.get(zone)
  if (formats.size >= MAX_FORMATS) formats.clear()
  let format: Intl.DateTimeFormat | undefined
  try {
    format = new Intl.DateTimeFormat('en-US', { ...FORMAT, second: 'numeric', hourCycle: 'h23', timeZone: zone })
  } catch {
    format = undefined // no zone of that name is known here
  }
  formats.set(zone, format)
  return format
}

function byNumber(a: number, b: number): number {
  return a - b
}
