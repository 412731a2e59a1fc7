/**
 * Keys that never leave a token, through `pkcs11-tool` (OpenSC) as a child process: no native code of ours, and a module
 * that crashes or hangs takes nothing with it. The PIN goes through the child's environment, never its arguments, which
 * every user of the machine can read.
 *
 * The digest is made here and signed with CKM_ECDSA: not every token knows ECDSA-SHA256 (SoftHSM does not), and plain
 * CKM_ECDSA takes the first bytes of a longer input for the digest without a word. Each signature is checked before it is
 * used.
 */
import { spawnSync } from 'node:child_process'
import { createHash, createPublicKey, verify, type KeyObject } from 'node:crypto'
import { GapferryError } from '../../manifests/errors.ts'
import { systemCode } from '../../storage/durable.ts'
import { TOKEN_KEY_ID, type TokenPlace } from './keyfile.ts'

/** The tool, and how long it may take for one step: tokens that ask for a touch need a person's time. */
export interface TokenTool {
  command: string
  timeoutMs: number
  /** what the tool may know of our environment */
  environment: Record<string, string | undefined>
}

const TIMEOUT_MS = 30_000
const MAX_OUTPUT_BYTES = 65_536
const PIN_VARIABLE = 'GAPFERRY_TOKEN_PIN'
const SHOWN_CHARS = 200
/** Where modules look for their settings and their daemons; nothing else of ours is the tool's business. */
const PASSED_ON =
  /^(?:PATH|HOME|TMPDIR|LANG|LC_ALL|SOFTHSM2_CONF|OPENSC_CONF|OPENSC_DRIVER|PCSCLITE_CSOCK_NAME|P11_KIT_.*|[A-Z]+HSM_.*|YKCS11_.*)$/

/** @param environment  GAPFERRY_PKCS11_TOOL names another tool of the same manners */
export function tokenTool(environment: Record<string, string | undefined>, timeoutMs = TIMEOUT_MS): TokenTool {
  return { command: environment['GAPFERRY_PKCS11_TOOL'] ?? 'pkcs11-tool', timeoutMs, environment }
}

/** What a person gave for a place. @throws USAGE_INVALID for an id that is not hexadecimal */
export function parseTokenPlace(module: string, token: string, id: string): TokenPlace {
  const lower = id.toLowerCase()
  if (TOKEN_KEY_ID.test(lower)) return { module, token, id: lower }
  throw new GapferryError('USAGE_INVALID', `--key-id "${id}": expected the key's id in hexadecimal, as in 01`, {
    hint: `pkcs11-tool --module ${module} --token-label "${token}" --list-objects --login`,
  })
}

/** The public half of a key in a token, PEM; needs no PIN.
 *  @throws TOKEN_FAILED, TOKEN_TIMEOUT; KEY_INVALID unless it is ECDSA on P-256 */
export function readTokenKey(tool: TokenTool, place: TokenPlace): string {
  const der = runTool(tool, place, ['--read-object', '--type', 'pubkey'])
  let key: KeyObject
  try {
    key = createPublicKey({ key: der, format: 'der', type: 'spki' })
  } catch (cause) {
    throw new GapferryError('KEY_INVALID', `${nameOf(place)}: what the tool gives is not a public key`, { cause })
  }
  if (key.asymmetricKeyType === 'ec' && key.asymmetricKeyDetails?.namedCurve === 'prime256v1') {
    return key.export({ type: 'spki', format: 'pem' }).toString()
  }
  throw otherKind(place)
}

/** An ECDSA P-256 signature over the SHA-256 of `bytes`, DER.
 *  @throws TOKEN_PIN_WRONG, TOKEN_FAILED, TOKEN_TIMEOUT; KEY_INVALID when the token holds another key than `publicPem` */
export function signWithToken(
  tool: TokenTool,
  place: TokenPlace & { publicPem: string; pin: string },
  bytes: Uint8Array,
): Buffer {
  const digest = createHash('sha256').update(bytes).digest()
  const what = ['--login', '--pin', `env:${PIN_VARIABLE}`, '--sign', '--mechanism', 'ECDSA']
  const signature = runTool(tool, place, [...what, '--signature-format', 'openssl'], { pin: place.pin, input: digest })
  if (verify('sha256', bytes, place.publicPem, signature)) return signature
  throw new GapferryError(
    'KEY_INVALID',
    `${nameOf(place)}: its signature does not belong to the public key that was noted: the token holds another key`,
    { hint: 'gapferry keys list' },
  )
}

