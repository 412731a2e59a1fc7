import { Writable } from 'node:stream'
import t from 'tap'
import { makeProgress, type Progress } from '../../manifests/progress.ts'

/** A stream that remembers, as a terminal or not. */
function screen(isTTY: boolean): { text: () => string; progress: Progress } {
  let written = ''
  const stderr = new Writable({
    write: (chunk: Buffer, _, done) => {
      written += chunk.toString()
      done()
    },
  })
  let nowMs = 0
  Object.assign(stderr, { isTTY, columns: 200 })
  return { text: () => written, progress: makeProgress({ stderr, nowMs: () => (nowMs += 1500) }) }
}

t.test('off a terminal: one line per step, without control characters', (t) => {
  const { text, progress } = screen(false)
  const pull = progress.step('pull', 12_300_000)
  pull.add(12_000_000)
  pull.add(-1_000_000)
  pull.add(1_300_000)
  t.equal(text(), '', 'nothing while it runs')
  pull.end()
  pull.end()
  const look = progress.step('look')
  look.add(2048)
  look.end()
  t.equal(text(), 'pull: 12.3 MB of 12.3 MB in 1.5 s\nlook: 2.0 kB in 1.5 s\n')
  t.end()
})

t.test('a step that failed shows how far it came', (t) => {
  const { text, progress } = screen(false)
  const pull = progress.step('pull', 10)
  pull.add(3)
  pull.end()
  t.match(text(), /^pull: 3 B of 10 B /)
  t.end()
})

t.test('a hostile name cannot move the cursor', (t) => {
  for (const isTTY of [false, true]) {
    const { text, progress } = screen(isTTY)
    progress.step('evil\u001b[2J\n', 1).end()
    t.notMatch(text(), 'evil\u001b')
    t.match(text(), 'evil\\x1b[2J\\x0a')
  }
  t.end()
})

t.test('on a terminal: a bar that is drawn at the start and the end and gives the cursor back', (t) => {
  const { text, progress } = screen(true)
  const pull = progress.step('pull', 2_000_000)
  t.match(text(), /pull \[-+\] 0% 0 B of 2\.0 MB/)
  pull.add(2_000_000)
  pull.end()
  pull.end()
  t.match(text(), /pull \[=+\] 100% 2\.0 MB of 2\.0 MB/)
  t.ok(text().endsWith('\n'))
  t.ok(text().lastIndexOf('\u001b[?25h') > text().lastIndexOf('\u001b[?25l'), 'the cursor is shown again')
  t.end()
})

t.test('on a terminal without a known size: what was done', (t) => {
  const { text, progress } = screen(true)
  const look = progress.step('look')
  look.add(2048)
  look.end()
  t.match(text(), 'look 2.0 kB')
  t.notMatch(text(), '%')
  t.end()
})

t.test('on a terminal: the file that is being worked on has a bar of its own below the step’s', (t) => {
  const { text, progress } = screen(true)
  const pull = progress.step('pull', 2_000_000)
  pull.note('evil\u001b.rpm, 3 more', 0)
  pull.add(500_000)
  pull.note('evil\u001b.rpm, 3 more', 0.25)
  pull.note('last.rpm', 7)
  pull.note('')
  pull.note('another.rpm', 0.5)
  pull.add(500_000)
  pull.end()
  pull.note('late', 0.1)
  t.match(text(), / {2}\[-+\] 0% evil\\x1b\.rpm, 3 more/)
  t.match(text(), / {2}\[=+-+\] 50% another\.rpm/)
  t.notMatch(text(), /late|700%/)
  t.match(text().split('pull').at(-1), /50% 1\.0 MB of 2\.0 MB/, 'the step’s is left')
  t.ok(text().lastIndexOf('\u001b[?25h') > text().lastIndexOf('\u001b[?25l'), 'the cursor is shown again')
  t.end()
})

t.test('on a terminal: the rate, the time that is left, and what is being worked on', (t) => {
  const { text, progress } = screen(true)
  const pull = progress.step('pull', 30_000_000)
  for (let i = 0; i < 4; i++) pull.add(1_500_000)
  pull.end()
  t.match(text(), /20% 6\.0 MB of 30\.0 MB, 1\.0 MB\/s, 24 s left/)
  const slow = progress.step('slow', 30_000_000)
  slow.add(3000)
  slow.end()
  t.match(text(), /2\.0 kB\/s, 4 h 9 min left/)
  const named = progress.step('named')
  named.note('a\u001b.rpm 12%, 3 more')
  named.end()
  t.match(text(), /named 0 B, 0 B\/s {2}a\\x1b\.rpm 12%, 3 more/)
  t.end()
})
