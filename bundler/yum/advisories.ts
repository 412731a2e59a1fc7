/** Advisories of a repository, where it has any: what a person reads of an update, and what `--security` cuts to. */
import { isGapferryError } from '../../manifests/errors.ts'
import { dataOfType } from '../../manifests/repomd.ts'
import { UpdateinfoReader, type Advisory } from '../../manifests/updateinfo.ts'
import { decompress } from './decompress.ts'
import { fetchBlob, knownBlob, type YumContext, type YumUpstream } from '../upstream-yum.ts'

/** @returns undefined where the repository has none, or what it has cannot be used: they decide nothing that a box needs
 *  @throws the signal's reason, SPACE_SHORT */
export async function lookAdvisories(
  { id, baseurls, repomd }: Pick<YumUpstream, 'id' | 'baseurls' | 'repomd'>,
  context: YumContext,
): Promise<Advisory[] | undefined> {
  const data = dataOfType(repomd, 'updateinfo')
  if (data === undefined) return undefined
  const what = `updateinfo of ${id}`
  try {
    const url = new URL(data.href, baseurls[0]).href
    const blob = knownBlob(data, context) ?? (await fetchBlob(url, data, what, context))
    const reader = new UpdateinfoReader(what)
    for await (const chunk of decompress(context.store.pathOf(blob), what)) {
      context.signal.throwIfAborted()
      reader.write(chunk)
    }
    return reader.end()
  } catch (error) {
    context.signal.throwIfAborted()
    if (isGapferryError(error) && error.code !== 'SPACE_SHORT') return undefined
    throw error
  }
}
