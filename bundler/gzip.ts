import { promisify } from 'node:util'
import { gzip, type ZlibOptions } from 'node:zlib'

const LEVEL = 9
const OS_BYTE = 9
const OS_UNIX = 3
const compress = promisify<Buffer, ZlibOptions, Buffer>(gzip)

/** gzip that says nothing of the time and the system it was made on. Equal bytes give equal bytes. */
export async function packGzip(bytes: Buffer): Promise<Buffer> {
  const packed = await compress(bytes, { level: LEVEL })
  packed[OS_BYTE] = OS_UNIX
  return packed
}
