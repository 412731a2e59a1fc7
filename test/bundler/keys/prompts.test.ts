import { existsSync, readdirSync } from 'node:fs'
import { join, resolve } from 'node:path'
import t from 'tap'
import { unlockSite } from '../../../bundler/keys/keys.ts'
import { makeKeyLab, only, textsBelow } from '../../helpers/key-lab.ts'
import { mustRun } from '../../helpers/process.ts'

const PROJECT = resolve(import.meta.dirname, '../../..')
const SECRET = 'xq7 vlpz kkrt'
const CTRL_C = '\u0003'
const CTRL_D = '\u0004'

interface Typed {
  /** all that the terminal showed, echo too */
  shown: string
  status: number
  /** steps that were not asked for */
  left: number
}

/** A program on a real terminal. @param steps  what is waited for, and what is typed then */
async function typing(cwd: string, main: string, args: string[], steps: [string, string][]): Promise<Typed> {
  const helper = join(PROJECT, 'test/helpers/terminal.py')
  const command = [process.execPath, join(PROJECT, main), ...args]
  const { stdout } = await mustRun('/usr/bin/python3', [helper, JSON.stringify(steps), ...command], { cwd })
  return JSON.parse(stdout) as Typed
}

t.test('passphrases at the prompt: typed twice, corrected, never shown; Ctrl-C leaves nothing half-done', async (t) => {
  const dir = t.testdir({ safe: {} })
  const gapferry = (args: string[], ...steps: [string, string][]): Promise<Typed> =>
    typing(dir, 'bundler/main.ts', args, steps)
  const [first, again]: [string, string] = ['new passphrase for the keys: ', 'the same again: ']

  const stopped = await gapferry(['init'], [first, `${SECRET}\r`], [again, `${SECRET.slice(0, 5)}${CTRL_C}`])
  t.match(stopped, { status: 130, left: 0, shown: /ended by SIGINT; the same command goes on where it was/ })
  const differing = await gapferry(['init'], [first, `${SECRET}\r`], [again, 'wwzyx\r'])
  t.match(differing, { status: 2, left: 0, shown: /the two passphrases differ/ })
  t.notOk(existsSync(join(dir, 'keys')), 'no keys, nor a part of them')
  const made = await gapferry(['init'], [first, `${SECRET}x\u007f\r`], [again, `${SECRET}\r`])
  t.match(made, { status: 0, left: 0, shown: /site hq: keys made/ })
  for (const { shown } of [stopped, differing, made]) t.notMatch(shown, /xq7|vlpz|kkrt|wwzyx/, 'nothing typed is shown')
  t.ok(await unlockSite({ dir: join(dir, 'keys'), site: 'hq', passphrase: SECRET }))

  const before = textsBelow(join(dir, 'keys'))
  const rotate = ['keys', 'rotate', 'root', '--root', '1/1', '--root-to', join(dir, 'safe')]
  const question = `passphrase of ${only(join(dir, 'keys/hq'), /^root-/)
    .split('/')
    .at(-1)!}: `
  const root = await gapferry(rotate, [question, `${SECRET}\r`], ['new passphrase for root key 1', `wwzyx${CTRL_C}`])
  t.match(root, { status: 130, left: 0 })
  t.notMatch(root.shown, /xq7|wwzyx/)
  t.strictSame(textsBelow(join(dir, 'keys')), before, 'the keys are what they were')
  t.strictSame(readdirSync(join(dir, 'safe')), [], 'nothing on the medium')
})

t.test('the fingerprint is confirmed with yes; no, Ctrl-C and Ctrl-D pin nothing and set up nothing', async (t) => {
  const dir = t.testdir({ mir: {}, new: {} })
  const lab = await makeKeyLab(t, join(dir, 'lab'), ['--no-passphrase'])
  await lab.bundle()
  const pin = (typed: string): Promise<Typed> =>
    typing(
      join(dir, 'mir'),
      'server/main.ts',
      ['init', '--trust', join(lab.keys, '1.root.json')],
      [['[yes/no] ', typed]],
    )
  const from = ['init', '--from', lab.stick, '--root-key', only(lab.keys, /^root-/), '--no-passphrase']
  const recover = (typed: string): Promise<Typed> =>
    typing(join(dir, 'new'), 'bundler/main.ts', from, [['(yes/no) ', typed]])
  for (const typed of [CTRL_C, CTRL_D, 'no\r']) {
    t.match(await pin(typed), { status: 2, left: 0, shown: /ROOT_NOT_CONFIRMED/ })
    t.match(await recover(typed), { status: 2, left: 0, shown: /ROOT_NOT_CONFIRMED/ })
  }
  for (const name of ['mir', 'new']) t.strictSame(readdirSync(join(dir, name)), [])
  t.match(await pin('yes\r'), { status: 0, left: 0 })
  t.match(await recover('yes\r'), { status: 0, left: 0, shown: /site hq is set up again from bundle 1/ })
})
