/** Reads a stream of pieces by numbers of bytes. */
import type { GapferryError } from '../../manifests/errors.ts'

/** Takes bytes off the front of a stream; nothing is held but the piece that is being read. */
export class ByteReader {
  readonly #pieces: AsyncIterator<Uint8Array>
  readonly #cutOff: () => GapferryError
  #piece: Uint8Array = new Uint8Array()

  /** @param cutOff  thrown where more is asked for than there is */
  constructor(pieces: AsyncIterable<Uint8Array>, cutOff: () => GapferryError) {
    this.#pieces = pieces[Symbol.asyncIterator]()
    this.#cutOff = cutOff
  }

  /** True where nothing is left. */
  async isAtEnd(): Promise<boolean> {
    while (this.#piece.length === 0) {
      const { done, value } = await this.#pieces.next()
      if (done === true) return true
      this.#piece = value
    }
    return false
  }

  /** The next bytes, joined: for small numbers. */
  async take(count: number): Promise<Buffer> {
    const pieces: Uint8Array[] = []
    for await (const piece of this.pieces(count)) pieces.push(piece)
    return Buffer.concat(pieces)
  }

  /** The next `count` bytes as they come; all that is left where it is infinite. */
  async *pieces(count: number): AsyncGenerator<Uint8Array, void> {
    for (let left = count; left > 0;) {
      if (await this.isAtEnd()) {
        if (count === Infinity) return
        throw this.#cutOff()
      }
      const piece = this.#piece.subarray(0, left)
      this.#piece = this.#piece.subarray(piece.length)
      left -= piece.length
      yield piece
    }
  }
}
