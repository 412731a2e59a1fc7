/**
 * Configuration of yum and dnf, as each of them reads it: yum 3.4.3 with python 2.7's grammar, dnf with libdnf's.
 */

export interface IniSection {
  name: string
  /** keys in lower case; lines of one value joined by a line end */
  options: Map<string, string>
}

const CONTINUED = /^[ \t]/
const COMMENTS = { yum: /^(?:[#;]|rem[ \t])/i, dnf: /^[#;]/, apt: /^[#;]/ }
const HEADER = /^\[([^\]]+)\]/

/** Sections in their order; one that stands twice in a file is one section, its later options count. Lines that the
 *  manager passes over are passed over.
 *  @param lines  without line ends */
export function parseIni(lines: readonly string[], manager: 'yum' | 'dnf' | 'apt'): IniSection[] {
  const sections = new Map<string, IniSection>()
  let options: Map<string, string> | undefined
  let key: string | undefined
  let value: string[] = []
  const flush = (): void => {
    if (key !== undefined) options!.set(key, value.join('\n').trim())
    key = undefined
  }
  for (const line of lines) {
    const text = line.trim()
    if (text === '' || COMMENTS[manager].test(line)) continue
    const header = HEADER.exec(line)?.[1]
    if (header !== undefined) {
      const section = sections.get(header) ?? { name: header, options: new Map<string, string>() }
      sections.set(header, section)
      flush()
      options = section.options
    } else if (CONTINUED.test(line)) value.push(text)
    else if (options !== undefined) {
      const at = line.search(manager === 'yum' ? /[=:]/ : /=/)
      if (at < 1) continue
      flush()
      key = line.slice(0, at).trim().toLowerCase()
      value = [valueOf(line.slice(at + 1), manager)]
    }
  }
  flush()
  return [...sections.values()]
}

/** True unless the value says no; both managers take the same words. */
export function isOn(value: string | undefined, otherwise: boolean): boolean {
  return value === undefined ? otherwise : !/^(?:0|no|false|off|never)$/i.test(value.trim())
}

/** yum takes what follows a space and a semicolon for a comment; dnf does not. */
function valueOf(text: string, manager: string): string {
  const value = text.trim()
  return manager === 'yum' ? value.replace(/[ \t];.*$/, '').trim() : value
}
