import { join } from 'node:path'
import t, { type Test } from 'tap'
import { loadFleet, type GroupPlan } from '../../../bundler/config.ts'

const KEY = '-----BEGIN PGP PUBLIC KEY BLOCK-----\n'
const REQUEST = 'modules%5Bcore%5D%5Bversion%5D=16.0.1&phpver=7.4.16\n'

/** The group of a site, `text` being its settings beside name and origin. */
function group(t: Test, text: string): GroupPlan {
  const head = 'apiVersion: gapferry/v1\nkind: Fleet\nsites:\n  - name: hq\n    groups:\n      - name: a\n'
  const yaml = `${head}        origin: http://m.lan\n${text.replace(/^/gm, '        ')}\n`
  const dir = t.testdir({ 'gapferry.yaml': yaml, KEY, REQUEST, HTML: '<html>' })
  return loadFleet(join(dir, 'gapferry.yaml')).sites[0]!.groups[0]!
}
const modules = (fields: string): string => `modules: { feed: "https://mirror.example", major: 16, ${fields} }`

t.test('a group of modules alone, with defaults', (t) => {
  t.strictSame(group(t, 'modules: { feed: "http://mirror.example:8080/", major: 17 }'), {
    name: 'a',
    origin: 'http://m.lan',
    yum: [],
    modules: {
      feed: 'http://mirror.example:8080',
      major: 17,
      policy: [],
      keys: [],
      allowUnsigned: [],
      wholeSet: false,
    },
    files: [],
  })
  t.end()
})

t.test('reads policy, keys and a captured request', (t) => {
  const policy = 'policy: { endpoint: pin 16.0.1.5, core: latest, voicemail: want, superfecta: block }'
  const { modules: read } = group(
    t,
    modules(`${policy}, keys: [KEY], request: REQUEST, wholeSet: true, allowUnsigned: [own]`),
  )
  t.strictSame(read, {
    feed: 'https://mirror.example',
    major: 16,
    request: REQUEST.trim(),
    policy: [
      ['core', { kind: 'latest' }],
      ['endpoint', { kind: 'pin', version: '16.0.1.5' }],
      ['superfecta', { kind: 'block' }],
      ['voicemail', { kind: 'want' }],
    ],
    keys: [{ file: 'KEY', text: KEY }],
    allowUnsigned: ['own'],
    wholeSet: true,
  })
  t.end()
})

t.test('presets name the vendor’s feed; the group overrides field by field, or switches it off', (t) => {
  for (const major of [15, 16]) {
    const { modules: read } = group(t, `preset: pbxact-${major}`)
    t.match(read, { feed: 'https://mirror.freepbx.org', major })
  }
  const own = group(t, 'preset: pbxact-16\nmodules: { feed: "http://elsewhere.example", wholeSet: true }').modules
  t.match(own, { feed: 'http://elsewhere.example', major: 16, wholeSet: true })
  t.equal(group(t, 'preset: pbxact-16\nmodules: { enabled: false }').modules, undefined)
  t.equal(group(t, 'preset: pbxact-14').modules, undefined)
  t.end()
})

t.test('refuses what cannot be meant, and says what is', (t) => {
  const cases: [text: string, message: RegExp, hint?: RegExp][] = [
    ['modules: { major: 16 }', /group a: modules: needs a feed/],
    ['modules: { feed: "https://mirror.example" }', /needs the major version/],
    ['modules: { feed: "https://mirror.example", major: 14 }', /major must be one of 15, 16, 17/],
    ['modules: { feed: "https://mirror.example/pbx", major: 16 }', /feed "\S+" must be scheme, host and port alone/],
    ['modules: { feed: "https://u:p@mirror.example", major: 16 }', /must be scheme, host and port alone/],
    ['modules: { feed: mirror.example, major: 16 }', /is not an http\(s\) URL/],
    ['modules: { enabled: false }', /wants nothing: give a preset, yum, modules or files/],
    [modules('policy: { core: lates }'), /policy: core: "lates" is none of latest, block/, /did you mean "latest"\?/],
    [modules('policy: { core: pim 16.0.1 }'), /"pim 16\.0\.1" is none of/, /did you mean "pin"\?/],
    [modules('policy: { core: 16 }'), /policy.core must be a string/],
    [modules('policy: { core: pin }'), /names no version/, /pin 16/],
    [modules('policy: { core: "pin 1 2" }'), /names no version/],
    [modules('policy: { "a b": want }'), /must not have the key "a b"/],
    [modules('keys: [NONE]'), /keys: \S+NONE cannot be read/],
    [modules('keys: [HTML]'), /HTML is not an armored OpenPGP key/],
    [modules('request: HTML'), /HTML is not the form body of a module list request/, /manual/],
    [modules('allowUnsigned: [a, a]'), /must not have an item twice/],
  ]
  for (const [text, message, hint] of cases) {
    t.throws(() => group(t, text), { code: 'CONFIG_INVALID', message, ...(hint === undefined ? {} : { hint }) }, text)
  }
  t.throws(() => group(t, modules('polcy: {}')), { code: 'CONFIG_KEY_UNKNOWN', hint: /"policy"/ })
  t.end()
})
