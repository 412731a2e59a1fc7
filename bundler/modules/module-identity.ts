/** Which module a module.xml says it is. Its other elements are passed over: a tree of them may take 60 MB. */
import { decodeUtf8, endOf, feed, strictParser } from '../../manifests/xml.ts'
import { badArchive, shown } from './tar-header.ts'

/** The texts of `<rawname>` and `<version>` directly below `<module>`, without the space around them.
 *  @param what  names the module in messages
 *  @throws MODULE_ARCHIVE for what is no such document, or says one of them twice */
export function readIdentity(moduleXml: Buffer, what: string): { rawname: string; version: string } {
  const found: Record<string, string[]> = { rawname: [], version: [] }
  let texts: string[] | undefined
  let root: string | undefined
  const onOpen = (name: string, depth: number): void => {
    root ??= name
    texts = depth === 2 && Object.hasOwn(found, name) ? found[name] : undefined
    texts?.push('')
  }
  const parser = strictParser(`module.xml of ${what}`, { onOpen, onClose: () => (texts = undefined) })
  const addText = (text: string): void => {
    if (texts !== undefined) texts[texts.length - 1] += text
  }
  parser.on('text', addText)
  parser.on('cdata', addText)
  try {
    feed(parser, decodeUtf8(moduleXml, `module.xml of ${what}`), `module.xml of ${what}`)
    endOf(parser, `module.xml of ${what}`)
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause)
    throw badArchive(what, `its module.xml cannot be read: ${why}`, cause)
  }
  if (root !== 'module') throw badArchive(what, `expected <module> in its module.xml, found ${shown(root ?? '')}`)
  const only = (name: string): string => {
    const [text, second] = found[name]!
    if (text === undefined || second !== undefined) throw badArchive(what, `expected one <${name}> in its module.xml`)
    return text.trim()
  }
  return { rawname: only('rawname'), version: only('version') }
}
