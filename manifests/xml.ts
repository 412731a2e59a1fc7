/**
 * XML as upstreams send it: strict, no document types (so no entities but the five), and with limits on everything that
 * a hostile document could blow up.
 */
import { SaxesParser } from 'saxes'
import { GapferryError } from './errors.ts'

/** An element. Names are without their namespace prefix; attribute names are as written. */
export interface XmlElement {
  name: string
  attributes: Map<string, string>
  children: XmlElement[]
  /** character data directly inside, joined */
  text: string
  /** where its start tag begins and ends in the text that was parsed, in UTF-16 units */
  start: number
  tagEnd: number
}

export type XmlParser = SaxesParser<{ xmlns: false }>

const MAX_DEPTH = 64
const MAX_NODES = 300_000
const MAX_ATTRIBUTES = 64
const MAX_ATTRIBUTE_LENGTH = 65_536
const ENCODINGS = /^(?:utf-?8|us-ascii)$/i

/** The root element of a whole document, or of one element cut out of a document.
 *  @param text  bytes are taken as UTF-8; the caller bounds their number
 *  @param what  names the document in messages
 *  @throws XML_INVALID for what is not well-formed UTF-8 XML, holds a document type, or exceeds a limit */
export function parseXml(text: Uint8Array | string, what: string): XmlElement {
  const source = typeof text === 'string' ? text : decodeUtf8(text, what)
  const top: XmlElement = { name: '', attributes: NO_ATTRIBUTES, children: [], text: '', start: 0, tagEnd: 0 }
  const open = [top]
  let nodes = 0
  const parser = strictParser(what, { onClose: () => open.pop() })
  parser.on('opentag', (tag) => {
    if (++nodes > MAX_NODES) throw invalid(what, `more than ${MAX_NODES} elements`)
    const tagEnd = parser.position
    const element: XmlElement = {
      name: localName(tag.name),
      attributes: attributesOf(tag.attributes),
      children: NO_CHILDREN,
      text: '',
      start: source.lastIndexOf('<', tagEnd - 1),
      tagEnd,
    }
    const parent = open.at(-1)!
    if (parent.children === NO_CHILDREN) parent.children = [element]
    else parent.children.push(element)
    open.push(element)
  })
  const addText = (piece: string): void => {
    open.at(-1)!.text += piece
  }
  parser.on('text', addText)
  parser.on('cdata', addText)
  feed(parser, source, what)
  endOf(parser, what)
  return top.children[0]!
}

export interface TagHandlers {
  /** after the name of a start tag; `depth` is 1 for the root */
  onOpen?: (name: string, depth: number) => void
  /** after an end tag, and after a start tag that is one too */
  onClose?: (name: string, depth: number) => void
}

/** A parser that refuses document types, deep nesting and heaps of attributes; for `feed` and `endOf`. */
export function strictParser(what: string, handlers: TagHandlers = {}): XmlParser {
  const parser: XmlParser = new SaxesParser({ xmlns: false, defaultXMLVersion: '1.0', forceXMLVersion: true })
  let depth = 0
  let attributes = 0
  parser.on('opentagstart', ({ name }) => {
    attributes = 0
    if (++depth > MAX_DEPTH) throw invalid(what, `elements are nested deeper than ${MAX_DEPTH}`)
    handlers.onOpen?.(name, depth)
  })
  parser.on('closetag', ({ name }) => handlers.onClose?.(name, depth--))
  parser.on('attribute', ({ value }) => {
    if (++attributes > MAX_ATTRIBUTES) throw invalid(what, `an element has more than ${MAX_ATTRIBUTES} attributes`)
    if (value.length > MAX_ATTRIBUTE_LENGTH) throw invalid(what, 'an attribute is too long')
  })
  parser.on('doctype', () => {
    throw invalid(what, 'holds a document type')
  })
  parser.on('xmldecl', ({ encoding }) => {
    if (encoding !== undefined && !ENCODINGS.test(encoding)) throw invalid(what, `encoding ${encoding}, expected UTF-8`)
  })
  return parser
}

/** Feeds `text`. @throws XML_INVALID where it breaks a rule, and what the handlers throw */
export function feed(parser: XmlParser, text: string, what: string): void {
  try {
    parser.write(text)
  } catch (error) {
    throw error instanceof GapferryError ? error : notWellFormed(error, what)
  }
}

/** @throws XML_INVALID when the document is not complete */
export function endOf(parser: XmlParser, what: string): void {
  try {
    parser.close()
  } catch (error) {
    throw error instanceof GapferryError ? error : notWellFormed(error, what)
  }
}

/** The children of `element` with this local name. */
export function childrenNamed(element: XmlElement, name: string): XmlElement[] {
  return element.children.filter((child) => child.name === name)
}

/** `text` as character data or as the value of an attribute in double quotes. */
export function escapeXml(text: string): string {
  return text.replace(/[&<>"]/g, (c) => ESCAPES[c]!)
}

/** `bytes` as text. @throws XML_INVALID when they are not UTF-8 */
export function decodeUtf8(bytes: Uint8Array, what: string): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: false }).decode(bytes)
  } catch (cause) {
    throw new GapferryError('XML_INVALID', `${what}: is not UTF-8`, { cause })
  }
}

// Most elements have neither; empty maps and lists take most of the memory.
const NO_ATTRIBUTES: XmlElement['attributes'] = new Map()
const NO_CHILDREN: XmlElement[] = []

function attributesOf(attributes: Record<string, string>): Map<string, string> {
  const entries = Object.entries(attributes)
  return entries.length === 0 ? NO_ATTRIBUTES : new Map(entries)
}

const ESCAPES: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' }

function localName(name: string): string {
  return name.slice(name.indexOf(':') + 1)
}

function notWellFormed(error: unknown, what: string): GapferryError {
  const why = error instanceof Error ? error.message : String(error)
  return new GapferryError('XML_INVALID', `${what}: is not well-formed XML (${why.slice(0, 200)})`, { cause: error })
}

function invalid(what: string, why: string): GapferryError {
  return new GapferryError('XML_INVALID', `${what}: ${why}`)
}
