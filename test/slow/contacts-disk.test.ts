/** Noting which boxes ask, where nothing can be written: a disk that is full, and one that is read-only. Needs root. */
import { cpSync, existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { PassThrough } from 'node:stream'
import t, { type Test } from 'tap'
import { runMirror } from '../../server/program.ts'
import { contactsFile } from '../../storage/contacts.ts'
import { tool } from '../helpers/crash.ts'
import { inside } from '../helpers/inside.ts'
import { mirrorProgram } from '../helpers/mirror-program.ts'
import { boxForm, requestsPost } from '../helpers/module-tree.ts'
import { exchange, parseAnswers } from '../helpers/raw-http.ts'
import { NOW } from '../helpers/site.ts'

/** Moves the mirror to a disk of its own. */
async function onDisk(t: Test): Promise<{ dir: string; storeDir: string }> {
  const mirror = await mirrorProgram(t)
  await mirror.run(0, 'import', '--release', mirror.stick(1, [{ stamp: 10, files: { 'all-16.0.xml': '<xml/>' } }]))
  const dir = `${mirror.dir}-disk`
  mkdirSync(dir)
  tool('mount', ['-t', 'tmpfs', '-o', 'size=8m', 'tmpfs', dir])
  t.teardown(() => {
    tool('umount', ['-l', dir])
    rmdirSync(dir)
  })
  cpSync(join(mirror.dir, 'mir'), join(dir, 'mir'), { recursive: true })
  return { dir, storeDir: join(dir, 'mir/store') }
}

/** Serves, does something, takes one list request, ends. @returns the answer's status and the log */
async function serveOnce(dir: string, meanwhile = (): void => undefined): Promise<{ status: number; log: string }> {
  const ended = new AbortController()
  const stdout = new PassThrough()
  const around = { nowMs: () => NOW, stdout, signal: ended.signal }
  const serving = inside(runMirror, dir, ['serve', '--json', '--config', 'mir/mirror.yaml'], around)
  const first = await Promise.race([
    stdout.iterator().next(),
    serving.then(({ stderr }) => Promise.reject(new Error(stderr))),
  ])
  const { origins } = JSON.parse(String(first.value).split('\n')[0]!) as { origins: { url: string }[] }
  const { origin, host } = new URL(origins[0]!.url)
  meanwhile()
  const text = await exchange(origin, requestsPost(host, '/all-16.0.xml', boxForm()), { keepOpen: true })
  ended.abort(new Error('ended'))
  return { status: parseAnswers(text)[0]!.status, log: (await serving).stderr }
}

function notes(log: string): string[] {
  return log.split('\n').filter((line) => line.includes('which boxes ask cannot be noted'))
}

t.test('a full disk', async (t) => {
  const { dir, storeDir } = await onDisk(t)
  t.equal((await serveOnce(dir)).status, 200)
  const size = readFileSync(contactsFile(storeDir)).length
  const { status, log } = await serveOnce(dir, () => {
    t.throws(() => writeFileSync(join(dir, 'filler'), Buffer.alloc(16_000_000)), { code: 'ENOSPC' })
  })
  t.equal(status, 200)
  t.equal(notes(log).length, 1, log)
  t.match(notes(log)[0], /SPACE_SHORT/)
  t.equal(readFileSync(contactsFile(storeDir)).length, size)
})

t.test('a read-only disk', async (t) => {
  const { dir, storeDir } = await onDisk(t)
  tool('mount', ['-o', 'remount,ro', dir])
  const { status, log } = await serveOnce(dir)
  t.equal(status, 200)
  t.ok(notes(log).length >= 1, log)
  t.match(notes(log)[0], /STORE_UNREADABLE/)
  t.notOk(existsSync(contactsFile(storeDir)))
})
