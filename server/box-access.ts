/**
 * What boxes may do at their listener: get a certificate for a code, fetch their own license, say what they have. Knows nothing
 * of HTTP. Whatever is refused is `undefined`: why, stands in the audit trail and the log of this mirror, never in an answer.
 * What this file keeps: a license leaves only for the box whose certificate counts at the moment of the row in the audit
 * trail, and only for the one deployment that this certificate is bound to. FORMAT.md#enrolment.
 */
import { randomBytes } from 'node:crypto'
import type { Logger } from 'pino'
import * as v from 'valibot'
import { sha256Of, type Sha256 } from '../manifests/digest.ts'
import { GapferryError, isGapferryError } from '../manifests/errors.ts'
import { DeploymentId } from '../manifests/license.ts'
import type { AuditWhat } from '../storage/audit.ts'
import { appendRow, type Actor } from '../storage/audited.ts'
import type { EnrolledBox } from '../storage/enrolments.ts'
import { audited, storeOf } from './audit.ts'
import { hexDigest, requestBytes, requestedKey } from './certificate-request.ts'
import { isSameProof, openCode, proofOf } from './enrol-code.ts'
import { deploymentHmac, lifeOf, type Identity } from './identity.ts'
import { issueCertificate, pemOf } from './issue.ts'
import type { LicenseSource, SealedLicense } from './license-source.ts'
import { Allowance, Once } from './allowance.ts'
import { errorFields } from './send.ts'
import { judgeClock, type MirrorStore } from './store.ts'

/** Who asks, and from where. */
export interface Caller {
  /** of the client, for the log and the audit trail */
  address: string
  /** SHA-256 of the client's certificate, which the authority signed and which is valid by the clock; undefined without one */
  certificate: string | undefined
}

export interface LicenseAnswer {
  content: Sha256
  /** undefined where the box said that it has this content */
  cms: Buffer | undefined
}

/** What to do with an inventory, packed or not. @throws INVENTORY_INVALID and others, which refuse it */
export type KeepInventory = (args: {
  box: string
  bytes: Buffer
  address: string
  enrolled: true
  nowMs: number
}) => void

export interface BoxAccessArgs {
  store: MirrorStore
  identity: Identity
  licenses: LicenseSource
  keepInventory: KeepInventory
  around: Actor
  log: Logger
}

/** Wrong proofs that end a code. */
const MAX_WRONG = 10
/** of an address in an hour, before none of its proofs is looked at */
const MAX_WRONG_PER_ADDRESS = 20
/** of a box in an hour: deliveries, refusals, inventories and results. One that keeps asks four times. */
const MAX_PER_BOX = 60
const HOUR_MS = 3_600_000
/** A box itself complains from there on. */
const MAX_CLOCK_SECONDS = 300
/** The same refusal of the same box has a row so often. */
const REFUSAL_MS = 24 * HOUR_MS
/** The same reason from the same address is logged so often. */
const LOG_MS = 60_000

const Enrolment = v.object({
  name: v.pipe(v.string(), v.regex(/^[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?$/i)),
  request: v.string(),
  proof: v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/)),
})
/** Keys that are not known here are left out: the tool of the box may be newer than the mirror. */
const InstallResult = v.object({
  result: v.picklist(['installed', 'unchanged', 'refused', 'failed']),
  license: v.exactOptional(v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/))),
  code: v.exactOptional(v.pipe(v.string(), v.regex(/^[A-Z][A-Z_]{0,63}$/))),
  /** by which the box's clock is ahead of this mirror's */
  clockSeconds: v.exactOptional(v.pipe(v.number(), v.safeInteger())),
  expires: v.exactOptional(
    v.pipe(
      v.array(
        v.object({
          name: v.pipe(v.string(), v.regex(/^[A-Za-z0-9][A-Za-z0-9_. -]{0,79}$/)),
          date: v.pipe(v.string(), v.regex(/^[0-9]{4}-[0-9]{2}-[0-9]{2}$/)),
        }),
      ),
      v.maxLength(200),
    ),
  ),
})

export class BoxAccess {
  readonly #args: BoxAccessArgs
  readonly #wrong = new Allowance(MAX_WRONG_PER_ADDRESS, HOUR_MS)
  readonly #asked = new Allowance(MAX_PER_BOX, HOUR_MS)
  readonly #rows = new Once(REFUSAL_MS)
  readonly #logged = new Once(LOG_MS)
  /** A name without a code takes as long as one that has one. */
  readonly #noCode = randomBytes(16).toString('hex')

  constructor(args: BoxAccessArgs) {
    this.#args = args
  }

