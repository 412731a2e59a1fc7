/**
 * `gapferry-box` as it goes to the boxes: one POSIX sh file, joined from the parts in this folder. Python parts are in it as
 * here-documents, each printed by a function `python_<name>`.
 */
import { readFileSync } from 'node:fs'
import { wordlist } from '@scure/bip39/wordlists/english.js'

/** In their order: `head.sh` says what the file is, the functions behind it may stand in any. */
const SHELL_PARTS = 'head inventory packages parity freepbx readiness tools changes apply web license'.split(' ')
const PYTHON_PARTS: Record<string, string> = {
  choose: './choose.py',
  probe: './probe.py',
  verify: '../verify.py',
  apply: './apply.py',
  records: './records.py',
  upgrades: './upgrades.py',
  whole: './whole.py',
  mirror: './mirror.py',
  license: './license.py',
}
/** Where a python part names it, it has the words of fingerprints. */
const WORDS = '@words@'

/** Equal on every call. */
export function boxTool(): Buffer {
  const shell = SHELL_PARTS.map((name) => read(`./${name}.sh`))
  const python = Object.entries(PYTHON_PARTS).map(([name, file]) => hereDocument(name, read(file)))
  return Buffer.from([...shell, ...python, 'main "$@"\n'].join('\n'))
}

function hereDocument(name: string, text: string): string {
  const filled = text.replace(WORDS, () => wordlist.join(' '))
  return `python_${name}() {\n  cat <<'PYTHON'\n${filled}PYTHON\n}\n`
}

function read(name: string): string {
  return readFileSync(new URL(name, import.meta.url), 'utf8')
}
