/**
 * The command `audit`, which both programs have: each gives the trail of its own store.
 */
import type { Command } from 'commander'
import { formatTable, plural } from '../manifests/console.ts'
import { GapferryError } from '../manifests/errors.ts'
import { examples, print, talk, type Surroundings } from '../manifests/program.ts'
import type { AuditHead, AuditRow, AuditTrail } from './audit.ts'

/** Lists on a terminal end here, and cells; `--json` has all of it. */
const MAX_ROWS = 50
const MAX_CELL_CHARS = 60
const MAX_DETAILS_CHARS = 300

/** A trail that is open to be read. */
export interface OpenTrail {
  trail: AuditTrail
  /** whose it is, as in `site hq` */
  title: string
  /** the same for a script, first in what it reads */
  facts: Record<string, string>
}

/** @param what       completes "who did what to"
 *  @param withTrail  opens the trail for one command */
export function addAudit(
  program: Command,
  around: Surroundings,
  what: string,
  withTrail: (command: Command, work: (open: OpenTrail, isJson: boolean) => void) => Promise<void>,
): void {
  const audit = program
    .command('audit')
    .description(`who did what to ${what}, when, and how it ended`)
    .addHelpText('after', examples(program, 'audit', 'audit verify'))
    .action(async (_options: object, command: Command) => {
      await withTrail(command, ({ trail, facts }, isJson) => {
        const rows = trail.rows(isJson ? undefined : MAX_ROWS)
        const head = trail.head()
        if (isJson) return print(around, JSON.stringify({ ...facts, rows, head }))
        if (head.seq > rows.length)
          talk(around, `the newest ${rows.length} rows; all of them: ${program.name()} audit --json`)
        if (rows.length > 0) print(around, formatTable(rows.map(cellsOf), { right: [0] }))
        print(around, renderHead(head))
      })
    })
  audit
    .command('verify')
    .description('check that no row was changed, taken out, put in or moved')
    .option('--head <SEQ:HASH>', 'a head that was noted before: must still be there', (text: string) =>
      parseHead(text, program.name()),
    )
    .addHelpText('after', examples(program, 'audit verify', 'audit verify --head SEQ:HASH'))
    .action(async (options: { head?: AuditHead }, command: Command) => {
      await withTrail(command, ({ trail, title, facts }, isJson) => {
        const head = trail.verify(options.head)
        if (isJson) return print(around, JSON.stringify({ ...facts, head }))
        print(around, `audit trail of ${title}: ${plural(head.seq, 'row')}, unbroken`)
        print(around, renderHead(head))
        if (head.seq > 0)
          talk(around, `note the head elsewhere, and next time: ${program.name()} audit verify --head SEQ:HASH`)
      })
    })
}

function cellsOf({ seq, at, systemAt, who, what, result }: AuditRow): string[] {
  const { command, bundle, site, groups, files, boxes = [] } = what ?? { command: '(unreadable)' }
  const when = systemAt === null ? at : `${at} (clock: ${systemAt})`
  const number = bundle === undefined ? '' : String(bundle)
  // A mirror has one site and several groups; of a laptop's sites a row names one.
  const whose = groups?.join(',') ?? site ?? ''
  const about = (files ?? boxes.map((box) => box.split(' ', 1)[0])).join(',')
  const cells = [String(seq), when, who, command, number, whose, about, result]
  return [...cells.map((cell) => shortened(cell, MAX_CELL_CHARS)), shortened(detailsOf(what), MAX_DETAILS_CHARS)]
}

/** What only some rows have. */
function detailsOf(what: AuditRow['what']): string {
  if (what === null) return ''
  const { reason, expired, roots = [], added = [], removed = [], keys, changed, lost } = what
  const keyChanges = [...shortKeys('+', added), ...shortKeys('-', removed)]
  return [
    ...(expired === undefined ? [] : [`past its end of ${expired}`]),
    ...(reason === undefined ? [] : [`reason: ${reason}`]),
    ...(roots.length === 0 ? [] : [`root ${roots.join(',')}`]),
    ...keyChanges,
    ...(keys === undefined ? [] : [`signed by ${shortKeys('', keys).join(', ')}`]),
    ...(changed === undefined ? [] : [changed.length === 0 ? 'comments only' : shortKeys('', changed).join(',')]),
    ...(lost === undefined ? [] : [`in place of a trail that ended at ${lost}`]),
  ].join('; ')
}

function shortKeys(sign: string, keys: string[]): string[] {
  return keys.map((key) => `${sign}${key.replace(/^(\w+ [0-9a-f]{8})[0-9a-f]+/, '$1')}`)
}

function shortened(text: string, max: number): string {
  return text.length > max ? `${text.slice(0, max - 1)}…` : text
}

function renderHead({ seq, hash }: AuditHead): string {
  return seq === 0 ? 'no rows yet' : `head  ${seq}:${hash}`
}

function parseHead(text: string, name: string): AuditHead {
  const match = /^([1-9][0-9]{0,14}):([0-9a-f]{64})$/.exec(text)
  if (match !== null) return { seq: Number(match[1]), hash: match[2]! }
  throw new GapferryError('USAGE_INVALID', `--head: expected SEQ:HASH as ${name} audit shows it, found "${text}"`, {
    hint: `${name} audit verify --help`,
  })
}
