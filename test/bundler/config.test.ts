import { join } from 'node:path'
import t from 'tap'
import { loadFleet, parseFleet, PRESETS, type Fleet } from '../../bundler/config.ts'

const HEAD = 'apiVersion: gapferry/v1\nkind: Fleet\n'

function fleet(t: Tap, text: string, files: Record<string, string> = {}): Fleet {
  return loadFleet(join(t.testdir({ 'gapferry.yaml': HEAD + text, ...files }), 'gapferry.yaml'))
}
type Tap = { testdir: (files: Record<string, string>) => string }

const group = (more: string): string =>
  `sites:\n  - name: hq\n    groups:\n      - name: a\n        origin: http://m.lan:8416\n${more.replace(/^/gm, '        ')}\n`
const yum = (entry: string): string => group(`yum:\n  - ${entry}`)

t.test('reads a fleet, with defaults and paths from the file’s folder', (t) => {
  const dir = t.testdir({ 'gapferry.yaml': HEAD + yum('{ id: x, baseurl: ["http://u/$basearch/"] }') })
  const { storeDir, keysDir, budgetBytes, sites } = loadFleet(join(dir, 'gapferry.yaml'))
  t.equal(storeDir, join(dir, 'store'))
  t.equal(keysDir, join(dir, 'keys'))
  t.equal(budgetBytes, 600_000_000)
  t.strictSame(sites, [
    {
      name: 'hq',
      groups: [
        {
          name: 'a',
          origin: 'http://m.lan:8416',
          yum: [{ id: 'x', baseurl: ['http://u/$basearch/'], vars: {}, gpgcheck: false, repoGpgcheck: false }],
          files: [],
        },
      ],
    },
  ])
  t.end()
})

t.test('every preset loads and names the vendor’s repositories', (t) => {
  for (const preset of PRESETS) {
    const { yum } = fleet(t, group(`preset: ${preset}`)).sites[0]!.groups[0]!
    t.ok(
      yum.some((repo) => repo.id === 'sng-pkgs' && repo.mirrorlist !== undefined),
      preset,
    )
    t.notOk(
      yum.some((repo) => repo.id === 'sng-commercial'),
      'what the vendor keeps off stays off',
    )
  }
  t.end()
})

t.test('an entry overrides the preset’s of the same id, field by field, and switches it on', (t) => {
  const own =
    'preset: pbxact-16\nyum:\n  - { id: sng-pkgs, include: ["asterisk*"], vars: { dist: x } }\n  - { id: sng-commercial }\n  - { id: sng-base, enabled: false }\n  - { id: sng-updates, baseurl: ["http://u/"] }\n  - { id: mine, baseurl: ["http://v/"] }'
  const { yum } = fleet(t, group(own)).sites[0]!.groups[0]!
  const byId = new Map(yum.map((repo) => [repo.id, repo]))
  t.strictSame(byId.get('sng-pkgs')?.include, ['asterisk*'])
  t.match(byId.get('sng-pkgs')?.mirrorlist, /mirrorlist\.sangoma\.net/)
  t.equal(byId.get('sng-pkgs')?.vars['dist'], 'x')
  t.ok(byId.get('sng-pkgs')?.vars['basearch'], 'variables of the preset stay')
  t.ok(byId.has('sng-commercial'))
  t.notOk(byId.has('sng-base'))
  t.strictSame(byId.get('sng-updates')?.baseurl, ['http://u/'])
  t.equal(byId.get('sng-updates')?.mirrorlist, undefined)
  t.ok(byId.has('mine'))
  t.end()
})

t.test('reads the vendor’s key from a file', (t) => {
  const key = '-----BEGIN PGP PUBLIC KEY BLOCK-----\n'
  const text = yum('{ id: x, baseurl: ["http://u/"], gpgkey: KEY, gpgcheck: true, repoGpgcheck: true }')
  t.equal(fleet(t, text, { KEY: key }).sites[0]!.groups[0]!.yum[0]!.gpgkey, key)
  t.throws(() => fleet(t, text, { KEY: 'x' }), { code: 'CONFIG_INVALID' })
  t.throws(() => fleet(t, text), { code: 'CONFIG_INVALID' })
  t.end()
})

