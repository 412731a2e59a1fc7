import { closeSync, openSync, readFileSync, writeSync } from 'node:fs'

/** One entry of a part: where its header and its bytes stand in the file. */
export interface TarEntry {
  name: string
  headerAt: number
  bytesAt: number
  bytes: number
}

const BLOCK = 512

/** The entries of a well-formed part, in order. */
export function entriesOf(file: string | Buffer): TarEntry[] {
  const tar = typeof file === 'string' ? readFileSync(file) : file
  const entries: TarEntry[] = []
  for (let at = 0; tar[at] !== 0;) {
    const name = tar.toString('latin1', at, at + 100).replace(/\0.*$/s, '')
    const bytes = Number.parseInt(tar.toString('latin1', at + 124, at + 135), 8)
    entries.push({ name, headerAt: at, bytesAt: at + BLOCK, bytes })
    at += BLOCK + Math.ceil(bytes / BLOCK) * BLOCK
  }
  return entries
}

/** A part with other entries: name → bytes, in this order, headers as gapferry writes them but for `header`'s changes. */
export function makeTar(entries: { name: string; bytes: Buffer; header?: (block: Buffer) => void }[]): Buffer {
  const blocks = entries.flatMap(({ name, bytes, header }) => {
    const block = Buffer.alloc(BLOCK)
    block.write(name, 0, 'latin1')
    block.write('000644 \0', 100, 'latin1')
    block.write('000000 \x00000000 \0', 108, 'latin1')
    block.write(`${bytes.length.toString(8).padStart(11, '0')} `, 124, 'latin1')
    block.write('00000000000 ', 136, 'latin1')
    block.write('0', 156, 'latin1')
    block.write('ustar\x0000', 257, 'latin1')
    block.write('000000 \x00000000 \0', 329, 'latin1')
    header?.(block)
    return [sealHeader(block), bytes, Buffer.alloc(-bytes.length & (BLOCK - 1))]
  })
  return Buffer.concat([...blocks, Buffer.alloc(2 * BLOCK)])
}

/** The same header with its checksum made right. */
function sealHeader(block: Buffer): Buffer {
  block.write('        ', 148, 'latin1')
  const sum = block.subarray(0, BLOCK).reduce((total, byte) => total + byte, 0)
  block.write(`${sum.toString(8).padStart(6, '0')} \0`, 148, 'latin1')
  return block
}

/** Changes one byte of a file in place. */
export function flipByte(file: string, at: number): void {
  const fd = openSync(file, 'r+')
  try {
    const byte = readFileSync(file)[at]! ^ 0x04
    writeSync(fd, Buffer.from([byte]), 0, 1, at)
  } finally {
    closeSync(fd)
  }
}
