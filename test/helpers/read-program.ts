/** Reads documents that are made to take long or to fill memory, in a process of its own.
 *  stdout: JSON, {slow, foreign}. */
import { isGapferryError } from '../../manifests/errors.ts'
import { readers } from './readers.ts'

const BYTES = 400_000
/** More elements than are read: each takes memory. */
const MANY_BYTES = 2_000_000
/** Of processor time; the slowest takes a quarter of it on a slow machine. */
const MAX_CPU_MS = 4000
const MAX_MESSAGE_LENGTH = 20_000

const many = (piece: string, bytes = BYTES): string => piece.repeat(bytes / piece.length)
const documents = [
  ...['<', '<a>', '<a', '<!', '<!--', '<?', '&amp;', '&#65;', '$', 'a', ' ', '\n', '\r', '-', ']]>', '"'].map(many),
  `<${many('a')}/>`,
  `<a${many(':')}/>`,
  `<a${many(' ')}`,
  `<a>&${many('x')};</a>`,
  `<a>&#${many('1')};</a>`,
  `<!--${many('- ')}`,
  `${many('<!---->')}<a/>`,
  `<a><![CDATA[${many(']')}`,
  `<a>${many('<![CDATA[]]>')}</a>`,
  `<a>${many(']]')}</a>`,
  `<a>${many('<?a?>')}</a>`,
  `<a ${Array.from({ length: 150_000 }, (_, i) => `b${i}=""`).join(' ')}/>`,
  `<a b="${many('x')}"/>`,
  `<a b="${many('&lt;')}"/>`,
  `<a>${many('&lt;')}</a>`,
  `<a>${many('<b/>', MANY_BYTES)}</a>`,
  `<a>${many('<b c=""/>', MANY_BYTES)}</a>`,
  `<a></a${many(' ')}>`,
  `<?xml version="1.0" ${many('x')}?><a/>`,
  `<metalink><files><file name="repomd.xml">${many('<verification>')}`,
  `<metalink><files><file name="repomd.xml"><verification><hash type="sha256">x</hash></verification><timestamp>1</timestamp>` +
    `<size>1</size><resources>${many('<url>http://a/</url>')}</resources></file></files></metalink>`,
  `<metadata packages="1">${many('<package>')}`,
  `<metadata packages="1">${many('<package></package>')}</metadata>`,
  `<metadata packages="1">${many('</package><package>')}`,
  `<metadata packages="1"><package>${many('</package')}`,
  `<metadata><package>${many('<!--x-->')}</package></metadata>`,
  `<metadata packages="1">${many('<packager>')}`,
  many('http://a '),
  many('a://b\n'),
]

const [slow, foreign]: string[][] = [[], []]
for (const document of documents) {
  for (const [name, read] of Object.entries(readers)) {
    const what = `${name}: ${document.slice(0, 60)}`
    const cpu = process.cpuUsage()
    try {
      read(Buffer.from(document))
    } catch (error) {
      if (!isGapferryError(error)) foreign!.push(`${what}: ${String(error)}`)
      else if (error.message.length > MAX_MESSAGE_LENGTH) foreign!.push(`${what}: ${error.message.length} characters`)
    }
    const { user, system } = process.cpuUsage(cpu)
    if (user + system > MAX_CPU_MS * 1000) slow!.push(`${what}: ${(user + system) / 1000} ms`)
  }
}
process.stdout.write(JSON.stringify({ slow, foreign }))
