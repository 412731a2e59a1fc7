/** HTTP by hand: exact bytes over TCP, where a client library would correct what a test means to send. */
import { connect, type Socket } from 'node:net'

export interface RawAnswer {
  status: number
  /** names in lower case */
  headers: Map<string, string>
  body: string
}

/** Sends `bytes`, then ends its side unless told to keep it open, and returns all that came until the server closed. */
export function exchange(url: string, bytes: string | Buffer, options: { keepOpen?: boolean } = {}): Promise<string> {
  const { hostname, port } = new URL(url)
  return new Promise((resolve) => {
    const chunks: Buffer[] = []
    const socket: Socket = connect({ host: hostname, port: Number(port), allowHalfOpen: true })
    socket.on('data', (chunk) => chunks.push(chunk))
    socket.on('error', () => undefined) // a reset after the answer is the server's right
    socket.on('end', () => socket.end())
    socket.on('close', () => resolve(Buffer.concat(chunks).toString('latin1')))
    socket.write(bytes)
    if (options.keepOpen !== true) socket.end()
  })
}

/** The answers in what a server sent, in order; `methods` says which were asked for by HEAD. */
export function parseAnswers(text: string, methods: string[] = []): RawAnswer[] {
  const answers: RawAnswer[] = []
  for (let rest = text; rest !== '';) {
    const end = rest.indexOf('\r\n\r\n')
    if (end < 0) throw new Error(`no answer: ${rest.slice(0, 200)}`)
    const [first = '', ...lines] = rest.slice(0, end).split('\r\n')
    const status = Number(/^HTTP\/1\.1 (\d{3}) /.exec(first)?.[1])
    const headers = new Map(
      lines.map((line) => [line.slice(0, line.indexOf(':')).toLowerCase(), line.slice(line.indexOf(':') + 2)]),
    )
    const hasBody = status !== 304 && status >= 200 && methods[answers.length] !== 'HEAD'
    const length = hasBody ? Number(headers.get('content-length') ?? rest.length) : 0
    answers.push({ status, headers, body: rest.slice(end + 4, end + 4 + length) })
    rest = rest.slice(end + 4 + length)
  }
  return answers
}
