import t from 'tap'
import { GapferryError } from '../../manifests/errors.ts'
import { HostTable } from '../../server/hosts.ts'

const HERE = { localAddress: '192.0.2.7' }

/** the origin's value, or the error's code */
function found(table: HostTable<string>, host: string | undefined, target = '/x', connection = HERE): string {
  try {
    return table.find(target, { host, hostCount: host === undefined ? 0 : 1 }, connection).value
  } catch (error) {
    return (error as GapferryError).code
  }
}

t.test('one origin on one address', (t) => {
  const table = new HostTable({ host: '192.0.2.7', port: 8416 }, [
    { hosts: ['mirror.hq.lan', 'nat.lan:80'], value: 'pbx' },
  ])
  const good = [
    'mirror.hq.lan',
    'mirror.hq.lan:8416',
    'MIRROR.HQ.LAN:8416',
    '192.0.2.7',
    '192.0.2.7:8416',
    'nat.lan:80',
  ]
  for (const host of good) t.equal(found(table, host), 'pbx', host)
  const unknown = [
    'mirror',
    'mirror.hq.lan:80',
    'mirror.hq.lan.evil',
    'nat.lan',
    'nat.lan:8416',
    '192.0.2.8',
    'localhost',
  ]
  for (const host of [...unknown, '0.0.0.0', '[::1]', 'mirror.hq.lan.'])
    t.equal(found(table, host), 'HOST_UNKNOWN', host)
  const malformed = [
    '',
    'a b',
    'user@mirror.hq.lan',
    'mirror.hq.lan/',
    'mirror.hq.lan:',
    'mirror.hq.lan:8416:1',
    '[::1',
    'm\u00fcnchen',
  ]
  for (const host of [...malformed, 'mirror.hq.lan:123456', 'a, b']) t.equal(found(table, host), 'HOST_INVALID', host)
  t.equal(found(table, undefined), 'pbx', 'HTTP/1.0 without Host')
  t.end()
})

t.test('one origin on all addresses answers to the one that was connected to', (t) => {
  for (const host of ['0.0.0.0', '::']) {
    const table = new HostTable({ host, port: 8416 }, [{ hosts: ['mirror.hq.lan'], value: 'pbx' }])
    for (const name of ['mirror.hq.lan', '192.0.2.7', '192.0.2.7:8416']) t.equal(found(table, name), 'pbx', name)
    for (const name of ['192.0.2.8', '192.0.2.7:80', '0.0.0.0', '[::]', 'localhost']) {
      t.equal(found(table, name), 'HOST_UNKNOWN', name)
    }
    t.equal(found(table, '192.0.2.7', '/x', { localAddress: '::ffff:192.0.2.7' }), 'pbx')
    t.equal(found(table, '[2001:db8::7]:8416', '/x', { localAddress: '2001:db8::7' }), 'pbx')
    t.equal(found(table, 'localhost:8416', '/x', { localAddress: '127.0.0.1' }), 'pbx')
    t.equal(found(table, '[::1]', '/x', { localAddress: '::1' }), 'pbx')
  }
  t.end()
})

t.test('a loopback listener answers to the names of loopback', (t) => {
  for (const host of ['localhost', '127.0.0.1', '127.0.0.5', '::1']) {
    const table = new HostTable({ host, port: 8480 }, [{ hosts: [], value: 'admin' }])
    for (const name of ['localhost', '127.0.0.1:8480', '[::1]:8480']) t.equal(found(table, name), 'admin', name)
    t.equal(found(table, 'rebound.example'), 'HOST_UNKNOWN')
    t.equal(found(table, '192.0.2.7'), 'HOST_UNKNOWN')
  }
  t.end()
})

t.test('two origins on one address are told apart by name only', (t) => {
  const table = new HostTable({ host: '0.0.0.0', port: 80 }, [
    { hosts: ['a.lan'], value: 'a' },
    { hosts: ['b.lan', '[2001:db8::b]'], value: 'b' },
  ])
  t.equal(found(table, 'a.lan'), 'a')
  t.equal(found(table, 'B.lan:80'), 'b')
  t.equal(found(table, '[2001:db8::b]:80'), 'b')
  t.equal(found(table, '192.0.2.7'), 'HOST_UNKNOWN')
  t.equal(found(table, undefined), 'HOST_INVALID')
  t.end()
})

t.test('absolute targets', (t) => {
  const table = new HostTable({ host: '127.0.0.1', port: 80 }, [{ hosts: ['a.lan'], value: 'a' }])
  const head = { host: 'a.lan', hostCount: 1 }
  t.same(table.find('http://a.lan/x?y', head, HERE), { value: 'a', target: '/x?y' })
  t.same(table.find('HTTP://A.lan', head, HERE), { value: 'a', target: '/' })
  t.same(table.find('http://a.lan?y', head, HERE), { value: 'a', target: '/?y' })
  t.equal(found(table, 'a.lan', 'http://localhost/x'), 'HOST_UNKNOWN', 'another than Host')
  t.equal(found(table, 'evil', 'http://evil/x'), 'HOST_UNKNOWN')
  t.equal(found(table, undefined, 'http://evil/x'), 'HOST_UNKNOWN', 'HTTP/1.0')
  t.equal(found(table, 'u@a.lan', 'http://u@a.lan/x'), 'HOST_INVALID')
  for (const target of ['x', '*', 'ftp://a.lan/x', 'a.lan:80', '', '\\x']) {
    t.equal(found(table, 'a.lan', target), 'PATH_INVALID', target)
  }
  t.end()
})

t.test('two Host headers', (t) => {
  const table = new HostTable({ host: '127.0.0.1', port: 80 }, [{ hosts: ['a.lan'], value: 'a' }])
  t.throws(() => table.find('/x', { host: 'a.lan, a.lan', hostCount: 2 }, HERE), { code: 'HOST_INVALID' })
  t.end()
})
