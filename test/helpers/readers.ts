import { PackageScanner } from '../../manifests/package-scan.ts'
import { parseMetalink, parseMirrorlist } from '../../manifests/mirrorlist.ts'
import { parseRepomd } from '../../manifests/repomd.ts'
import { parseXml } from '../../manifests/xml.ts'

/** The readers of what upstreams send, by name. */
export const readers: Record<string, (bytes: Buffer) => unknown> = {
  xml: (bytes) => parseXml(bytes, 'x'),
  repomd: (bytes) => parseRepomd(bytes, 'x'),
  metalink: (bytes) => parseMetalink(bytes, 'x'),
  mirrorlist: (bytes) => parseMirrorlist(bytes, 'x'),
  scan: (bytes) => {
    const scanner = new PackageScanner('primary', 'x', () => undefined)
    for (let at = 0; at < bytes.length; at += 65_536) scanner.write(bytes.subarray(at, at + 65_536))
    return scanner.end()
  },
}
