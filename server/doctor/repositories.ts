/** The yum repositories of an origin: index, signature and metadata, as yum fetches them. */
import { createHash } from 'node:crypto'
import { plural } from '../../manifests/console.ts'
import { sha256Of } from '../../manifests/digest.ts'
import { GapferryError, isGapferryError } from '../../manifests/errors.ts'
import type { TreePath } from '../../manifests/path.ts'
import { MAX_REPOMD_BYTES, parseRepomd, type RepomdData } from '../../manifests/repomd.ts'
import type { Tree } from '../../manifests/tree.ts'
import type { BoxClient } from './ask.ts'
import type { Sheet } from './sheet.ts'

const MAX_SIGNATURE_BYTES = 64 * 1024
const MAX_METADATA_BYTES = 512 * 1024 * 1024
const SIGNATURE = '-----BEGIN PGP SIGNATURE-----'
const VERIFY = 'gapferry-mirror verify'
const GIVES_UP = 'yum says that it cannot retrieve the repository’s metadata, and updates nothing from it'

export async function checkRepositories(sheet: Sheet, client: BoxClient, tree: Tree): Promise<void> {
  for (const id of [...tree.stamps.keys()].sort()) await checkRepository(sheet, client, tree, id)
}

async function checkRepository(sheet: Sheet, client: BoxClient, tree: Tree, id: string): Promise<void> {
  const check = `yum ${id}`
  const folder = `yum/${id}/`
  const fetchFile = async (name: string, maxBytes: number): Promise<Buffer | undefined> => {
    const asked = `GET /${folder}${name}`
    try {
      const { status, body } = await client.get(`/${folder}${name}`, maxBytes)
      if (status === 200) return body
      sheet.found(check, { asked, text: `it is answered ${status}`, effect: GIVES_UP, remedy: VERIFY })
    } catch (error) {
      if (!isGapferryError(error, 'FETCH_FAILED', 'FETCH_TIMEOUT', 'FETCH_TOO_LONG')) throw error
      sheet.found(check, { asked, text: error.message, effect: GIVES_UP, remedy: VERIFY })
    }
    return undefined
  }
  const index = await fetchFile('repodata/repomd.xml', MAX_REPOMD_BYTES)
  const signature = await fetchFile('repodata/repomd.xml.asc', MAX_SIGNATURE_BYTES)
  if (index === undefined || signature === undefined) return
  const signed = tree.entries.get(`${folder}repodata/repomd.xml` as TreePath)?.sha256
  if (sha256Of(index) !== signed || !signature.toString('latin1').startsWith(SIGNATURE)) {
    const text = sha256Of(index) !== signed ? 'it is not the index that was released' : 'there is no signature in it'
    const name = sha256Of(index) !== signed ? 'repomd.xml' : 'repomd.xml.asc'
    const effect = 'yum refuses the repository: its signature does not fit'
    sheet.found(check, { asked: `GET /${folder}repodata/${name}`, text, effect, remedy: VERIFY })
    return
  }
  const files = dataOf(index, check, sheet)
  for (const one of files) {
    const bytes = await fetchFile(one.href, Math.min(MAX_METADATA_BYTES, one.bytes ?? MAX_METADATA_BYTES))
    if (bytes === undefined || fits(bytes, one)) continue
    const effect = 'yum takes it for damaged, asks again, and gives up'
    sheet.found(check, {
      asked: `GET /${folder}${one.href}`,
      text: 'its checksum is another one',
      effect,
      remedy: VERIFY,
    })
  }
  if (!sheet.isClean(check)) return
  sheet.passed(check, `index, signature and ${plural(files.length, 'metadata file')} as they were signed`)
}

function dataOf(index: Buffer, check: string, sheet: Sheet): RepomdData[] {
  try {
    return parseRepomd(index, 'repomd.xml').data
  } catch (error) {
    if (!(error instanceof GapferryError)) throw error
    sheet.found(check, {
      asked: 'repomd.xml',
      text: error.message,
      effect: GIVES_UP,
      remedy: 'pack a new bundle on the laptop',
    })
    return []
  }
}

function fits(bytes: Buffer, { checksum }: RepomdData): boolean {
  return createHash(checksum.algorithm).update(bytes).digest('hex') === checksum.hex
}
