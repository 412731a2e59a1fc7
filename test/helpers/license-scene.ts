import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Test } from 'tap'
import { GAPFERRY_BOX } from './box-root.ts'
import { DEPLOYMENT, makeLicenseBox, type LicenseBox } from './license-box.ts'
import { startLicenseMirror, type LicenseMirror } from './license-mirror.ts'
import { run, type Outcome } from './process.ts'

const CODE = 'CODE'

export interface Scene {
  mirror: LicenseMirror
  box: LicenseBox
  /** `gapferry-box license` with these */
  license(...args: string[]): Promise<Outcome>
  /** what keep does about it */
  keep(): Promise<Outcome>
  /** everything of the box but what is Gapferry's own */
  system(): Record<string, string>
}

/** An enrolled box, "pbx1", and its mirror, which has no license yet. */
export async function makeScene(t: Test, options: Parameters<typeof makeLicenseBox>[1] = {}): Promise<Scene> {
  const mirror = await startLicenseMirror(t)
  mirror.codes.set('pbx1', CODE)
  const box = await makeLicenseBox(join(t.testdir(), 'box'), options)
  box.answer('fwconsole', 0, `Deployment ID: ${DEPLOYMENT}\nLicense valid\n`)
  await box.run(['enrol', mirror.url, '--code', CODE, '--box', 'pbx1'])
  return {
    ...{ mirror, box },
    license: (...args) => box.run(['license', ...args]),
    keep: () => functionOf(box, 'keep_license'),
    system: () => {
      const rows = Object.entries(box.everything()).filter(
        ([path]) => !/^(?:etc|var\/lib)\/gapferry(?:\/|$)/.test(path),
      )
      return Object.fromEntries(rows)
    },
  }
}

/** Calls a function of the tool, as other parts of it do. */
export function functionOf(box: LicenseBox, name: string, ...args: string[]): Promise<Outcome> {
  const text = readFileSync(GAPFERRY_BOX, 'utf8').replace(/main "\$@"\n$/, 'ROOT=$1 SCRATCH=${1%/*}\nshift\n"$@"\n')
  const file = join(box.dir, 'tool')
  writeFileSync(file, text)
  const PATH = `${box.path}:/usr/sbin:/usr/bin:/sbin:/bin`
  return run('dash', [file, box.root, name, ...args], { env: { PATH } })
}
