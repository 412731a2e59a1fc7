import t from 'tap'
import { join } from 'node:path'
import { listenerUrl, loadMirrorConfig, namesOf, parseMirrorConfig, parseOriginOption } from '../../server/config.ts'

const HEAD = 'apiVersion: gapferry/v1\nkind: Mirror\n'
const two = (a: string, b: string) => parse(`origins:\n  - { group: a, ${a} }\n  - { group: b, ${b} }`)
const parse = (text: string) => parseMirrorConfig(HEAD + text, '/etc/gapferry/mirror.yaml')

t.test('reads the settings of the manual, with paths from their own folder', async (t) => {
  const config = parse(`
store: ./store
admin: { listen: "127.0.0.1:8480" }
origins:
  - { group: pbxact16, listen: 0.0.0.0:8416, hosts: [Mirror.hq.lan, "10.0.0.5:80", "[::1]"] }
inventories: false
warnAfterDays: 30
keepPreviousHours: 48
`)
  t.same(config, {
    file: '/etc/gapferry/mirror.yaml',
    storeDir: '/etc/gapferry/store',
    admin: { host: '127.0.0.1', port: 8480, hosts: [] },
    origins: [{ group: 'pbxact16', host: '0.0.0.0', port: 8416, hosts: ['mirror.hq.lan', '10.0.0.5:80', '[::1]'] }],
    takesInventories: false,
    warnAfterDays: 30,
    keepPreviousHours: 48,
  })
})

t.test('has a default for everything but what it is', async (t) => {
  t.same(parse(''), {
    file: '/etc/gapferry/mirror.yaml',
    storeDir: '/etc/gapferry/store',
    admin: { host: '127.0.0.1', port: 8480, hosts: [] },
    origins: [],
    takesInventories: true,
    warnAfterDays: 100,
    keepPreviousHours: 48,
  })
  t.equal(parse('store: /var/lib/gapferry').storeDir, '/var/lib/gapferry')
})

t.test('names an unknown key and the nearest known one', async (t) => {
  t.throws(() => parse('orgins: []'), { code: 'CONFIG_KEY_UNKNOWN', hint: /origins/ })
  t.throws(() => parse('admin: { listne: "127.0.0.1:1" }'), { code: 'CONFIG_KEY_UNKNOWN', hint: /listen/ })
})

t.test('refuses values that no mirror could work with', async (t) => {
  for (const text of [
    'origins: [{ group: "Not A Name", listen: "0.0.0.0:1" }]',
    'origins: [{ group: a, listen: "0.0.0.0" }]',
    'origins: [{ group: a, listen: "0.0.0.0:65536" }]',
    'origins: [{ group: a, listen: "0.0.0.0:1", hosts: ["http://x"] }]',
    'origins: [{ group: a, listen: "0.0.0.0:1", hosts: ["a b"] }]',
    'keepPreviousHours: -1',
    'warnAfterDays: -1',
    'inventories: off please',
    'kind: Fleet',
    'admin: []',
    'origins: {}',
    'store:',
  ]) {
    t.throws(() => parse(text), { code: 'CONFIG_INVALID' }, text)
  }
  t.throws(() => parseMirrorConfig('kind: Fleet\napiVersion: gapferry/v1', 'x'), { code: 'CONFIG_INVALID' })
})

t.test('refuses origins that could not be told apart', async (t) => {
  t.throws(() => parse('origins: [{ group: a, listen: "0.0.0.0:1" }, { group: a, listen: "0.0.0.0:2" }]'), {
    code: 'CONFIG_INVALID',
  })
  t.throws(() => two('listen: "1.2.3.4:80"', 'listen: "1.2.3.4:80"'), { code: 'CONFIG_INVALID' })
  t.throws(() => two('listen: "1.2.3.4:80", hosts: [x]', 'listen: "1.2.3.4:80"'), { code: 'CONFIG_INVALID' })
  t.throws(() => two('listen: "1.2.3.4:80", hosts: [x]', 'listen: "1.2.3.4:80", hosts: [y, X]'), {
    code: 'CONFIG_INVALID',
  })
  t.throws(() => two('listen: "0.0.0.0:80", hosts: [x]', 'listen: "1.2.3.4:80", hosts: [y]'), {
    code: 'CONFIG_INVALID',
  })
  t.throws(
    () => parse('origins: [{ group: a, listen: "0.0.0.0:8480", hosts: [x] }]'),
    { code: 'CONFIG_INVALID' },
    'admin has it',
  )
  t.equal(two('listen: "1.2.3.4:80", hosts: [x]', 'listen: "1.2.3.4:80", hosts: [y]').origins.length, 2)
  t.equal(two('listen: "1.2.3.4:80"', 'listen: "1.2.3.5:80"').origins.length, 2)
  t.equal(two('listen: "127.0.0.1:0"', 'listen: "127.0.0.1:0"').origins.length, 2, 'any free port')
})