t.test('settings from elsewhere are read before the files that they name are here', (t) => {
  const yum = 'yum: [{ id: x, baseurl: ["http://u/"], gpgkey: KEY, gpgcheck: true }]'
  const modules = 'modules: { feed: "http://u", major: 16, keys: [KEY], request: FORM }'
  const text = HEAD + group(`${yum}\n${modules}`)
  const file = join(t.testdir(), 'gapferry.yaml')
  t.throws(() => parseFleet(text, file), { code: 'CONFIG_INVALID', message: /KEY cannot be read/ })
  t.match(parseFleet(text, file, false).sites, [{ name: 'hq', groups: [{ name: 'a', modules: { major: 16 } }] }])
  t.end()
})

t.test('refuses what cannot be meant', (t) => {
  const cases: [string, string][] = [
    [yum('{ id: x }'), 'CONFIG_INVALID'],
    [yum('{ id: x, baseurl: ["http://u/"], mirrorlist: "http://m/" }'), 'CONFIG_INVALID'],
    [yum('{ id: x, baseurl: ["ftp://u/"] }'), 'CONFIG_INVALID'],
    [yum('{ id: x, baseurl: ["file:///etc"] }'), 'CONFIG_INVALID'],
    [yum('{ id: "a/b", baseurl: ["http://u/"] }'), 'CONFIG_INVALID'],
    [yum('{ id: x, baseurl: ["http://u/"], gpgcheck: true }'), 'CONFIG_INVALID'],
    [yum('{ id: x, baseurl: ["http://u/"], repoGpgcheck: true }'), 'CONFIG_INVALID'],
    [yum('{ id: x, baseurls: ["http://u/"] }'), 'CONFIG_KEY_UNKNOWN'],
    [group('yum: [{ id: x, baseurl: ["http://u/"] }, { id: x, baseurl: ["http://v/"] }]'), 'CONFIG_INVALID'],
    [yum('{ id: x, baseurl: ["http://u/"], vars: [] }'), 'CONFIG_INVALID'],
    [yum('{ id: x, baseurl: ["http://u/"], vars: { "a b": c } }'), 'CONFIG_INVALID'],
    [yum('{ id: x, baseurl: ["http://u/"], vars: { constructor: 1 } }'), 'CONFIG_INVALID'],
    [group('preset: pbxact-99'), 'CONFIG_INVALID'],
    [group('files: []'), 'CONFIG_INVALID'],
    [group('files: [{ url: "http://u/x", as: yum/x }]'), 'PATH_CONFLICT'],
    [group('files: [{ url: "http://u/x", as: ../x }]'), 'PATH_INVALID'],
    [group('files: [{ url: x, as: x }]'), 'CONFIG_INVALID'],
    [group('files: [{ url: "http://u/x", as: x }]').replace('8416', '8416/path'), 'CONFIG_INVALID'],
    [group('preset: pbxact-16').replace('hq', 'H Q'), 'CONFIG_INVALID'],
    [`budget: lots\n${group('preset: pbxact-16')}`, 'CONFIG_INVALID'],
    [`sties: []\n`, 'CONFIG_KEY_UNKNOWN'],
  ]
  for (const [text, code] of cases) t.throws(() => fleet(t, text), { code }, text.slice(-60))
  t.throws(() => loadFleet('/does/not/exist.yaml'), { code: 'CONFIG_MISSING' })
  t.end()
})

t.test('reads how this laptop gets to the upstreams', (t) => {
  const text = `link: { proxy: 'socks5://127.0.0.1:1080', noProxy: [lan, .example], rateLimit: 500KB/s, retries: 3, maxWaitSeconds: 5 }\n`
  t.strictSame(fleet(t, text + yum('{ id: x, baseurl: ["http://u/"] }')).link, {
    proxy: 'socks5://127.0.0.1:1080',
    noProxy: 'lan,.example',
    retries: 3,
    maxWaitMs: 5000,
    bytesPerSecond: 500_000,
  })
  t.equal(
    fleet(t, `link: { rateLimit: 1MB }\n${yum('{ id: x, baseurl: ["http://u/"] }')}`).link.bytesPerSecond,
    1_000_000,
  )
  for (const wrong of ['{ rateLimit: 1B/s }', '{ rateLimit: fast }', '{ retries: -1 }', '{ maxWaitSeconds: 0 }']) {
    t.throws(
      () => fleet(t, `link: ${wrong}\n${yum('{ id: x, baseurl: ["http://u/"] }')}`),
      { code: 'CONFIG_INVALID' },
      wrong,
    )
  }
  t.throws(() => fleet(t, `link: { proxies: x }\n${yum('{ id: x, baseurl: ["http://u/"] }')}`), {
    code: 'CONFIG_KEY_UNKNOWN',
  })
  t.end()
})
