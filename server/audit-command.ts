/**
 * `gapferry-mirror audit` as a person meets it.
 */
import type { Command } from 'commander'
import { formatTable, plural } from '../manifests/console.ts'
import { GapferryError } from '../manifests/errors.ts'
import { examples, print, talk, type Surroundings } from '../manifests/program.ts'
import type { AuditHead, AuditRow } from '../storage/audit.ts'
import type { MirrorStore } from './store.ts'

/** Lists on a terminal end here, and cells; `--json` has all of it. */
const MAX_ROWS = 50
const MAX_CELL_CHARS = 60
const MAX_DETAILS_CHARS = 300

/** @param withStore  opens the store for one command, to read */
export function addAudit(
  program: Command,
  around: Surroundings,
  withStore: (command: Command, work: (store: MirrorStore, isJson: boolean) => Promise<void>) => Promise<void>,
): void {
  const audit = program
    .command('audit')
    .description('who did what to this mirror, when, and how it ended')
    .addHelpText('after', examples(program, 'audit', 'audit verify'))
    .action(async (_options: object, command: Command) => {
      await withStore(command, async ({ site, catalog }, isJson) => {
        const rows = catalog.audit.rows(isJson ? undefined : MAX_ROWS)
        const head = catalog.audit.head()
        if (isJson) return print(around, JSON.stringify({ site, rows, head }))
        if (head.seq > rows.length)
          talk(around, `the newest ${rows.length} rows; all of them: gapferry-mirror audit --json`)
        if (rows.length > 0) print(around, formatTable(rows.map(cellsOf), { right: [0] }))
        print(around, renderHead(head))
      })
    })
  audit
    .command('verify')
    .description('check that no row was changed, taken out, put in or moved')
    .option('--head <SEQ:HASH>', 'a head that was noted before: must still be there', parseHead)
    .addHelpText('after', examples(program, 'audit verify', 'audit verify --head SEQ:HASH'))
    .action(async (options: { head?: AuditHead }, command: Command) => {
      await withStore(command, async ({ site, catalog }, isJson) => {
        const head = catalog.audit.verify(options.head)
        if (isJson) return print(around, JSON.stringify({ site, head }))
        print(around, `audit trail of site ${site}: ${plural(head.seq, 'row')}, unbroken`)
        print(around, renderHead(head))
        if (head.seq > 0)
          talk(around, 'note the head elsewhere, and next time: gapferry-mirror audit verify --head SEQ:HASH')
      })
    })
}

function cellsOf({ seq, at, systemAt, who, what, result }: AuditRow): string[] {
  const { command, bundle, groups = [], files = [] } = what ?? { command: '(unreadable)' }
  const when = systemAt === null ? at : `${at} (clock: ${systemAt})`
  const number = bundle === undefined ? '' : String(bundle)
  const cells = [String(seq), when, who, command, number, groups.join(','), files.join(','), result]
  return [...cells.map((cell) => shortened(cell, MAX_CELL_CHARS)), shortened(detailsOf(what), MAX_DETAILS_CHARS)]
}

/** What only some rows have. */
function detailsOf(what: AuditRow['what']): string {
  if (what === null) return ''
  const { reason, expired, roots, added = [], removed = [], changed, lost } = what
  return [
    ...(expired === undefined ? [] : [`past its end of ${expired}`]),
    ...(reason === undefined ? [] : [`reason: ${reason}`]),
    ...(roots === undefined ? [] : [`root ${roots.join(',')}`, ...shortKeys('+', added), ...shortKeys('-', removed)]),
    ...(changed === undefined ? [] : [changed.length === 0 ? 'comments only' : changed.join(',')]),
    ...(lost === undefined ? [] : [`in place of a trail that ended at ${lost}`]),
  ].join('; ')
}

function shortKeys(sign: string, keys: string[]): string[] {
  return keys.map((key) => `${sign}${key.replace(/^(\w+ [0-9a-f]{8})[0-9a-f]+$/, '$1')}`)
}

function shortened(text: string, max: number): string {
  return text.length > max ? `${text.slice(0, max - 1)}…` : text
}

function renderHead({ seq, hash }: AuditHead): string {
  return seq === 0 ? 'no rows yet' : `head  ${seq}:${hash}`
}

function parseHead(text: string): AuditHead {
  const match = /^([1-9][0-9]{0,14}):([0-9a-f]{64})$/.exec(text)
  if (match !== null) return { seq: Number(match[1]), hash: match[2]! }
  throw new GapferryError(
    'USAGE_INVALID',
    `--head: expected SEQ:HASH as gapferry-mirror audit shows it, found "${text}"`,
    {
      hint: 'gapferry-mirror audit verify --help',
    },
  )
}
