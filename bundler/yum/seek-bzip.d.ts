/** The part of seek-bzip 2.0.0 that decompress.ts uses: blocks one by one, so that nothing large stands in memory. */
declare module 'seek-bzip' {
  class Bunzip {
    /** @throws TypeError when `input` does not begin as bzip2 */
    constructor(input: Bunzip.Input, output: Bunzip.Output)
    readonly reader: { read(bits: number): number }
    readonly streamCRC: number
    /** Reads the next block; false at the end of the stream. @throws TypeError on bad data */
    _init_block(): boolean
    /** Writes the block. @throws TypeError when its checksum is wrong */
    _read_bunzip(): number
    _start_bunzip(input: Bunzip.Input, output: Bunzip.Output): void
  }
  namespace Bunzip {
    interface Input {
      readByte(): number
      read(buffer: Uint8Array, offset: number, length: number): number
    }
    interface Output {
      writeByte(byte: number): void
    }
  }
  export = Bunzip
}
