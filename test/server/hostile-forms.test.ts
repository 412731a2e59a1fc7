/** Clients whose bodies are meant to fill the mirror's memory or its time. What is noted of them: contacts.test.ts. */
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import t, { type Test } from 'tap'
import { BlobStore } from '../../storage/blobs.ts'
import { startMirror, TestReleases } from '../helpers/content.ts'
import { LIST, makeModuleTree, requestsPost, TAG } from '../helpers/module-tree.ts'
import { exchange, parseAnswers } from '../helpers/raw-http.ts'

const MIB = 1024 * 1024
/** what server/listener.ts keeps of bodies at a time */
const KEPT = 32

async function setUp(t: Test) {
  const blobs = new BlobStore(t.testdir())
  const releases = new TestReleases()
  releases.release(await makeModuleTree(blobs), 0)
  const noted: number[] = []
  const contacts = { note: ({ form }: { form: Buffer }): void => void noted.push(form.length) }
  const mirror = await startMirror({ releases, blobs, contacts })
  t.teardown(() => mirror.close())
  const { origin, host, port } = new URL(mirror.origins[0]!.url)
  const version = async (): Promise<string> => {
    const text = await exchange(origin, requestsPost(host, '/mversion.php', 'rawname=core&tag=16.0.68'), {
      keepOpen: true,
    })
    return parseAnswers(text)[0]!.body
  }
  /** Sends all of a long body but its end, and waits until the mirror has read it. */
  const hold = async (path: string): Promise<Socket> => {
    const socket = connect(Number(port), '127.0.0.1').on('error', () => undefined)
    t.teardown(() => socket.destroy())
    const head = `POST ${path} HTTP/1.1\r\nHost: ${host}\r\nExpect: 100-continue\r\nContent-Length: ${MIB}\r\n\r\n`
    socket.write(head)
    await once(socket, 'data')
    await new Promise((resolve) => socket.write(Buffer.alloc(MIB - 1, 'x'), resolve))
    return socket
  }
  return { origin, host, noted, version, hold }
}

t.test('bodies that wait for their end take a bounded part of the memory, and give it back', async (t) => {
  const { version, hold, noted } = await setUp(t)
  const sockets: Socket[] = []
  for (let i = 0; i < KEPT + 8; i++) sockets.push(await hold('/all-16.0.xml'))
  t.equal(await version(), TAG, 'the body that does not fit is dropped, so small ones still fit')
  const answers = sockets.map(async (socket) => {
    const answer = once(socket, 'data')
    socket.write('x')
    return String((await answer)[0])
  })
  for (const text of await Promise.all(answers)) t.match(text, /^HTTP\/1\.1 200 /)
  const kept = noted.filter((length) => length === MIB).length
  t.ok(kept > 0 && kept < KEPT + 1, `${kept} of ${sockets.length} were kept`)
  const again = await Promise.all([1, 2, 3].map(() => hold('/all-16.0.xml')))
  for (const socket of [...sockets, ...again]) socket.destroy()
  for (let i = 0; i < KEPT; i++) (await hold('/all-16.0.xml')).end('x')
  for (let i = 0; i < 1000 && noted.filter((length) => length === MIB).length < kept + KEPT; i++) await version()
  t.equal(noted.filter((length) => length === MIB).length, kept + KEPT, 'all the room is free again')
})

t.test('bodies that are too long give their room back', async (t) => {
  const { origin, host, version } = await setUp(t)
  const chunk = `10000\r\n${'x'.repeat(65_536)}\r\n`
  const long = `POST /all-16.0.xml HTTP/1.1\r\nHost: ${host}\r\nTransfer-Encoding: chunked\r\n\r\n${chunk.repeat(17)}`
  for (let i = 0; i < KEPT + 5; i++) t.match(await exchange(origin, long, { keepOpen: true }), /^HTTP\/1\.1 413 /)
  t.equal(await version(), TAG)
})

t.test('requests ahead of their answers are answered in order, without what their bodies say', async (t) => {
  const { origin, host, noted } = await setUp(t)
  const form = 'rawname=core&tag=16.0.68'
  const post = (path: string, end = ''): string =>
    `POST ${path} HTTP/1.1\r\nHost: ${host}\r\n${end}Content-Length: ${form.length}\r\n\r\n${form}`
  const bytes = [post('/mversion.php'), post('/all-16.0.xml'), post('/mversion.php', 'Connection: close\r\n')].join('')
  const answers = parseAnswers(await exchange(origin, bytes, { keepOpen: true }))
  t.match(answers, [{ status: 200, body: TAG }, { status: 200, body: LIST }, { status: 200 }])
  t.ok(noted.length >= 1)
})

t.test('bodies of other requests are not kept', async (t) => {
  const { origin, host, noted } = await setUp(t)
  for (const path of ['/modules/none', '/yum/x', '/version-1.html', '/sounds/x', '/whatismyip.php', '/']) {
    await exchange(origin, requestsPost(host, path, 'installid=1'), { keepOpen: true })
  }
  t.same(noted, [])
})
