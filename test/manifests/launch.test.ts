import { resolve } from 'node:path'
import t from 'tap'
import { run } from '../helpers/process.ts'

const ROOT = resolve(import.meta.dirname, '../..')
const LAUNCH = resolve(ROOT, 'manifests/launch.mjs')
/** Makes the Node that runs say that it is another. */
const pretend = (version: string): string[] => [
  '--import',
  `data:text/javascript,Object.defineProperty(process,'versions',{value:{...process.versions,node:'${version}'}})`,
]

t.test('starts a program with its arguments', async (t) => {
  for (const program of ['bundler/main.ts', 'server/main.ts']) {
    const { status, stdout } = await run(process.execPath, [LAUNCH, program, '--version'], { cwd: '/' })
    t.equal(status, 0)
    t.match(stdout, /^\d+\.\d+\.\d+\n$/)
  }
})

t.test('a Node that is too old gets one clear line and the next command', async (t) => {
  for (const version of ['20.20.2', '24.14.1', '8.0.0']) {
    const { status, stdout, stderr } = await run(process.execPath, [...pretend(version), LAUNCH, 'bundler/main.ts'])
    t.equal(status, 2)
    t.equal(stdout, '')
    t.match(
      stderr,
      new RegExp(`^gapferry needs Node 24\\.15 or newer, this is ${version}; start it with npm run[^\\n]*\\n$`),
    )
  }
})
