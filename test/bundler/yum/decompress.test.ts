import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { truncateSync } from 'node:fs'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import t from 'tap'
import { decompress, type DecompressLimits } from '../../../bundler/yum/decompress.ts'

const TOOLS = {
  gzip: ['gzip', '-9'],
  xz: ['xz', '-6'],
  bzip2: ['bzip2', '-1'],
  zstd: ['zstd', '-q', '-10', '--check'],
} as const

// more than one block of bzip2, more than one chunk of everything; compresses like metadata
const text = Buffer.from(
  Array.from(
    { length: 8_000 },
    (_, i) => `  <file>/usr/share/doc/${createHash('md5').update(String(i)).digest('hex')}`,
  ).join('\n'),
)

for (const [name, [tool, ...args]] of Object.entries(TOOLS)) {
  const packed = execFileSync(tool, [...args, '-c'], { input: text, maxBuffer: 1 << 28 })

  t.test(`unpacks what ${tool} made, whatever the file is called`, async (t) => {
    const file = put(t, packed)
    t.ok((await unpacked(file)).equals(text))
    t.ok((await unpacked(file)).equals(text), 'and again: nothing was left taken')
  })

  t.test(`refuses ${name} that is cut off or damaged`, async (t) => {
    for (const length of [packed.length - 1, packed.length - 9, packed.length >> 1, 20]) {
      await t.rejects(unpacked(put(t, packed.subarray(0, length))), { code: 'DECOMPRESS_INVALID' }, `${length} bytes`)
    }
    const flipped = Buffer.from(packed)
    flipped[packed.length >> 1]! ^= 0x10
    await t.rejects(unpacked(put(t, flipped)), { code: 'DECOMPRESS_INVALID', message: /file name/ })
    t.ok((await unpacked(put(t, packed))).equals(text), 'and is ready for the next')
  })

  t.test(`stops a bomb of ${name} at the limit of size and at the limit of proportion`, async (t) => {
    const bomb = execFileSync(tool, [...args, '-c'], { input: Buffer.alloc(4_000_000), maxBuffer: 1 << 28 })
    t.ok(bomb.length * 200 < 4_000_000, `${bomb.length} bytes`)
    const low = { ratioFloorBytes: 1_000_000 }
    await t.rejects(unpacked(put(t, bomb), low), { code: 'DECOMPRESS_TOO_LONG', message: /file name/ })
    await t.rejects(unpacked(put(t, bomb), { maxBytes: 3_000_000 }), { code: 'DECOMPRESS_TOO_LONG' })
    t.equal((await unpacked(put(t, bomb))).length, 4_000_000, 'small files may be what they like')
  })

  t.test(`unpacks ${name} of nothing`, async (t) => {
    t.equal((await unpacked(put(t, execFileSync(tool, [...args, '-c'], { input: '' })))).length, 0)
  })

  t.test(`can be left before the end of ${name}`, async (t) => {
    for await (const _ of decompress(put(t, packed), 'x')) break
    t.ok((await unpacked(put(t, packed))).equals(text))
  })
}

t.test('unpacks several members one after the other', async (t) => {
  const parts = [text.subarray(0, 1000), text.subarray(1000)]
  t.ok((await unpacked(put(t, Buffer.concat(parts.map((part) => gzipSync(part)))))).equals(text))
  const bzip2 = parts.map((part) => execFileSync('bzip2', ['-c'], { input: part, maxBuffer: 1 << 28 }))
  t.ok((await unpacked(put(t, Buffer.concat(bzip2)))).equals(text))
})

t.test('refuses bzip2 whose last checksum is wrong', async (t) => {
  const packed = execFileSync('bzip2', ['-c'], { input: '' })
  t.equal(packed.length, 14)
  packed[13]! ^= 1
  await t.rejects(unpacked(put(t, packed)), { code: 'DECOMPRESS_INVALID', message: /checksum/ })
})

t.test('has limits where none are given', async (t) => {
  const bomb = gzipSync(Buffer.alloc(17_000_000))
  await t.rejects(unpacked(put(t, bomb)), { code: 'DECOMPRESS_TOO_LONG', message: /more than 16\.8 MB/ })
  const large = put(t, text)
  truncateSync(large, 600_000_000)
  const length = async (): Promise<void> => {
    for await (const _ of decompress(large, 'x'));
  }
  await t.rejects(length(), { code: 'DECOMPRESS_TOO_LONG', message: /more than 537 MB/ })
})

t.test('passes on what is not packed', async (t) => {
  t.ok((await unpacked(put(t, text))).equals(text))
  t.equal((await unpacked(put(t, Buffer.alloc(0)))).length, 0)
  await t.rejects(unpacked(put(t, text), { maxBytes: 1000 }), { code: 'DECOMPRESS_TOO_LONG' })
})

t.test('refuses a bzip2 block whose run length overflows', async (t) => {
  for (const runs of [31, 32, 33]) {
    await t.rejects(unpacked(put(t, overflowingBzip2(runs))), { code: 'DECOMPRESS_INVALID' })
  }
})

/** One block, one symbol in use, then so many times RUNA: a run of 2^runs - 1. */
function overflowingBzip2(runs: number): Buffer {
  let bits = ''
  const put = (value: number, width: number): void => {
    bits += value.toString(2).padStart(width, '0')
  }
  for (const byte of Buffer.from('BZh9')) put(byte, 8)
  for (const byte of Buffer.from('314159265359', 'hex')) put(byte, 8)
  put(0, 32) // checksum of the block: never reached
  put(0, 1) // not randomised
  put(0, 24) // origin
  put(0x8000, 16) // symbols 0–15 …
  put(0x8000, 16) // … of these the first
  put(2, 3) // groups
  put(2, 15) // selectors
  put(0, 1)
  put(0, 1)
  for (let group = 0; group < 2; group++) {
    put(2, 5) // RUNA, RUNB and the end have codes of two bits
    for (let symbol = 0; symbol < 3; symbol++) put(0, 1)
  }
  for (let run = 0; run < runs; run++) put(0, 2)
  put(2, 2)
  bits = bits.padEnd(Math.ceil(bits.length / 8) * 8 + 64, '0')
  return Buffer.from(bits.match(/.{8}/g)!.map((byte) => Number.parseInt(byte, 2)))
}

function put(t: { testdir: (content: Record<string, Buffer>) => string }, bytes: Uint8Array): string {
  return join(t.testdir({ 'x.xml.gz': Buffer.from(bytes) }), 'x.xml.gz')
}

async function unpacked(file: string, limits?: DecompressLimits): Promise<Buffer> {
  const chunks: Uint8Array[] = []
  for await (const chunk of decompress(file, 'file name', limits)) chunks.push(Uint8Array.from(chunk))
  return Buffer.concat(chunks)
}
