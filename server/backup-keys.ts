/**
 * `keys.sealed` of a backup: the mirror's keys and their certificates under a passphrase. FORMAT.md#backups.
 */
import { existsSync, readFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import * as v from 'valibot'
import { dictionary, strictObject } from '../manifests/document.ts'
import { GapferryError } from '../manifests/errors.ts'
import { base64, CIPHERS, Kdf, parseDigested, seal, serializeDigested, unseal } from '../manifests/sealed.ts'
import { sha256Of } from '../manifests/digest.ts'
import { canonicalJson } from '../manifests/json.ts'
import { IDENTITY_FILES, MAX_IDENTITY_BYTES } from './identity.ts'

/** The name in a backup. */
export const KEYS_FILE = 'keys.sealed'
/** Of it; each of the files has some hundred bytes. */
export const MAX_KEYS_BYTES = 256 * 1024

const Envelope = strictObject({
  format: v.literal(1),
  kind: v.literal('gapferry-mirror-keys'),
  site: v.pipe(v.string(), v.maxLength(64)),
  kdf: Kdf,
  cipher: v.variant('name', [...CIPHERS]),
  data: base64(MAX_KEYS_BYTES),
  digest: v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/)),
})
const Content = strictObject({ files: dictionary(v.picklist(IDENTITY_FILES), base64(2 * MAX_IDENTITY_BYTES)) })

/** Of what is in the store. */
export async function sealKeys({ dir, site }: { dir: string; site: string }, passphrase: string): Promise<Buffer> {
  const found = IDENTITY_FILES.filter((name) => existsSync(join(dir, name)))
  const files = Object.fromEntries(found.map((name) => [name, readFileSync(join(dir, name)).toString('base64')]))
  const head = { format: 1 as const, kind: 'gapferry-mirror-keys' as const, site }
  return serializeDigested({ ...head, ...(await seal(head, Buffer.from(JSON.stringify({ files })), passphrase)) })
}

/** What a restore puts into the store: files by name, or why none. Keys that are here stay. Read before anything is
 *  changed: a passphrase may be wrong.
 *  @param found            files of the backup that have to do with keys
 *  @param args.passphrase  undefined leaves them out
 *  @throws BACKUP_DAMAGED; KEY_PASSPHRASE_WRONG; what `passphrase` throws */
export async function keysToPut(
  found: ReadonlyMap<string, { bytes(): Buffer }>,
  args: { storeDir: string; file: string; passphrase: (() => Promise<string>) | undefined },
): Promise<'store' | 'none' | ReadonlyMap<string, Buffer>> {
  const { storeDir, file, passphrase } = args
  if (existsSync(join(storeDir, IDENTITY_FILES[0]))) return 'store'
  const sealed = found.get(KEYS_FILE)
  if (sealed !== undefined)
    return passphrase === undefined ? 'none' : openKeys(sealed.bytes(), passphrase, basename(file))
  // Backups of formats 1 and 2 have what there was then, in the clear.
  return found.size === 0 ? 'none' : new Map([...found].map(([name, plain]) => [name, plain.bytes()]))
}

async function openKeys(bytes: Buffer, passphrase: () => Promise<string>, what: string): Promise<Map<string, Buffer>> {
  const doc = parseDigested(bytes)
  if (!v.is(Envelope, doc)) throw damaged(what)
  const { digest, kdf, cipher, data, ...head } = doc
  if (digest !== sha256Of(canonicalJson({ ...head, kdf, cipher, data }))) throw damaged(what)
  const content = parseDigested(await unseal(head, { kdf, cipher, data }, await passphrase(), what))
  if (!v.is(Content, content)) throw damaged(what)
  return new Map(Object.entries(content.files).map(([name, text]) => [name, Buffer.from(text, 'base64')]))
}

function damaged(what: string): GapferryError {
  return new GapferryError('BACKUP_DAMAGED', `${what}: the keys in it are not as they were written`, {
    hint: 'use another backup, or restore it with --without-keys',
  })
}
