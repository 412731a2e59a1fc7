import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import t from 'tap'
import { runMirror } from '../../server/program.ts'
import { makeGap, snapshot } from '../helpers/gap.ts'
import { inside } from '../helpers/inside.ts'
import { makeLab } from '../helpers/lab.ts'
import { entriesOf } from '../helpers/tar.ts'

/** Of trees, headers and blobs every so many-th byte; of metadata every one. */
const SAMPLE = 97

t.test('a part with any changed byte is refused, and nothing of it stays', async (t) => {
  const lab = await makeLab(t)
  await lab.publish('p', [{ name: 'a', version: '1', payloadBytes: 2000 }], { signed: false })
  const gap = await makeGap(t, lab.folder('gap'), `yum:\n  - { id: p, baseurl: ['${lab.url}/p/'] }`)
  const [part] = (await gap.bundle()).files
  const good = readFileSync(part!)
  mkdirSync(join(gap.dir, 'bad'))
  const file = join(gap.dir, 'bad', basename(part!))
  const store = join(gap.mirrorDir, 'store')
  const before = [...snapshot(join(store, 'blobs')).keys()]

  const accepted: number[] = []
  let tried = 0
  for (const { name, headerAt, bytesAt, bytes } of entriesOf(good)) {
    // The pinned root's own copy is never read; part.json is signed by nobody and serves messages only.
    const isBelieved = !name.endsWith('.root.json') && name !== 'part.json'
    const step = name.startsWith('metadata/') ? 1 : SAMPLE
    const offsets = Array.from({ length: Math.ceil(512 / 7) }, (_, i) => headerAt + i * 7)
    const end = isBelieved ? bytesAt + bytes : bytesAt
    for (let at = bytesAt; at < end; at += step) offsets.push(at)
    for (const at of offsets) {
      const bad = Buffer.from(good)
      bad[at] = bad[at]! ^ (1 << (at % 8))
      writeFileSync(file, bad)
      const { status } = await inside(runMirror, gap.mirrorDir, ['import', file])
      tried++
      if (status !== 3) accepted.push(at)
    }
  }
  t.strictSame(accepted, [], `${tried} changed parts`)
  t.ok(tried > 3000, `${tried} changed parts`)
  t.strictSame([...snapshot(join(store, 'blobs')).keys()], before)
  t.strictSame(readdirSync(join(store, 'staging')), [])
  t.equal((await inside(runMirror, gap.mirrorDir, ['import', part!])).status, 0, 'the good one is taken')
})
