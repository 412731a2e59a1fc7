/**
 * XML as FreePBX's own reader has it in PHP: names in small letters, attributes and comments do not count, text beside
 * elements does not count, text that is empty, blank or `0` is false, repeated elements are a list and a single one is
 * none. Rule: the framework's xml2Array on PHP's expat interface.
 */
import { GapferryError } from './errors.ts'
import { decodeUtf8, endOf, feed, strictParser } from './xml.ts'

/** An element with its place in the text, in UTF-16 units. */
export interface PhpElement {
  /** in small letters, with its prefix */
  name: string
  /** character data directly inside, as PHP has them of an element without elements inside: see textOf */
  text: string
  /** the same in one piece, as every other reader has it */
  joined: string
  children: PhpElement[]
  start: number
  /** where its start tag ends */
  tagEnd: number
  end: number
}

/** What PHP makes of an element. */
export type PhpValue = string | false | PhpValue[] | { [name: string]: PhpValue }

const NO_CHILDREN: PhpElement[] = []

/** The root of a whole document and the text that its places are of, without a byte order mark.
 *  @param what  names the document in messages
 *  @throws XML_INVALID for what is not well-formed UTF-8 XML, holds a document type or more than `maxElements` elements */
export function parsePhpXml(
  bytes: Uint8Array | string,
  what: string,
  maxElements: number,
): { text: string; root: PhpElement } {
  const text = typeof bytes === 'string' ? bytes : decodeUtf8(bytes, what)
  const top: PhpElement = { name: '', text: '', joined: '', children: [], start: 0, tagEnd: 0, end: text.length }
  const open = [top]
  let count = 0
  const parser = strictParser(what, {
    onClose: () => {
      const element = open.pop()!
      element.end = parser.position
      element.text = textOf(text.slice(element.tagEnd, element.end), element)
    },
  })
  parser.on('opentag', ({ name }) => {
    if (++count > maxElements) throw new GapferryError('XML_INVALID', `${what}: more than ${maxElements} elements`)
    const tagEnd = parser.position
    const start = text.lastIndexOf('<', tagEnd - 1)
    const element = { name: lowerCase(name), text: '', joined: '', children: NO_CHILDREN, start, tagEnd, end: tagEnd }
    const parent = open.at(-1)!
    if (parent.children === NO_CHILDREN) parent.children = [element]
    else parent.children.push(element)
    open.push(element)
  })
  const addText = (piece: string): void => {
    open.at(-1)!.joined += piece
  }
  parser.on('text', addText)
  parser.on('cdata', addText)
  refuseWrongEncoding(text, what)
  feed(parser, text, what)
  endOf(parser, what)
  return { text, root: top.children[0]! }
}

/** What FreePBX's reader makes of character data: PHP hands them over in pieces, an entity, a CDATA section and what a
 *  comment separates one by one; it drops those that are false and puts line ends between the others. So `co<!-- -->re` is
 *  two lines and `1<!-- -->0` is 1. (Of text that is not ASCII it makes more pieces; no field that decides anything holds such.)
 *  @param source  from the start tag to the end of the end tag */
function textOf(source: string, { joined, children }: PhpElement): string {
  const inside = source.slice(0, Math.max(source.lastIndexOf('</'), 0))
  if (children.length > 0 || !/[<&\r]/.test(inside)) return joined
  const pieces = [...inside.matchAll(PIECES)].map(([raw, data, entity]) => {
    if (data !== undefined) return data
    if (entity !== undefined) return entityText(entity)
    return raw.startsWith('<') ? '' : raw
  })
  return pieces
    .map((piece) => piece.replace(/^\r\n?/, '\n'))
    .filter((piece) => !isFalse(piece))
    .join('\n')
}

const PIECES = /<!--[^]*?-->|<\?[^]*?\?>|<!\[CDATA\[([^]*?)\]\]>|&([^;]+);|\r?[^<&\r]+|\r/g
const ENTITIES: Record<string, string> = { lt: '<', gt: '>', amp: '&', quot: '"', apos: "'" }

/** Of one that the parser let pass. */
function entityText(name: string): string {
  if (!name.startsWith('#')) return ENTITIES[name] ?? ''
  return String.fromCodePoint(name.startsWith('#x') ? Number.parseInt(name.slice(2), 16) : Number(name.slice(1)))
}

/** PHP believes the declaration, and without a word takes nothing of a document that is not what it declares. */
function refuseWrongEncoding(text: string, what: string): void {
  if (/^\uFEFF?<\?xml[^>]*\bascii\b/i.test(text) && /[^\0-\x7f]/.test(text))
    throw new GapferryError('XML_INVALID', `${what}: is declared as ASCII and is none`)
}

/** The value of an element. */
export function phpValue({ text, children }: PhpElement): PhpValue {
  if (children.length === 0) return isFalse(text) ? false : text
  return Object.fromEntries(
    [...childrenByName(children)].map(([name, same]) => [
      name,
      same.length === 1 ? phpValue(same[0]!) : same.map(phpValue),
    ]),
  )
}

/** The children by name, in the order in which the names come first. */
export function childrenByName(children: readonly PhpElement[]): Map<string, PhpElement[]> {
  const found = new Map<string, PhpElement[]>()
  for (const child of children) {
    const same = found.get(child.name)
    if (same === undefined) found.set(child.name, [child])
    else same.push(child)
  }
  return found
}

/** The text of an element that has one and no elements inside. */
export function phpText(element: PhpElement | undefined): string | undefined {
  if (element === undefined || element.children.length > 0 || isFalse(element.text)) return undefined
  return element.text
}

function isFalse(text: string): boolean {
  return /^[ \t\n\r]*0?[ \t\n\r]*$/.test(text)
}

/** PHP folds ASCII alone. */
function lowerCase(name: string): string {
  return name.replace(/[A-Z]+/g, (letters) => letters.toLowerCase())
}
