import { makeTgz } from './module-archive.ts'
import { escapeXml } from './module-list.ts'

/** A package of prompts as the vendor has it. */
export interface SoundSpec {
  /** default core */
  module?: string
  /** default en */
  language?: string
  /** default ulaw */
  format?: string
  version: string
  /** default asterisk */
  type?: string
}

/** What names a package: its fields with the defaults put in. */
export function soundOf(spec: SoundSpec): Required<SoundSpec> {
  return { type: 'asterisk', module: 'core', language: 'en', format: 'ulaw', ...spec }
}

/** The list of sound packages of a major. */
export function soundsXml(packages: readonly SoundSpec[]): string {
  const all = packages.map(soundOf).map((one) => {
    const fields = { ...one, license: 'CC BY-SA 3.0', author: 'Example & Sons', authorlink: 'https://vendor.invalid/' }
    const lines = Object.entries(fields).map(([name, text]) => `      <${name}>${escapeXml(text)}</${name}>\n`)
    return `    <package>\n${lines.join('')}    </package>\n`
  })
  return `<?xml version="1.0"?>\n<xml>\n  <sounds>\n${all.join('')}  </sounds>\n</xml>\n`
}

/** Every file of these packages: path on the server → bytes. */
export function soundFiles(packages: readonly SoundSpec[]): Map<string, Buffer> {
  const all = packages.map(soundOf).flatMap((one): [string, Buffer][] => {
    const stem = `${one.type}-${one.module}-${one.language}`
    const list = `; prompts\nhello: Hello.\nbye: Good bye.\n`
    const archive = makeTgz({
      [`${one.module}-${one.language}.txt`]: list,
      [`hello.${one.format}`]: `hello ${one.format} ${one.version}`,
      [`bye.${one.format}`]: `bye ${one.format} ${one.version}`,
    })
    return [
      [`/sounds/${stem}-license.txt`, Buffer.from(`License of ${stem}\nfree to use\n`)],
      [`/sounds/${stem}-${one.format}-${one.version}.tar.gz`, archive],
    ]
  })
  return new Map(all)
}
