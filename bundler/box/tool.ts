/**
 * `gapferry-box` as it goes to the boxes: one POSIX sh file, joined from the parts in this folder. Python parts are in it as
 * here-documents, each printed by a function `python_<name>`.
 */
import { readFileSync } from 'node:fs'
import { wordlist } from '@scure/bip39/wordlists/english.js'
import { sha256Of, type Sha256 } from '../../manifests/digest.ts'
import { fingerprintWords } from '../../manifests/words.ts'

/** In their order: `head.sh` says what the file is, the functions behind it may stand in any. */
const SHELL_PARTS = [
  'head',
  'inventory',
  'packages',
  'parity',
  'freepbx',
  'readiness',
  'tools',
  'words',
  'changes',
  'setup',
  'repositories',
  'names',
  'keep',
  'apply',
  'web',
  'license',
]
const PYTHON_PARTS: Record<string, string> = {
  choose: './choose.py',
  probe: './probe.py',
  verify: '../verify.py',
  apply: './apply.py',
  records: './records.py',
  upgrades: './upgrades.py',
  whole: './whole.py',
  mirror: './mirror.py',
  enrol: './enrol.py',
  here: './here.py',
  capture: './capture.py',
  afterwards: './afterwards.py',
  license: './license.py',
}
/** Where a part names it, it has the words of fingerprints. */
const WORDS = '@words@'

/** Below an origin. */
export const BOX_TOOL_PATH = 'gapferry/gapferry-box'
/** On a stick, and where a person wants it. */
export const BOX_TOOL_NAME = 'gapferry-box'

/** What people compare who were given the tool. */
export interface ToolDigests {
  sha256: Sha256
  /** twelve words */
  words: string
}

export function boxToolDigests(): ToolDigests {
  const tool = boxTool()
  return { sha256: sha256Of(tool), words: fingerprintWords(tool) }
}

/** Equal on every call. */
export function boxTool(): Buffer {
  const shell = SHELL_PARTS.map((name) => read(`./${name}.sh`))
  const python = Object.entries(PYTHON_PARTS).map(([name, file]) => hereDocument(name, read(file)))
  return Buffer.from([...shell, ...python, 'main "$@"\n'].join('\n'))
}

function hereDocument(name: string, text: string): string {
  return `python_${name}() {\n  cat <<'PYTHON'\n${text}PYTHON\n}\n`
}

function read(name: string): string {
  return readFileSync(new URL(name, import.meta.url), 'utf8').replace(WORDS, () => wordlist.join(' '))
}
