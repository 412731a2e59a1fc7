/** What a box asks of name servers and time servers, from servers that answer, are silent, or send nonsense. */
import { createSocket, type Socket } from 'node:dgram'
import { once } from 'node:events'
import { globSync, readFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { run } from '../helpers/process.ts'

const PROBE = readFileSync(join(import.meta.dirname, '../../bundler/box/probe.py'), 'utf8')
const NTP_EPOCH = 2_208_988_800
const pythons = ['python3', ...python2()]

/** A server that answers what `reply` makes of a question; nothing where that is undefined. @returns its port */
async function serve(t: Test, reply: (question: Buffer) => Buffer | undefined): Promise<number> {
  const socket: Socket = createSocket('udp4')
  socket.on('message', (question, { port, address }) => {
    const answer = reply(question)
    if (answer !== undefined) socket.send(answer, port, address)
  })
  socket.bind(0, '127.0.0.1')
  await once(socket, 'listening')
  t.teardown(() => socket.close())
  return socket.address().port
}

function ntp(offsetSeconds: number): Buffer {
  const answer = Buffer.alloc(48)
  answer[0] = 0x1c
  for (const at of [32, 40]) answer.writeUInt32BE(Math.floor(Date.now() / 1000 + offsetSeconds) + NTP_EPOCH, at)
  return answer
}

function probe(python: string, lines: string[]) {
  return run(python, ['-c', PROBE], { input: lines.map((line) => `${line}\n`).join('') })
}

for (const python of pythons) {
  t.test(`${python}: who answers is told from who does not`, async (t) => {
    const dns = await serve(t, (question) =>
      Buffer.concat([question.subarray(0, 2), Buffer.from([0x80, 5]), Buffer.alloc(8)]),
    )
    const foreign = await serve(t, () => Buffer.alloc(12, 0xff))
    const silent = await serve(t, () => undefined)
    const near = await serve(t, () => ntp(0))
    const ahead = await serve(t, () => ntp(7200))
    const unset = await serve(t, () => Buffer.alloc(48))
    const short = await serve(t, () => Buffer.alloc(4))
    const startMs = Date.now()
    const { status, stdout, stderr } = await probe(python, [
      ...[`dns 127.0.0.1 ${dns}`, `dns 127.0.0.1 ${foreign}`, `dns 127.0.0.1 ${silent}`, 'dns 127.0.0.1 1', 'dns'],
      ...[`ntp 127.0.0.1 ${near}`, `ntp localhost ${ahead}`, `ntp 127.0.0.1 ${unset}`, `ntp 127.0.0.1 ${short}`],
      ...['name localhost', 'name no-such-name.invalid', 'name 127.0.0.1', 'name localhost', 'rm -rf', 'dns a b'],
    ])
    t.equal(status, 0, stderr)
    t.ok(Date.now() - startMs < 15_000)
    const [names, times, addresses, ...rest] = stdout.trim().split('\n')
    t.equal(names, 'dns-answers 127.0.0.1=yes 127.0.0.1=no 127.0.0.1=no 127.0.0.1=no a=no')
    const offsets = times!
      .split(' ')
      .slice(1)
      .map((word) => word.split('=')[1]!)
    t.ok(Math.abs(Number(offsets[0])) < 1.5, String(offsets[0]))
    t.ok(Math.abs(Number(offsets[1]) - 7200) < 1.5, String(offsets[1]))
    t.strictSame(offsets.slice(2), ['no', 'no'])
    t.equal(addresses, 'name-answers localhost=yes no-such-name.invalid=no 127.0.0.1=yes')
    t.strictSame(rest, [])
    t.equal((await probe(python, [])).stdout, '')
  })
}

/** Where this machine has one: Debian 12 does not. */
function python2(): string[] {
  const pyenv = process.env['PYENV_ROOT'] ?? join(homedir(), '.pyenv')
  return globSync(join(pyenv, 'versions/2.7.*/bin/python2.7')).slice(0, 1)
}
