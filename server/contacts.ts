/**
 * Notes which boxes ask for modules, out of the requests they make anyway. What a client sends is foreign: only short texts
 * of plain characters are taken over, a deployment ID only as an HMAC, and nothing of a body ever goes to the log. Noting
 * never costs an answer: it comes after it, in batches, within a budget of bytes read and of strangers taken in, and where it
 * cannot be written the mirror serves on.
 */
import type { Logger } from 'pino'
import type { Sha256 } from '../manifests/digest.ts'
import { isGapferryError } from '../manifests/errors.ts'
import { formText, parsePhpForm, type PhpForm } from '../manifests/php-form.ts'
import { MAX_MODULES, type Contact, type ContactStore, type Oddity } from '../storage/contacts.ts'
import { moduleRole, repoOddity } from './module-answers.ts'
import { errorFields } from './send.ts'

/** A request with a form, and its answer. */
export interface SeenRequest {
  group: string
  /** as on the request line */
  target: string
  form: Buffer
  address: string
  /** of the answer */
  status: number
}

const FLUSH_MS = 5000
/** Per FLUSH_MS: what 800 boxes send. Reading that much took 0.12 s, of the worst forms 0.2 s. */
const MAX_READ_BYTES = 8 * 1024 * 1024
/** Per FLUSH_MS, of boxes that are not known yet; the next time a box asks it is another chance. */
const MAX_STRANGERS = 64
const MAX_STRANGERS_PER_ADDRESS = 16
const MAX_PENDING = 300
/** A UUID, in whatever spelling. */
const INSTALLID = /^[0-9a-f-]{16,64}$/i
const RAWNAME = /^[A-Za-z0-9_-]{1,64}$/
const VERSION = /^[A-Za-z0-9._+~:-]{1,32}$/
const BRAND = /^[A-Za-z0-9 ._-]{1,64}$/
const MAX_DEPLOYMENT_BYTES = 256
/** of the names and versions of a box's modules; 150 modules take 4 kB */
const MAX_MODULE_BYTES = 32 * 1024
const NOT_INSTALLED = '0'

/** What a deployment ID is kept as; null: not at all. */
export type DeploymentOf = (id: string) => Sha256 | null

export class Contacts {
  readonly #open: (isDamaged: boolean) => ContactStore
  readonly #clock: () => number
  readonly #log: Logger
  readonly #deploymentOf: DeploymentOf
  readonly #timer: NodeJS.Timeout
  #store: ContactStore | undefined
  #known = new Set<string>()
  #pending = new Map<string, Contact>()
  #strangers = new Map<string, number>()
  #bytesRead = 0
  /** code of the failure that the log knows of already */
  #failure: string | undefined

  /** Opens the store at once, so that the log says at the start what is wrong with it.
   *  @param args.open   called again after a failure; `isDamaged`: what is there cannot be written any more
   *  @param args.clock  milliseconds since 1970 */
  constructor(args: {
    open: (isDamaged: boolean) => ContactStore
    clock: () => number
    log: Logger
    deploymentOf: DeploymentOf
  }) {
    this.#open = args.open
    this.#clock = args.clock
    this.#log = args.log
    this.#deploymentOf = args.deploymentOf
    this.#try(() => this.#opened())
    this.#timer = setInterval(() => this.flush(), FLUSH_MS).unref()
  }