function runTool(
  { command, timeoutMs, environment }: TokenTool,
  place: TokenPlace,
  args: string[],
  { pin, input }: { pin?: string; input?: Uint8Array } = {},
): Buffer {
  const passed = Object.fromEntries(Object.entries(environment).filter(([name]) => PASSED_ON.test(name)))
  const { stdout, stderr, status, error } = spawnSync(
    command,
    ['--module', place.module, '--token-label', place.token, '--id', place.id, ...args],
    {
      env: { ...passed, ...(pin === undefined ? {} : { [PIN_VARIABLE]: pin }) },
      stdio: ['pipe', 'pipe', 'pipe'],
      input: input ?? Buffer.alloc(0),
      timeout: timeoutMs,
      killSignal: 'SIGKILL',
      maxBuffer: MAX_OUTPUT_BYTES,
    },
  )
  if (systemCode(error) === 'ETIMEDOUT') throw timedOut(command, place, timeoutMs)
  if (systemCode(error) === 'ENOENT' || systemCode(error) === 'EACCES') throw noTool(command, place, error)
  // A tool that was satisfied with less than all of its input has said why on its standard error.
  if (error !== undefined && systemCode(error) !== 'EPIPE') throw failed(place, String(error))
  if (status === 0 && stdout.length > 0) return stdout
  throw explained(place, stderr.toString('utf8'), status)
}

/** What the tool says, as far as a person can act on it. Its words: OpenSC's pkcs11-tool and PKCS#11's return values. */
function explained(place: TokenPlace, said: string, status: number | null): GapferryError {
  if (/CKR_PIN_(?:INCORRECT|INVALID|LEN_RANGE)/.test(said)) {
    return new GapferryError('TOKEN_PIN_WRONG', `${nameOf(place)}: the token refuses the PIN`, {
      hint: 'tokens lock after a few wrong PINs: look at it before you try again: pkcs11-tool --list-token-slots',
    })
  }
  if (/CKR_PIN_LOCKED/.test(said)) {
    return new GapferryError('TOKEN_PIN_WRONG', `${nameOf(place)}: the token has locked its PIN`, {
      hint: 'unlock it with the PUK or SO PIN: pkcs11-tool --login --login-type so --init-pin',
    })
  }
  if (/cannot create EVP_PKEY/.test(said)) return otherKind(place)
  const slots = `pkcs11-tool --module ${place.module} --list-token-slots`
  if (/No slot with (?:a )?token/i.test(said))
    return failed(place, `there is no token "${place.token}"`, `plug it in; ${slots}`)
  if (/Failed to load pkcs11 module|sc_dlopen/.test(said)) {
    return failed(
      place,
      `the module ${place.module} cannot be loaded`,
      'give the token vendor’s library: --pkcs11 FILE.so',
    )
  }
  if (/(?:object|key) not found/i.test(said)) {
    return failed(place, `the token has no key ${place.id}`, `make one: ${keygenLine(place)}`)
  }
  const lines = said.split('\n').filter((line) => line !== '' && !/^Using s|^Aborting/.test(line))
  return failed(place, lines.join(' ').slice(0, SHOWN_CHARS) || `the tool ended with ${status} and said nothing`, slots)
}

function failed(place: TokenPlace, why: string, hint = 'pkcs11-tool --list-token-slots'): GapferryError {
  return new GapferryError('TOKEN_FAILED', `${nameOf(place)}: ${why}`, { hint })
}

function otherKind(place: TokenPlace): GapferryError {
  return new GapferryError('KEY_INVALID', `${nameOf(place)}: expected an ECDSA key on P-256, found another`, {
    hint: `make one: ${keygenLine(place)}`,
  })
}

function noTool(command: string, place: TokenPlace, cause: unknown): GapferryError {
  return new GapferryError('TOKEN_FAILED', `${nameOf(place)}: the tool ${command} is not there`, {
    hint: 'apt install opensc, or name the tool: GAPFERRY_PKCS11_TOOL',
    cause,
  })
}

function timedOut(command: string, place: TokenPlace, timeoutMs: number): GapferryError {
  const message = `${nameOf(place)}: ${command} gave no answer for ${timeoutMs / 1000} seconds and was ended`
  return new GapferryError('TOKEN_TIMEOUT', message, {
    hint: 'plug the token in anew, then run the same command again',
  })
}

function keygenLine({ module, token, id }: TokenPlace): string {
  return `pkcs11-tool --module ${module} --token-label "${token}" --login --keypairgen --key-type EC:prime256v1 --id ${id}`
}

function nameOf({ token, id }: TokenPlace): string {
  return `key ${id} of token "${token}"`
}
