/**
 * `gapferry-mirror boxes enrol` and `revoke`: who may fetch licenses.
 */
import type { Command } from 'commander'
import * as v from 'valibot'
import { formatTime } from '../manifests/console.ts'
import { GapferryError } from '../manifests/errors.ts'
import { DeploymentId } from '../manifests/license.ts'
import { examples, print, type Surroundings } from '../manifests/program.ts'
import { audited } from './audit.ts'
import { isAnyAddress, listenerUrl, type MirrorConfig } from './config.ts'
import { newCode, sealCode } from './enrol-code.ts'
import { deploymentHmac, ensureIdentity } from './identity.ts'
import type { StoreTools } from './store-commands.ts'
import { formatIso } from './status.ts'
import { openStoreForWriting, type MirrorStore } from './store.ts'

const CODE_MS = 24 * 3_600_000
const NAME = /^[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?$/

interface Offered {
  site: string
  box: string
  code: string
  endsAtMs: number
  url: string
  /** it has a certificate, which counts until the code is used */
  isEnrolled: boolean
}

/** @param boxes  the command that they belong to */
export function addEnrolment(boxes: Command, around: Surroundings, { withStore, clockOf }: StoreTools): void {
  boxes
    .command('enrol')
    .description('let a box get a certificate, by a code that is good once, for 24 hours')
    .argument('<NAME>', 'what the box is called here: its host name')
    .option('--deployment <ID>', 'the one whose license it may fetch (default: the first that it asks for)')
    .addHelpText('after', examples(boxes.parent!, 'boxes enrol pbx1', 'boxes enrol pbx1 --deployment 12345678'))
    .action(async (text: string, { deployment }: { deployment?: string }, command: Command) => {
      await withStore(around, command, openStoreForWriting, async (store, config, json) => {
        const name = parseBox(text)
        const url = urlFor(config)
        const made = offer({ store, name, deployment, url, nowMs: clockOf(store, around) }, around)
        print(around, json ? JSON.stringify(offerObject(made)) : renderOffer(made))
      })
    })
  boxes
    .command('revoke')
    .description('take a box’s certificate and code away: it gets no license from now on')
    .argument('<NAME>', 'as boxes list shows it')
    .addHelpText('after', examples(boxes.parent!, 'boxes revoke pbx1'))
    .action(async (text: string, _options: object, command: Command) => {
      await withStore(around, command, openStoreForWriting, async (store, _config, json) => {
        const name = parseBox(text)
        revoke(store, name, clockOf(store, around), around)
        print(around, json ? JSON.stringify({ site: store.site, box: name, isRevoked: true }) : `${name} is revoked`)
      })
    })
}

function offer(
  args: { store: MirrorStore; name: string; deployment: string | undefined; url: string; nowMs: number },
  around: Surroundings,
): Offered {
  const { store, name, nowMs, url } = args
  const { catalog, site } = store
  const identity = ensureIdentity(store, nowMs)
  const deployment = parseDeployment(args.deployment)
  const code = newCode()
  const endsAtMs = nowMs + CODE_MS
  const isEnrolled = catalog.enrolments.active(name) !== undefined
  audited({ catalog, by: around, asked: { command: 'boxes enrol', boxes: [name] } }, () =>
    catalog.enrolments.putCode({
      name,
      nowMs,
      endsAtMs,
      code: sealCode(code, name, { key: identity.key, site }),
      deployment: deployment === undefined ? null : deploymentHmac(identity, site, deployment),
    }),
  )
  return { site, box: name, code, endsAtMs, url, isEnrolled }
}

function revoke({ catalog }: MirrorStore, name: string, nowMs: number, around: Surroundings): void {
  audited({ catalog, by: around, asked: { command: 'boxes revoke', boxes: [name] } }, () => {
    const had = [catalog.enrolments.dropCode(name), catalog.enrolments.revoke(name, nowMs)]
    if (had.includes(true)) return
    throw new GapferryError('BOX_UNKNOWN', `${name}: no box of this name is enrolled, or has a code`, {
      hint: 'gapferry-mirror boxes list',
    })
  })
}

function parseBox(text: string): string {
  const name = text.toLowerCase()
  if (NAME.test(name)) return name
  throw new GapferryError('USAGE_INVALID', `"${text}" is no name of a box: a-z 0-9 . _ -, at most 64`)
}

function parseDeployment(text: string | undefined): string | undefined {
  if (text === undefined || v.is(DeploymentId, text)) return text
  throw new GapferryError('USAGE_INVALID', '--deployment: expected an ID as the box has it, letters and digits')
}

/** Where the box is told to go. */
function urlFor({ boxes, file }: MirrorConfig): string {
  if (boxes === undefined) {
    throw new GapferryError('CONFIG_INVALID', `${file}: boxes has no listener that a box could enrol at`, {
      hint: `add to ${file}: boxes: { listen: 0.0.0.0:8490, hosts: [NAME] }, and restart gapferry-mirror serve`,
    })
  }
  const host = isAnyAddress(boxes.host) ? 'MIRROR' : boxes.host
  return listenerUrl({ ...boxes, host }).replace('http:', 'https:')
}

function offerObject({ endsAtMs, isEnrolled, ...offered }: Offered): object {
  return { ...offered, endsAt: formatIso(endsAtMs), isEnrolled }
}

function renderOffer({ box, code, endsAtMs, url, isEnrolled }: Offered): string {
  const lines = [`${box} may enrol once, until ${formatTime(endsAtMs)}`, `  code  ${code}`]
  if (isEnrolled) lines.push('  it has a certificate, which counts until this code is used')
  return [...lines, `on the box: gapferry-box enrol ${url} --box ${box} --code ${code}`].join('\n')
}
