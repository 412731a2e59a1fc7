/** When a job runs next. */
import t from 'tap'
import { nextRun, parseCalendar, parseCronLine } from '../../manifests/schedule.ts'

const FROM = '2026-11-22T12:00:00Z' // a Sunday

function next(line: string, from = FROM, zone = 'UTC'): string | undefined {
  const schedule = parseCronLine(`${line} x`)?.schedule
  const ms = schedule && nextRun(schedule, Date.parse(from), zone)
  return ms === undefined ? undefined : new Date(ms).toISOString().replace(':00.000Z', 'Z')
}

t.test('a line of a table runs next at the minute that crontab(5) says', (t) => {
  const cases: [line: string, next: string | undefined, from?: string][] = [
    ['5 4 * * 6', '2026-11-28T04:05Z'],
    ['0 12 * * *', '2026-11-23T12:00Z'],
    ['1 12 * * *', '2026-11-22T12:01Z'],
    ['*/15 * * * *', '2026-11-22T12:15Z'],
    ['7-59/20 * * * *', '2026-11-22T12:07Z'],
    ['0 0 1 * *', '2026-12-01T00:00Z'],
    ['0 0 29 2 *', '2028-02-29T00:00Z'],
    ['0 0 29 2 *', '2104-02-29T00:00Z', '2096-03-01T00:00:00Z'],
    ['0 0 31 2 *', undefined],
    ['30 3 * * sun', '2026-11-29T03:30Z'],
    ['30 3 * * 7', '2026-11-29T03:30Z'],
    ['0 3 * jan Mon-Fri', '2027-01-01T03:00Z'],
    ['0 3 13 * 5', '2026-11-27T03:00Z'],
    ['0 3 13 * *', '2026-12-13T03:00Z'],
    ['0 3 */2 * 5', '2026-11-27T03:00Z'],
    ['0 3 1,24 * 5', '2026-11-24T03:00Z'],
    ['@daily', '2026-11-23T00:00Z'],
    ['@weekly', '2026-11-29T00:00Z'],
    ['@hourly', '2026-11-22T13:00Z'],
    ['@reboot', undefined],
    ['60 * * * *', undefined],
    ['5-1 * * * *', undefined],
    ['* * 0 * *', undefined],
    ['*/0 * * * *', undefined],
    ['a * * * *', undefined],
    ['1 2 3', undefined],
  ]
  for (const [line, expected, from] of cases) t.equal(next(line, from), expected, line)
  t.equal(parseCronLine('5 4 * * 6   fwconsole ma  installall')?.command, 'fwconsole ma  installall')
  t.equal(parseCronLine('MAILTO=root'), undefined)
  t.end()
})

t.test('in the time of the box, summer and winter', (t) => {
  t.equal(next('0 3 * * *', FROM, 'Europe/Berlin'), '2026-11-23T02:00Z')
  t.equal(next('0 3 * * *', '2026-07-01T12:00:00Z', 'Europe/Berlin'), '2026-07-02T01:00Z')
  t.equal(next('0 13 * * *', FROM, 'Europe/Berlin'), '2026-11-23T12:00Z', '13:00 there is now')
  t.equal(
    next('30 2 * * *', '2026-03-29T00:00:00Z', 'Europe/Berlin'),
    '2026-03-29T01:30Z',
    'a time that is passed over',
  )
  t.equal(next('0 3 * * *', FROM, '+0530'), '2026-11-22T21:30Z')
  t.equal(next('0 3 * * *', FROM, '-0330'), '2026-11-23T06:30Z')
  t.equal(next('0 3 * * *', FROM, 'No/Such'), '2026-11-23T03:00Z')
  t.end()
})

/** As `systemd-analyze calendar --base-time=…` says, systemd 252. */
const CALENDARS = [
  ['*-*-* 6:00', '2026-11-23T06:00'],
  ['*-*-* 6,18:00', '2026-11-22T18:00'],
  ['daily', '2026-11-23T00:00'],
  ['weekly', '2026-11-23T00:00'],
  ['monthly', '2026-12-01T00:00'],
  ['hourly', '2026-11-22T13:00'],
  ['Sat *-*-* 04:05', '2026-11-28T04:05'],
  ['Mon..Fri 22:30', '2026-11-23T22:30'],
  ['Saturday,Sunday *-*-1..7 18:00', '2026-12-05T18:00'],
  ['*-*-01 00:00:00', '2026-12-01T00:00'],
  ['*:0/15', '2026-11-22T12:15'],
  ['0/6:00', '2026-11-22T18:00'],
  ['quarterly', '2027-01-01T00:00'],
  ['*-12-24 20:00', '2026-12-24T20:00'],
  ['Sun', '2026-11-29T00:00'],
  ['Fri *-*-13 03:00', '2027-08-13T03:00'],
] as const

t.test('a timer’s calendar runs next when systemd says so', (t) => {
  for (const [text, expected] of CALENDARS) {
    const schedule = parseCalendar(text)
    const ms = schedule && nextRun(schedule, Date.parse(FROM), 'UTC')
    t.equal(ms === undefined ? undefined : new Date(ms).toISOString().slice(0, 16), expected, text)
  }
  for (const text of ['tomorrow', '2027-01-01 00:00', '*-*~1 00:00', '*-*-* 6:00 Europe/Berlin', '6:00:30', '25:00']) {
    t.equal(parseCalendar(text), undefined, text)
  }
  t.end()
})