  /** Never throws, never touches the disk. */
  note(seen: SeenRequest): void {
    if (this.#bytesRead + seen.form.length > MAX_READ_BYTES) return
    this.#bytesRead += seen.form.length
    const contact = contactOf(seen, this.#clock(), this.#deploymentOf)
    if (contact === undefined) return
    const key = `${contact.group} ${contact.installid}`
    const before = this.#pending.get(key)
    if (before !== undefined) this.#pending.set(key, merged(before, contact))
    else if (this.#isWelcome(key, contact.address)) this.#pending.set(key, contact)
  }

  /** Writes what was noted. Never throws. */
  flush(): void {
    this.#bytesRead = 0
    this.#strangers = new Map()
    if (this.#pending.size === 0) return
    const isWritten = this.#try(() => {
      this.#opened().write([...this.#pending.values()])
      this.#known = new Set(this.#opened().keys())
    })
    if (isWritten) this.#pending = new Map()
  }

  /** Writes what was noted and lets go of the file. */
  close(): void {
    clearInterval(this.#timer)
    this.flush()
    this.#store?.close()
    this.#store = undefined
  }

  #opened(): ContactStore {
    if (this.#store === undefined) {
      this.#store = this.#open(this.#failure === 'STORE_DAMAGED')
      this.#known = new Set(this.#store.keys())
    }
    return this.#store
  }

  /** A client that invents boxes takes no place from those that are known, and few from other addresses. */
  #isWelcome(key: string, address: string): boolean {
    if (this.#pending.size >= MAX_PENDING) return false
    if (this.#known.has(key)) return true
    const [all, fromThere] = [this.#strangers.get('') ?? 0, this.#strangers.get(address) ?? 0]
    if (all >= MAX_STRANGERS || fromThere >= MAX_STRANGERS_PER_ADDRESS) return false
    this.#strangers.set('', all + 1).set(address, fromThere + 1)
    return true
  }

  /** The log hears of a failure once, and again when it is another one. */
  #try(work: () => void): boolean {
    try {
      work()
      this.#failure = undefined
      return true
    } catch (error) {
      const code = isGapferryError(error) ? error.code : 'INTERNAL'
      if (code !== this.#failure) this.#log.warn(errorFields(error), 'which boxes ask cannot be noted; serving goes on')
      this.#failure = code
      if (code !== 'STORE_BUSY') this.#letGo()
      return false
    }
  }

  #letGo(): void {
    try {
      this.#store?.close()
    } finally {
      this.#store = undefined
    }
  }
}

/** @returns undefined where the request does not say which box it is from */
export function contactOf(
  { group, target, form: body, address, status }: SeenRequest,
  atMs: number,
  deploymentOf: DeploymentOf,
): Contact | undefined {
  const form = parsePhpForm(body)
  const installid = formText(form, 'installid') ?? ''
  if (!INSTALLID.test(installid)) return undefined
  return {
    group,
    atMs,
    address: address.replace(/^::ffff:(?=\d+\.)/, ''),
    installid: installid.toLowerCase(),
    deployment: deploymentIn(form, deploymentOf),
    framework: plain(form, 'pbxver', VERSION),
    phpver: plain(form, 'phpver', VERSION),
    brand: plain(form, 'brandid', BRAND),
    modules: modulesOf(form),
    oddities: odditiesOf(target, status),
  }
}

function odditiesOf(target: string, status: number): Oddity[] {
  const oddity = repoOddity(target) ?? (moduleRole(target) === 'list' && status === 404 ? 'list' : undefined)
  return oddity === undefined ? [] : [oddity]
}

function deploymentIn(form: PhpForm, deploymentOf: DeploymentOf): Sha256 | null {
  const id = formText(form, 'deploymentid')?.trim() ?? ''
  return id === '' || id === '0' || id.length > MAX_DEPLOYMENT_BYTES ? null : deploymentOf(id)
}

function plain(form: PhpForm, field: string, allowed: RegExp): string | null {
  const text = formText(form, field)?.trim() ?? ''
  return allowed.test(text) ? text : null
}

function modulesOf(form: PhpForm): Map<string, string> | null {
  const given = form.get('modules')
  if (typeof given !== 'object') return null
  const modules = new Map<string, string>()
  let bytes = 0
  for (const [rawname, fields] of given) {
    const version = typeof fields === 'string' ? '' : (formText(fields, 'version') ?? '')
    if (!RAWNAME.test(rawname) || !VERSION.test(version)) continue
    if (typeof fields !== 'string' && formText(fields, 'status') === NOT_INSTALLED) continue
    bytes += rawname.length + version.length
    if (modules.size >= MAX_MODULES || bytes > MAX_MODULE_BYTES) break
    modules.set(rawname, version)
  }
  return modules
}

/** Two requests of one box in one batch. */
function merged(before: Contact, after: Contact): Contact {
  return {
    ...after,
    deployment: after.deployment ?? before.deployment,
    framework: after.framework ?? before.framework,
    phpver: after.phpver ?? before.phpver,
    brand: after.brand ?? before.brand,
    modules: after.modules ?? before.modules,
    oddities: [...new Set([...before.oddities, ...after.oddities])],
  }
}
