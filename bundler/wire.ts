/**
 * What a run takes over the link, both ways, and when that is enough: request lines, headers and bodies of everything that
 * is asked for and answered, also where it failed, led elsewhere or was thrown away. Counted as HTTP/1.1 spells it. What
 * TLS adds cannot be seen from above it and is estimated; TCP, IP and name lookups, about 4 % more, are not counted.
 */
import { formatBytes } from '../manifests/console.ts'
import { GapferryError } from '../manifests/errors.ts'

/** Hellos, a chain of two or three certificates, tickets. */
const TLS_OPENING_BYTES = 6000
/** A record of TLS 1.3 has 22 bytes of its own; servers send them with 4 to 16 KB. */
const TLS_SHARE = 22 / 4096
/** `HTTP/1.1 200 OK`, line ends, and what is not in `headers`. */
const LINES_BYTES = 50

export class Wire {
  spentBytes = 0
  /** the run ends before it would take more; what is under way when it ends is taken, too */
  limitBytes = Infinity
  /** told of everything that is spent */
  onBytes: ((bytes: number) => void) | undefined
  readonly #connections = new Map<string, { busy: number; open: number }>()

  get leftBytes(): number {
    return Math.max(0, this.limitBytes - this.spentBytes)
  }

  /** A request that is about to be sent. @throws BUDGET_EXCEEDED where nothing is left for it */
  begin(url: URL, request: { method: string; headers: Record<string, string>; form: string | null }): WireCall {
    this.refuseSpent()
    const call = new WireCall(this, this.#connect(url), url.protocol === 'https:')
    const { method, headers, form } = request
    call.add(method.length + url.pathname.length + url.search.length + url.host.length + (form?.length ?? 0))
    call.addHeaders(headers)
    return call
  }

  add(bytes: number): void {
    this.spentBytes += bytes
    this.onBytes?.(bytes)
  }

  /** @throws BUDGET_EXCEEDED */
  refuseSpent(): void {
    if (this.spentBytes < this.limitBytes) return
    throw new GapferryError(
      'BUDGET_EXCEEDED',
      `the budget of ${formatBytes(this.limitBytes)} is spent: ${formatBytes(this.spentBytes)} went over the link`,
      { hint: 'gapferry pull goes on where this run ended; --budget gives it more' },
    )
  }

  /** Requests share connections one after another: as many are open as were ever busy at a time, but for those that broke. */
  #connect(url: URL): { busy: number; open: number } {
    const at = this.#connections.get(url.origin) ?? { busy: 0, open: 0 }
    this.#connections.set(url.origin, at)
    at.busy++
    if (at.busy > at.open) {
      at.open = at.busy
      if (url.protocol === 'https:') this.add(TLS_OPENING_BYTES)
    }
    return at
  }
}

/** One request and its answer. */
export class WireCall {
  readonly #wire: Wire
  readonly #at: { busy: number; open: number }
  readonly #share: number

  constructor(wire: Wire, at: { busy: number; open: number }, isTls: boolean) {
    this.#wire = wire
    this.#at = at
    this.#share = isTls ? 1 + TLS_SHARE : 1
  }

  add(bytes: number): void {
    this.#wire.add(Math.ceil(bytes * this.#share))
  }

  addHeaders(headers: Record<string, string | string[] | undefined>): void {
    const lines = Object.entries(headers).flatMap(([name, value]) => [value ?? []].flat().map((one) => name + one))
    this.add(lines.reduce((total, line) => total + line.length + 4, LINES_BYTES))
  }

  /** @throws BUDGET_EXCEEDED */
  refuseSpent(): void {
    this.#wire.refuseSpent()
  }

  end(isBroken: boolean): void {
    this.#at.busy--
    if (isBroken) this.#at.open--
  }
}