t.test('says when there is no file', async (t) => {
  t.throws(() => loadMirrorConfig(join(t.testdir(), 'mirror.yaml')), { code: 'CONFIG_MISSING', hint: /init/ })
})

t.test('reads an origin as the command line gives it', async (t) => {
  t.same(parseOriginOption('pbx=[::]:8416', ['a.lan']), { group: 'pbx', host: '::', port: 8416, hosts: ['a.lan'] })
  for (const text of ['pbx', '=0.0.0.0:1', 'pbx=0.0.0.0', 'P B X=0.0.0.0:1']) {
    t.throws(() => parseOriginOption(text, []), { code: 'USAGE_INVALID' }, text)
  }
})

t.test('says how an origin is reached', async (t) => {
  t.equal(listenerUrl({ host: '127.0.0.1', port: 8416, hosts: [] }), 'http://127.0.0.1:8416')
  t.equal(listenerUrl({ host: '::1', port: 8416, hosts: [] }), 'http://[::1]:8416')
  t.equal(listenerUrl({ host: '0.0.0.0', port: 8416, hosts: ['mirror.hq.lan', 'x'] }), 'http://mirror.hq.lan:8416')
  t.equal(listenerUrl({ host: '0.0.0.0', port: 8416, hosts: ['mirror.hq.lan:80'] }), 'http://mirror.hq.lan:80')
})

t.test('the vendor’s names belong to one origin at each address', async (t) => {
  const { origins } = two('listen: "1.2.3.4:80", vendorNames: true', 'listen: "1.2.3.5:80", vendorNames: true')
  t.match(origins, [{ vendorNames: true, hosts: [] }, { vendorNames: true }])
  t.strictSame(two('listen: "1.2.3.4:80"', 'listen: "1.2.3.5:80", vendorNames: false').origins.filter(hasNames), [])
  for (const [a, b] of [
    ['listen: "1.2.3.4:80", hosts: [x], vendorNames: true', 'listen: "1.2.3.4:80", hosts: [y], vendorNames: true'],
    ['listen: "1.2.3.4:80", vendorNames: true', 'listen: "1.2.3.4:81", vendorNames: true'],
    ['listen: "0.0.0.0:80", vendorNames: true', 'listen: "1.2.3.4:81", vendorNames: true'],
    ['listen: "1.2.3.4:80", hosts: [x], vendorNames: true', 'listen: "1.2.3.4:80", hosts: [SNG7.com]'],
  ] as const) {
    t.throws(() => two(a, b), { code: 'CONFIG_INVALID' }, a)
  }
  t.throws(
    () =>
      two('listen: "1.2.3.4:80", hosts: [x], vendorNames: true', 'listen: "1.2.3.4:80", hosts: [y], vendorNames: true'),
    {
      ...{ message: /both have vendorNames/, hint: /an address of its own/ },
    },
  )
  const shared = two('listen: "1.2.3.4:80", hosts: [x], vendorNames: true', 'listen: "1.2.3.4:80", hosts: [y]')
  t.strictSame(namesOf(shared.origins[0]!), [
    'x',
    'mirrorlist.sangoma.net',
    'package1.sangoma.net',
    'sng7.com',
    'mirror.freepbx.org',
  ])
  t.strictSame(namesOf(shared.origins[1]!), ['y'])
})

const hasNames = (origin: { vendorNames?: true }): boolean => 'vendorNames' in origin
