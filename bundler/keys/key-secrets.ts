/**
 * Where passphrases and PINs come from: a file descriptor, the environment, a prompt. Asked when a key is opened, each once.
 */
import type { Surroundings } from '../../manifests/program.ts'
import { passphraseFrom, readNewPassphrase, readPassphrase, type PassphraseSources } from '../../storage/passphrase.ts'
import { tokenTool } from './pkcs11.ts'
import type { KeySecrets } from './signing-key.ts'

/** As options of commands: numbers of open file descriptors. */
export interface SecretOptions {
  passphraseFd?: string
  /** for root keys: one for each, in order */
  rootPassphraseFd?: string[]
  pinFd?: string
}

type Around = Pick<Surroundings, 'environment' | 'stdin' | 'stderr'>

/** For the keys of a site, which have one passphrase. */
export function siteSecrets(around: Around, options: SecretOptions, site: string): KeySecrets {
  const main = once(() =>
    readPassphrase(passphraseSources(around, options.passphraseFd), `passphrase of the keys of ${site}`),
  )
  return { passphrase: main, ...tokenSecrets(around, options) }
}

/** For root keys, each with a passphrase of its own.
 *  @param main  what opens the site's other keys: tried where a script gives no other */
export function rootSecrets(around: Around, options: SecretOptions, main: KeySecrets): KeySecrets {
  const source = rootPassphrases(around, options)
  const answers = new Map<string, Promise<string>>()
  const ask = (question: string): Promise<string> => {
    const sources = source(() => isScripted(around, options))
    return sources === undefined ? main.passphrase(question) : readPassphrase(sources, question)
  }
  return {
    passphrase: (question) => {
      const answer = answers.get(question) ?? ask(question)
      answers.set(question, answer)
      return answer
    },
    pin: (question) => main.pin(question),
    tool: main.tool,
  }
}

/** The passphrase of a root key that is made now.
 *  @param main  the one of the site's other keys, for a script that gives no other */
export function newRootPassphrases(
  around: Around,
  options: SecretOptions,
  main: () => Promise<string>,
): (i: number, where: string | undefined) => Promise<string> {
  const source = rootPassphrases(around, options)
  return (i, where) => {
    const sources = source(() => isScripted(around, options))
    const question = `new passphrase for root key ${i}${where === undefined ? '' : ` (${where})`}`
    return sources === undefined ? main() : readNewPassphrase(sources, question)
  }
}

/** @throws USAGE_INVALID for a file descriptor that is none */
export function passphraseSources(around: Around, fd: string | undefined): PassphraseSources {
  return passphraseFrom(around, fd, 'GAPFERRY_PASSPHRASE', '--passphrase-fd')
}

/** Runs once, however often it is called. */
function once<T>(work: () => Promise<T>): () => Promise<T> {
  let running: Promise<T> | undefined
  return () => (running ??= work())
}

function tokenSecrets(around: Around, { pinFd }: SecretOptions): Pick<KeySecrets, 'pin' | 'tool'> {
  const answers = new Map<string, Promise<string>>()
  const sources = passphraseFrom(around, pinFd, 'GAPFERRY_PIN', '--pin-fd')
  const ask = once(() => readPassphrase(sources, ''))
  return {
    pin: (question) => {
      const isScript = sources.fd !== undefined || sources.environment !== undefined
      const answer = answers.get(question) ?? (isScript ? ask() : readPassphrase(sources, question))
      answers.set(question, answer)
      return answer
    },
    tool: tokenTool(around.environment),
  }
}

/** The source of the next root key's passphrase; undefined: the site's own. */
function rootPassphrases(
  around: Around,
  { rootPassphraseFd = [] }: SecretOptions,
): (isScripted: () => boolean) => PassphraseSources | undefined {
  const left = [...rootPassphraseFd]
  return (isScriptedNow) => {
    const sources = passphraseFrom(around, left.shift(), 'GAPFERRY_ROOT_PASSPHRASE', '--root-passphrase-fd')
    const hasOwn = sources.fd !== undefined || sources.environment !== undefined
    return !hasOwn && isScriptedNow() ? undefined : sources
  }
}

/** The site's passphrase comes from a script, so nobody need be asked. */
function isScripted(around: Around, { passphraseFd }: SecretOptions): boolean {
  return passphraseFd !== undefined || around.environment['GAPFERRY_PASSPHRASE'] !== undefined
}
