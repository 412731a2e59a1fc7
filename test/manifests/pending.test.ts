/** How far a box is behind a tree. */
import t from 'tap'
import { parseInventory, type Inventory } from '../../manifests/inventory.ts'
import { behindCount, pendingUpdates } from '../../manifests/pending.ts'
import { inventoryText } from '../helpers/inventory-text.ts'

const PACKAGES = [
  ...[
    'bash 0 4.2 35.el7 x86_64',
    'kernel 0 3.10 1.el7 x86_64',
    'kernel 0 3.10 2.el7 x86_64',
    'glibc 0 2.17 1.el7 i686',
  ],
  ...['perl-Net-LibIDN 4 1.2 1.el7 x86_64', 'asterisk16 0 16.9.0 1 x86_64'],
]

function box(locks: string[] = [], plugins: string[] = []): Inventory {
  const settings = [...(plugins.length > 0 ? ['main plugins 1'] : []), ...locks.map((lock) => `lock ${lock}`)]
  const files = {
    'file /etc/yum.conf': ['[main]', 'plugins=1'],
    'file /etc/yum/pluginconf.d/versionlock.conf': ['[main]', 'enabled=1'],
  }
  const sections = { relations: [], packages: PACKAGES, settings, plugins, ...files }
  return parseInventory(Buffer.from(inventoryText({ sections })), 'x')
}

function packages(files: string[], of = box()): string[] | undefined {
  const entry = { sha256: 'a'.repeat(64), bytes: 1, modified: 0, type: 'x', kind: 'immutable' }
  const entries = new Map(files.map((file) => [`yum/base/Packages/${file}.rpm`, entry]))
  const served = { number: 1, entries: entries as never, read: () => Buffer.alloc(0) }
  return pendingUpdates(of, 'pbx1', served).packages
}

t.test('a package is pending where a newer one of its name and architecture is served', (t) => {
  t.strictSame(packages(['bash-4.2-36.el7.x86_64', 'bash-5-1.i686', 'other-1-1.noarch']), ['bash.x86_64'])
  t.strictSame(packages(['bash-4.2-34.el7.x86_64', 'bash-4.2-35.el7.x86_64']), [])
  t.strictSame(packages(['kernel-3.10-2.el7.x86_64']), [], 'one of several is the newest')
  t.strictSame(packages(['kernel-3.10-3.el7.x86_64']), ['kernel.x86_64'])
  t.strictSame(
    packages(['perl-Net-LibIDN-1.3-1.el7.x86_64']),
    ['perl-Net-LibIDN.x86_64'],
    'names of files have no epoch',
  )
  t.equal(packages([]), undefined, 'no packages are served')
  t.strictSame(packages(['not-a-package']), undefined)
  t.equal(behindCount({ packages: ['a'], modules: ['b', 'c'], number: 1 }), 3)
  t.equal(behindCount({ packages: undefined, modules: undefined, number: 1 }), 0)
  t.end()
})

t.test('what a version lock names does not count', (t) => {
  const served = ['asterisk16-16.20.0-1.x86_64', 'bash-4.2-36.el7.x86_64']
  for (const lock of ['asterisk16-0:16.9.0-*', '0:asterisk16-16.9.0-1.*', 'asterisk16-16.9.0-1.x86_64']) {
    t.strictSame(packages(served, box([lock], ['versionlock'])), ['bash.x86_64'], lock)
    t.strictSame(packages(served, box([lock])), ['asterisk16.x86_64', 'bash.x86_64'], `${lock}, without the plugin`)
  }
  for (const lock of ['asterisk-0:16.9.0-1', 'asterisk16-core-0:16.9.0-1', 'asterisk16']) {
    t.strictSame(packages(served, box([lock], ['versionlock'])), ['asterisk16.x86_64', 'bash.x86_64'], lock)
  }
  t.end()
})