  /** @param body    `{"name","request","proof"}`
   *  @param server  DER of the certificate that the box saw
   *  @returns the answer's body */
  enrol(body: Buffer, server: Buffer, { address }: Caller): Buffer | undefined {
    const asked = parseJson(Enrolment, body)
    const request = asked === undefined ? undefined : requestBytes(asked.request)
    if (asked === undefined || request === undefined) return this.#ignore('is no request for a certificate', address)
    if (!this.#wrong.has(address, this.#now())) return this.#ignore('too many wrong proofs', address)
    const name = asked.name.toLowerCase()
    const code = this.#codeOf(name)
    const lines = ['gapferry-enrol 1', asked.name, hexDigest(request), hexDigest(server)]
    const isRight = isSameProof(proofOf(code ?? this.#noCode, ...lines), asked.proof)
    if (code === undefined || !isRight) return this.#wrongProof(name, code !== undefined, address)
    try {
      return this.#issue({ name, request, code }, address)
    } catch (error) {
      if (!isGapferryError(error)) throw error
      this.#args.log.warn({ box: name, address, ...errorFields(error) }, 'a box could not be enrolled')
      return undefined
    }
  }

  /** @param asked.name         as in the path
   *  @param asked.deployment   as the box says
   *  @param asked.has          the contents that it has: digests, from If-None-Match */
  async license(
    asked: { name: string; deployment: string | undefined; has: readonly string[] },
    caller: Caller,
  ): Promise<LicenseAnswer | undefined> {
    const box = this.#boxOf(asked.name, caller)
    if (box === undefined) return undefined
    if (asked.deployment === undefined || !v.is(DeploymentId, asked.deployment))
      return this.#refuse(box, 'no deployment', caller)
    const { site } = this.#args.store
    const deployment = deploymentHmac(this.#args.identity, site, asked.deployment)
    if (box.deployment !== null && box.deployment !== deployment) return this.#refuse(box, 'other deployment', caller)
    const license = await this.#args.licenses.licenseFor(deployment)
    if (license === undefined) return this.#refuse(box, 'no license', caller)
    if (box.deployment === deployment && asked.has.includes(license.content))
      return { content: license.content, cms: undefined }
    const cms = await this.#sealedFor(box, license)
    return this.#deliver(box, { deployment, content: license.content, cms }, caller)
  }

  /** @returns whether it was kept */
  inventory(bytes: Buffer, name: string, caller: Caller): boolean {
    const box = this.#boxOf(name, caller)
    if (box === undefined) return false
    try {
      const { address } = caller
      this.#args.keepInventory({ box: box.name, bytes, address, enrolled: true, nowMs: this.#now() })
      return true
    } catch (error) {
      if (!isGapferryError(error)) throw error
      // The message may quote what came, which names the deployment.
      this.#args.log.warn({ box: box.name, code: error.code }, 'the inventory of a box was refused')
      return false
    }
  }

  /** What installing gave. @returns whether it was kept */
  result(bytes: Buffer, name: string, caller: Caller): boolean {
    const box = this.#boxOf(name, caller)
    if (box === undefined) return false
    const said = parseJson(InstallResult, bytes)
    if (said === undefined) {
      this.#refuse(box, 'is no result', caller)
      return false
    }
    const { license, result, code, clockSeconds } = said
    if (clockSeconds !== undefined && Math.abs(clockSeconds) > MAX_CLOCK_SECONDS) {
      this.#args.log.warn({ box: box.name, seconds: clockSeconds }, 'the clock of a box differs from this one')
    }
    const what = { command: 'license result', boxes: [box.name], reason: code ?? result }
    const asked = { ...what, ...(license === undefined ? {} : { sha256: license }) }
    const { catalog } = this.#args.store
    audited({ catalog, by: this.#by(box, caller), asked }, () =>
      catalog.enrolments.noteResult(box.sha256, JSON.stringify(said), this.#now()),
    )
    return true
  }

  /** Whether this client may send a body to a path of `name`: said before it is read. */
  mayAsk(name: string, caller: Caller): boolean {
    const box = this.#known(caller)
    return box !== undefined && box.revokedAtMs === null && box.name === name.toLowerCase()
  }

  #codeOf(name: string): string | undefined {
    const { store, identity } = this.#args
    const row = store.catalog.enrolments.code(name)
    if (row === undefined || row.endsAtMs <= this.#now()) return undefined
    return openCode(row.code, name, { key: identity.key, site: store.site })
  }

  #wrongProof(name: string, isWaiting: boolean, address: string): undefined {
    this.#wrong.take(address, this.#now())
    if (!isWaiting) return this.#ignore('wrong proof', address)
    const { catalog } = this.#args.store
    catalog.write(() => {
      const isEnded = catalog.enrolments.countWrong(name) >= MAX_WRONG
      if (isEnded) catalog.enrolments.dropCode(name)
      const reason = isEnded ? 'wrong proof; the code has ended' : 'wrong proof'
      this.#refusalRow({ command: 'enrol', boxes: [name], reason }, `? (${address})`)
    })
    return this.#ignore(`wrong proof for ${name}`, address)
  }

  #issue({ name, request, code }: { name: string; request: Buffer; code: string }, address: string): Buffer {
    const { store, identity } = this.#args
    const { authority } = identity
    const certificate = issueCertificate({
      kind: 'box',
      site: store.site,
      name,
      key: requestedKey(request),
      issuer: authority,
      ...lifeOf(authority),
    })
    const sha256 = sha256Of(certificate)
    const { enrolments } = store.catalog
    const asked = { command: 'enrol', boxes: [name], sha256 }
    audited({ catalog: store.catalog, by: this.#actor(`box ${name} (${address})`), asked }, () => {
      // An operator may have taken it away since the proof was looked at.
      if (this.#codeOf(name) !== code) throw new GapferryError('DELIVERY_REFUSED', `${name}: its code has ended`)
      const deployment = enrolments.code(name)?.deployment ?? null
      enrolments.enrol({ sha256, name, certificate, deployment, nowMs: this.#now() })
    })
    this.#args.log.info({ box: name, address }, 'a box was enrolled')
    const proof = proofOf(code, 'gapferry-enrolled 1', sha256, hexDigest(authority.certificate.raw))
    const answer = { certificate: pemOf(certificate), authority: pemOf(authority.certificate.raw), proof }
    return Buffer.from(`${JSON.stringify(answer)}\n`)
  }

  /** The box whose path is asked for, where it is the one that asks. */
  #boxOf(name: string, caller: Caller): EnrolledBox | undefined {
    const box = this.#known(caller)
    if (caller.certificate === undefined) return this.#ignore('no certificate', caller.address)
    if (box === undefined) return this.#ignore('a certificate that this mirror does not know', caller.address)
    // Of the certificate: whoever kept a revoked one shall not use up what its successor may ask.
    if (!this.#asked.take(box.sha256, this.#now()))
      return this.#ignore(`too many requests of ${box.name}`, caller.address)
    if (box.revokedAtMs !== null) return this.#refuse(box, 'revoked', caller)
    if (box.name !== name.toLowerCase()) return this.#refuse(box, 'the path of another', caller)
    return box
  }

  #known({ certificate }: Caller): EnrolledBox | undefined {
    return certificate === undefined ? undefined : this.#args.store.catalog.enrolments.byCertificate(certificate)
  }

  async #sealedFor(box: EnrolledBox, { cms, recipient }: SealedLicense): Promise<Buffer> {
    if (recipient === 'box') return cms
    const { openCms, sealCms } = await import('../manifests/cms.ts')
    const { key, certificate } = this.#args.identity.delivery
    return sealCms(await openCms(cms, key, certificate.raw, `the license of ${box.name}`), [box.certificate])
  }

  /** Looks again, in the transaction of the row: the box may have been revoked since. */
  #deliver(
    { sha256, name }: EnrolledBox,
    { deployment, content, cms }: { deployment: string; content: Sha256; cms: Buffer },
    caller: Caller,
  ): LicenseAnswer | undefined {
    const { catalog } = this.#args.store
    const { enrolments } = catalog
    const box = enrolments.byCertificate(sha256)
    if (box === undefined || box.revokedAtMs !== null) return undefined
    const asked = { command: 'deliver', boxes: [name], sha256: content }
    const isBound = catalog.write(() => {
      const isOwn = enrolments.byCertificate(sha256)?.deployment === deployment || enrolments.bind(sha256, deployment)
      if (!isOwn) return false
      enrolments.noteDelivery(sha256, content, this.#now())
      appendRow(storeOf(catalog), this.#by(box, caller), asked, 'ok')
      return true
    })
    return isBound ? { content, cms } : this.#refuse(box, 'the deployment of another', caller)
  }

  #refuse(box: EnrolledBox, reason: string, caller: Caller): undefined {
    if (this.#rows.isFirst(`${box.sha256} ${reason}`, this.#now())) {
      this.#refusalRow({ command: 'deliver', boxes: [box.name], reason }, this.#who(box, caller))
    }
    return this.#ignore(`${box.name}: ${reason}`, caller.address)
  }

  #ignore(reason: string, address: string): undefined {
    if (this.#logged.isFirst(`${address} ${reason}`, this.#now())) this.#args.log.warn({ address, reason }, 'refused')
    return undefined
  }

  #refusalRow(what: AuditWhat, who: string): void {
    const { code } = new GapferryError('DELIVERY_REFUSED', 'a box was refused')
    appendRow(storeOf(this.#args.store.catalog), this.#actor(who), what, code)
  }

  #by(box: EnrolledBox, caller: Caller): Actor {
    return this.#actor(this.#who(box, caller))
  }

  #who({ name }: EnrolledBox, { address }: Caller): string {
    return `box ${name} (${address})`
  }

  #actor(user: string): Actor {
    return { ...this.#args.around, user }
  }

  #now(): number {
    return judgeClock(this.#args.store.catalog, this.#args.around.nowMs()).nowMs
  }
}

function parseJson<S extends v.GenericSchema>(schema: S, bytes: Buffer): v.InferOutput<S> | undefined {
  try {
    const parsed = v.safeParse(schema, JSON.parse(bytes.toString('utf8')), { abortEarly: true })
    return parsed.success ? parsed.output : undefined
  } catch {
    return undefined
  }
}
