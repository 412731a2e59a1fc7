import { join } from 'node:path'
import t, { type Test } from 'tap'
import { runMirror } from '../../server/program.ts'
import { inside } from '../helpers/inside.ts'
import { makeContent, signContent, writeParts } from '../helpers/mirror.ts'
import type { Outcome } from '../helpers/process.ts'
import { makeRoot, newKey, NOW, type SiteKeys } from '../helpers/site.ts'

const [a, b, c] = [newKey(), newKey(), newKey()] as const
const bundleKeys = [newKey(), newKey(), newKey()] as const
const keys = (version: number): SiteKeys => ({
  root: [a, b, c],
  bundle: [bundleKeys[version - 1]!],
  thresholds: { root: 2 },
})
const root = (version: number, signers = [a, b]): Buffer => makeRoot(keys(version), { version, signers })
const first = root(1)

/** What a mirror that pinned the first root says to a bundle with these roots. */
async function imported(t: Test, roots: Record<string, Buffer>, version: number): Promise<Outcome> {
  const dir = t.testdir({ 'root.json': first })
  const mirror = (...args: string[]): Promise<Outcome> => inside(runMirror, dir, args, { nowMs: () => NOW })
  await mirror('init', '--trust', 'root.json', '--yes', '--origin', 'pbx=127.0.0.1:0')
  const bundle = signContent(makeContent(1, [{ stamp: 10 }]), {
    keys: keys(version),
    roots: [first],
    createdAtMs: NOW - 1000,
  })
  bundle.metadata.delete('1.root.json')
  for (const [name, bytes] of Object.entries(roots)) bundle.metadata.set(name, bytes)
  const [file] = writeParts(join(dir, 'stick'), bundle)
  const outcome = await mirror('import', '--release', file!)
  return outcome
}

t.test('two of three root keys let a mirror catch up over two rotations from one bundle', async (t) => {
  const roots = { '1.root.json': first, '2.root.json': root(2, [b, c]), '3.root.json': root(3, [a, c]) }
  const { status, stderr } = await imported(t, roots, 3)
  t.equal(status, 0, stderr)
})

t.test('one of them is not enough, nor is one twice, nor a stranger', async (t) => {
  for (const signers of [[a], [a, newKey()], []]) {
    const { status, stderr } = await imported(t, { '1.root.json': first, '2.root.json': root(2, signers) }, 2)
    t.equal(status, 3)
    t.match(stderr, /2.root.json: expected 2 good signature\(s\) by the root keys of root 1.*\[ROLE_SIGNATURE\]/)
  }
})

t.test('a root that was skipped is missed, and the keys that a rotation took away sign nothing', async (t) => {
  const skipped = await imported(t, { '1.root.json': first, '3.root.json': root(3) }, 3)
  t.equal(skipped.status, 3)
  t.match(skipped.stderr, /3.root.json: expected 2.root.json before it, found none.*\[ROLE_INVALID\]/)
  const old = await imported(t, { '1.root.json': first, '2.root.json': root(2) }, 1)
  t.equal(old.status, 3)
  t.match(old.stderr, /ROLE_SIGNATURE/)
})
