/** Set-up and its way back are ended (SIGKILL) before every single step; whatever was done, `uninstall` gives all of it back. */
import { join } from 'node:path'
import t from 'tap'
import { GAPFERRY_BOX } from '../helpers/box-root.ts'
import { makeFolderBox } from '../helpers/folder-box/box.ts'
import { killAt } from '../helpers/folder-box/kill.ts'
import { makeOrigin } from '../helpers/folder-box/origin.ts'
import { moduleKeys } from '../helpers/module-keys.ts'
import { report, run, type Outcome } from '../helpers/process.ts'

t.setTimeout(2_400_000)

for (const major of [17, 16] as const) {
  t.test(`a box of ${major}, killed before every step`, async (t) => {
    const dir = t.testdir({ www: {}, tmp: {} })
    const without = [`${(await moduleKeys()).signer.fingerprint.slice(-16)}.key`]
    const box = await makeFolderBox(join(dir, 'box'), { major, without, programs: ['systemctl'] })
    const origin = await makeOrigin(t, join(dir, 'www'), major === 17 ? { yum: [], major } : {})
    const tool = (args: string[], PATH = box.path): Promise<Outcome> => {
      const all = ['-f', '-w', 'dash', GAPFERRY_BOX, args[0]!, '--root', box.root, ...args.slice(1)]
      return run('setsid', all, { env: { PATH: `${PATH}:/usr/sbin:/usr/bin:/sbin:/bin`, TMPDIR: join(dir, 'tmp') } })
    }
    const state = () => [box.everything(), ['MODULE_REPO', 'RSSFEEDS', 'BROWSER_STATS'].map((key) => box.setting(key))]
    const setup = ['setup', origin.url, '--yes', '--box', 'pbx1']
    const before = state()
    for (const [work, prepare] of [
      [setup, undefined],
      [['uninstall'], setup],
    ] as const) {
      if (prepare !== undefined) await tool([...prepare])
      const steps = await killAt(box, Infinity, ({ PATH }) => tool([...work], PATH))
      t.ok(steps > 60, `${steps} steps`)
      await tool(['uninstall'])
      let same = 0
      for (let at = 1; at <= steps; at++) {
        if (prepare !== undefined) await tool([...prepare])
        await killAt(box, at, ({ PATH }) => tool([...work], PATH))
        const undone = await tool(['uninstall'])
        if (undone.status !== 0) t.fail(`before step ${at}: ${report(undone)}`)
        if (JSON.stringify(state()) === JSON.stringify(before)) same++
        else t.strictSame(state(), before, `killed before step ${at}`)
      }
      t.equal(same, steps)
    }
  })
}
