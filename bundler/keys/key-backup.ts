/**
 * One sealed file with all of a site's key folder and what the laptop remembers for it, so that another laptop goes on with
 * the same keys and never gives a number or a stamp twice. FORMAT.md#key-backup.
 */
import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import * as v from 'valibot'
import type { Sha256 } from '../../manifests/digest.ts'
import { dictionary, strictObject } from '../../manifests/document.ts'
import { GapferryError } from '../../manifests/errors.ts'
import { checkSite, rootChain } from '../../manifests/metadata.ts'
import { parseName } from '../../manifests/tree.ts'
import type { AuditHead } from '../../storage/audit.ts'
import type { Ledger, Promises, SignedBundle } from '../../storage/ledger.ts'
import { loadRoots, readSiteFile, refuseExisting, siteFolder, writeNewFolder } from './key-folder.ts'
import { base64, CIPHERS, Kdf, parseDigested, seal, serializeDigested, unseal } from '../../manifests/sealed.ts'

const MAX_BACKUP_BYTES = 64 * 1024 * 1024
const SITE_FILE =
  /^(?:[1-9][0-9]{0,2}\.root\.json|pending\.root\.json|site\.asc|(?:root|bundle|openpgp|license)-[0-9a-f]{8}\.key)$/

const Hex256 = v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/))
const Bytes = base64(1024 * 1024)
const Count = v.pipe(v.number(), v.safeInteger(), v.minValue(0))
const Text = v.pipe(v.string(), v.maxLength(1024))
const Time = v.pipe(v.string(), v.regex(/^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$/))
const Envelope = strictObject({
  format: v.literal(1),
  kind: v.literal('gapferry-key-backup'),
  site: Text,
  createdAt: Time,
  kdf: Kdf,
  cipher: v.variant('name', [...CIPHERS]),
  data: base64(MAX_BACKUP_BYTES),
  digest: Hex256,
})
const Content = strictObject({
  files: dictionary(v.pipe(v.string(), v.regex(SITE_FILE)), Bytes),
  settings: v.pipe(v.string(), v.maxLength(1024 * 1024)),
  usedNumber: Count,
  bundle: v.nullable(
    strictObject({
      number: Count,
      createdAtMs: Count,
      content: Hex256,
      metadata: dictionary(Text, Bytes),
      trees: dictionary(Text, Hex256),
    }),
  ),
  reportKey: v.exactOptional(Bytes),
  trail: v.exactOptional(strictObject({ seq: Count, hash: Hex256 })),
  promises: v.pipe(
    v.array(strictObject({ group: Text, stamps: dictionary(Text, Count), immutable: dictionary(Text, Hex256) })),
    v.maxLength(1000),
  ),
})

/** What a backup holds. */
export interface KeyBackup {
  site: string
  /** RFC 3339 */
  createdAt: string
  files: Map<string, Buffer>
  /** text of gapferry.yaml */
  settings: string
  /** the highest number that is used */
  usedNumber: number
  bundle?: SignedBundle
  promises: Promises[]
  /** PKCS#8: opens the reports of the site's mirror */
  reportKey?: Buffer
  /** the head of the laptop's audit trail */
  trail?: AuditHead
}

/** Everything that a backup of the site holds now.
 *  @throws KEY_MISSING; ROLE_*, SITE_MISMATCH when the roots are not in order: what cannot be restored is not backed up */
export function collectBackup(args: {
  dir: string
  site: string
  ledger: Ledger
  settings: string
  nowMs: number
}): KeyBackup {
  const { dir, site, ledger, settings, nowMs } = args
  loadRoots(dir, site)
  const folder = siteFolder(dir, site)
  const names = readdirSync(folder).filter((name) => SITE_FILE.test(name))
  const bundle = ledger.lastBundle(site)
  const reportKey = ledger.reports.secret(site)
  return {
    site,
    createdAt: new Date(nowMs).toISOString().replace(/\.\d+Z$/, 'Z'),
    files: new Map(names.sort().map((name) => [name, readSiteFile(join(folder, name))])),
    settings,
    usedNumber: ledger.nextNumber(site) - 1,
    ...(bundle === undefined ? {} : { bundle }),
    promises: ledger.allPromises(site),
    ...(reportKey === undefined ? {} : { reportKey }),
    trail: ledger.audit.head(),
  }
}

