// The test command. Plain JavaScript that also runs on Node 20; what it starts runs on the Node in node_modules.
//   node test/run.mjs                 Debian packages, checks, all tests but the slow ones
//   node test/run.mjs --check         typecheck, lint, format, dead code, layering; needs nothing but node_modules
//   node test/run.mjs --slow          Debian packages, then test/slow
//   node test/run.mjs FILE…           Debian packages, then these test files
// The last line is always `N passed, N failed`, alone on its line: the assertions tap counted, and one for each check.
// Exit status 1 when anything failed, a test file ended early, or anything was skipped: what cannot run has not passed.
import { spawn } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { delimiter, resolve } from 'node:path'
import { createInterface } from 'node:readline'
import { ensurePackages } from './helpers/packages.mjs'

const ROOT = resolve(import.meta.dirname ?? new URL('.', import.meta.url).pathname, '..')
const BIN = resolve(ROOT, 'node_modules/.bin')
const FLOORS = ['server', 'bundler', 'manifests', 'storage', 'test']
/** Name → command. All must pass, and all are run even when one fails. */
const CHECKS = {
  types: ['tsc', '-p', '.'],
  lint: ['oxlint', '--type-aware', ...FLOORS],
  format: ['prettier', '--check', '--log-level', 'warn', '.'],
  'dead code': ['knip', '--no-progress'],
}
const LAYERING = 'test/layering.test.ts'

const total = { passed: 0, failed: 0 }
const args = process.argv.slice(2)

if (args[0] === '--check') {
  await checks()
  await tests([LAYERING])
} else if (!ensurePackages()) {
  total.failed++
} else if (args.length === 0) {
  await checks()
  await tests([])
} else {
  await tests(args[0] === '--slow' ? slowTests() : args)
}
console.log(`${total.passed} passed, ${total.failed} failed`)
process.exitCode = total.failed === 0 ? 0 : 1

async function checks() {
  const outcomes = await Promise.all(
    Object.entries(CHECKS).map(async ([name, command]) => ({ name, command, ...(await collect(command)) })),
  )
  for (const { name, command, status, output } of outcomes) {
    count(status === 0, `${name}: ${command.join(' ')}`)
    if (status !== 0) console.log(output.trimEnd())
  }
}

/** Runs tap and prints one line per test file as it ends, then whatever failed in full. Without files: all but slow ones. */
async function tests(files) {
  const tap = start(['tap', '--disable-coverage', ...files], { TAP: '1' }, ['ignore', 'pipe', 'inherit'])
  const ended = endOf(tap)
  const bad = []
  let summary
  for await (const line of createInterface({ input: tap.stdout })) {
    if (/^(not )?ok /.test(line)) console.log(line)
    bad.push(...(/^not ok \d+ - (\S+\.ts)/.exec(line)?.slice(1) ?? []))
    summary = /^# (\{ total: .*\})$/.exec(line)?.[1] ?? summary
  }
  const status = await ended
  if (bad.length > 0) {
    await endOf(start(['tap', 'replay', '--reporter=min', ...bad], {}, ['ignore', 'inherit', 'inherit']))
  }
  add(summary ?? '', status)
}

/** Adds tap's own totals, `{ total: 52, pass: 49, fail: 1, todo: 1, skip: 1 }`. */
function add(summary, status) {
  const number = (name) => Number(new RegExp(`\\b${name}: (\\d+)`).exec(summary)?.[1] ?? 0)
  const left = number('todo') + number('skip')
  total.passed += number('pass')
  total.failed += number('fail') + left
  if (left > 0) console.log(`not ok: ${left} skipped or left to do`)
  if (number('pass') === 0) count(false, 'tap: no assertion passed')
  else if (status !== 0 && number('fail') === 0) count(false, `tap: exit status ${status}`)
}

function slowTests() {
  return readdirSync(resolve(ROOT, 'test/slow'))
    .filter((name) => name.endsWith('.test.ts'))
    .map((name) => `test/slow/${name}`)
}

function count(isPassed, what) {
  total[isPassed ? 'passed' : 'failed']++
  console.log(`${isPassed ? 'ok' : 'not ok'} - ${what}`)
}

async function collect(command) {
  const child = start(command, {}, ['ignore', 'pipe', 'pipe'])
  let output = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (output += chunk))
  return { status: await endOf(child), output }
}

function start(command, env, stdio) {
  const PATH = `${BIN}${delimiter}${process.env.PATH}`
  return spawn(command[0], command.slice(1), { cwd: ROOT, stdio, env: { ...process.env, PATH, ...env } })
}

/** A child's exit status; 1 when a signal ended it or it could not be started. */
async function endOf(child) {
  return new Promise((resolve) => {
    child.once('error', (error) => {
      console.error(error.message)
      resolve(1)
    })
    child.once('close', (status) => resolve(status ?? 1))
  })
}
