/** Archives of modules, good ones and as anybody could write them. */
import { gzipSync } from 'node:zlib'
import { makeTar } from './tar.ts'

export interface ModuleParts {
  rawname?: string
  version?: string
  /** further files: path below the module's folder → bytes */
  files?: Record<string, string | Buffer>
}

/** `core-17.0.1.tgz` and the like. */
export function moduleTgz({ rawname = 'core', version = '17.0.1', files = {} }: ModuleParts = {}): Buffer {
  const xml = moduleXml(rawname, version)
  const all = Object.entries({ 'module.xml': xml, 'Core.class.php': '<?php\n', ...files })
  const folder = { name: `${rawname}/`, bytes: Buffer.alloc(0), header: (block: Buffer) => block.write('5', 156) }
  return gzipSync(
    makeTar([folder, ...all.map(([name, bytes]) => ({ name: `${rawname}/${name}`, bytes: Buffer.from(bytes) }))]),
  )
}

export function moduleXml(rawname = 'core', version = '17.0.1'): string {
  return `<module>\n\t<rawname>${rawname}</rawname>\n\t<version>${version}</version>\n</module>\n`
}

/** One packet in RFC 4880's new format, with a length of five bytes. */
export function packet(tag: number, body: Uint8Array): Buffer {
  const head = Buffer.from([0xc0 | tag, 0xff, 0, 0, 0, 0])
  head.writeUInt32BE(body.length, 2)
  return Buffer.concat([head, body])
}

/** A literal data packet's body. */
export function literal(data: Uint8Array): Buffer {
  return Buffer.concat([Buffer.from('b\x00\x00\x00\x00\x00', 'latin1'), data])
}