/** The bytes of a backup. @throws KEY_INVALID where they would be too many */
export async function sealBackup(backup: KeyBackup, passphrase: string): Promise<Buffer> {
  const head = {
    format: 1 as const,
    kind: 'gapferry-key-backup' as const,
    site: backup.site,
    createdAt: backup.createdAt,
  }
  const { bundle } = backup
  const content: v.InferInput<typeof Content> = {
    files: textFiles(backup.files),
    settings: backup.settings,
    usedNumber: backup.usedNumber,
    bundle:
      bundle === undefined
        ? null
        : {
            number: bundle.number,
            createdAtMs: bundle.createdAtMs,
            content: bundle.content,
            metadata: textFiles(bundle.metadata),
            trees: Object.fromEntries(bundle.trees),
          },
    ...(backup.reportKey === undefined ? {} : { reportKey: backup.reportKey.toString('base64') }),
    ...(backup.trail === undefined ? {} : { trail: backup.trail }),
    promises: backup.promises.map(({ group, stamps, immutable }) => ({
      group,
      stamps: Object.fromEntries(stamps),
      immutable: Object.fromEntries(immutable),
    })),
  }
  // What could not be restored is no backup.
  if (!v.is(Content, content)) throw invalid(`backup of ${backup.site}`, 'holds what this format cannot say')
  const bytes = serializeDigested({ ...head, ...(await seal(head, Buffer.from(JSON.stringify(content)), passphrase)) })
  if (bytes.length <= MAX_BACKUP_BYTES) return bytes
  throw invalid(`backup of ${backup.site}`, `would have ${bytes.length} bytes, more than ${MAX_BACKUP_BYTES}`)
}

/** @param passphrase  asked once the file has proved to be a whole backup
 *  @throws KEY_INVALID for anything else; KEY_PASSPHRASE_WRONG; ROLE_*, SITE_MISMATCH where its roots are not a chain */
export async function openBackup(bytes: Buffer, what: string, passphrase: () => Promise<string>): Promise<KeyBackup> {
  const doc = bytes.length > MAX_BACKUP_BYTES ? undefined : parseDigested(bytes)
  if (!v.is(Envelope, doc)) throw invalid(what, 'is not a backup of keys of this format')
  const { format, kind, createdAt, kdf, cipher, data } = doc
  const head = { format, kind, site: doc.site, createdAt }
  if (!serializeDigested({ ...head, kdf, cipher, data }).equals(bytes))
    throw invalid(what, 'is damaged; take another copy of it')
  if (kdf === null || cipher.name === 'none') throw invalid(what, 'is not sealed')
  const content = parseDigested(await unseal(head, { kdf, cipher, data }, await passphrase(), what))
  if (!v.is(Content, content)) throw invalid(what, 'holds what this format does not know')
  const site = parseName(doc.site, what)
  const files = buffers(content.files)
  checkSite(rootChain(rootsOf(files, what), what), site)
  const { bundle, promises, trail, reportKey } = content
  return {
    site,
    createdAt,
    files,
    settings: content.settings,
    usedNumber: content.usedNumber,
    ...(reportKey === undefined ? {} : { reportKey: Buffer.from(reportKey, 'base64') }),
    ...(trail === undefined ? {} : { trail }),
    ...(bundle === null ? {} : { bundle: bundleOf(site, bundle) }),
    promises: promises.map(({ group, stamps, immutable }) => ({
      group,
      stamps: new Map(Object.entries(stamps)),
      immutable: new Map(Object.entries(immutable) as [string, Sha256][]),
    })),
  }
}

/** Puts a backup in place: first what is remembered, then the keys, in one step. What the laptop knows better stays.
 *  @throws KEY_EXISTS where the site has keys here: they are never overwritten */
export function restoreBackup(backup: KeyBackup, dir: string, ledger: Ledger): void {
  const folder = siteFolder(dir, backup.site)
  refuseExisting(folder)
  const { bundle, promises, usedNumber, reportKey } = backup
  if (reportKey !== undefined) ledger.reports.keepSecret(backup.site, reportKey)
  ledger.merge(backup.site, { ...(bundle === undefined ? {} : { bundle }), promises, usedNumber })
  writeNewFolder(folder, Object.fromEntries(backup.files))
}

/** @throws KEY_EXISTS */
export function refuseOverwrite(file: string): void {
  if (!existsSync(file)) return
  throw new GapferryError('KEY_EXISTS', `${file}: is there already; a backup is never overwritten`, {
    hint: 'name a new file: gapferry keys backup --to FILE',
  })
}

function bundleOf(
  site: string,
  { number, createdAtMs, content, metadata, trees }: v.InferInput<typeof Content>['bundle'] & {},
): SignedBundle {
  return {
    site,
    number,
    createdAtMs,
    content: content as Sha256,
    metadata: buffers(metadata),
    trees: new Map(Object.entries(trees) as [string, Sha256][]),
  }
}

function rootsOf(files: Map<string, Buffer>, what: string): Buffer[] {
  const roots: Buffer[] = []
  for (let next = files.get('1.root.json'); next !== undefined; next = files.get(`${roots.length + 1}.root.json`))
    roots.push(next)
  if (roots.length === 0 || !files.has('site.asc')) throw invalid(what, 'has not all of a site’s keys')
  return roots
}

function textFiles(files: Map<string, Buffer>): Record<string, string> {
  return Object.fromEntries([...files].map(([name, bytes]) => [name, bytes.toString('base64')]))
}

function buffers(files: Record<string, string>): Map<string, Buffer> {
  return new Map(Object.entries(files).map(([name, text]) => [name, Buffer.from(text, 'base64')]))
}

function invalid(what: string, why: string): GapferryError {
  return new GapferryError('KEY_INVALID', `${what}: ${why}`)
}
