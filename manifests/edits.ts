/** A text with pieces replaced, everything else letter by letter as it was. */

/** `text` instead of what stands between `start` and `end`, in UTF-16 units. */
export interface Edit {
  start: number
  end: number
  text: string
}

/** Of an element in its text, in UTF-16 units. */
export interface Place {
  start: number
  /** where its start tag ends */
  tagEnd: number
  end: number
}

/** Takes out what stands from `start` to `end`, and the white space before it. */
export function cutOut(source: string, { start, end }: { start: number; end: number }): Edit {
  let from = start
  while (from > 0 && ' \t\r\n'.includes(source[from - 1]!)) from--
  return { start: from, end, text: '' }
}

/** Puts `text` before the end tag of `element`, which may also be a start tag that is its own end. */
export function insideEnd(source: string, element: Place, text: string): Edit {
  const endTag = source.lastIndexOf('</', element.end - 1)
  if (element.tagEnd < element.end) return { start: endTag, end: endTag, text }
  const startTag = source.slice(element.start, element.end)
  const name = /^<([^\s/>]+)/.exec(startTag)![1]!
  return { start: element.end - 2, end: element.end, text: `>${text}</${name}>` }
}

/** @param edits  of places that do not overlap; of several at one place the first comes first */
export function applyEdits(source: string, edits: readonly Edit[]): string {
  const sorted = [...edits].sort((a, b) => a.start - b.start || a.end - b.end)
  const pieces: string[] = []
  let at = 0
  for (const { start, end, text } of sorted) {
    if (start < at) throw new Error('edits overlap')
    pieces.push(source.slice(at, start), text)
    at = end
  }
  return pieces.join('') + source.slice(at)
}
