import fc from 'fast-check'
import t, { type Test } from 'tap'
import { GapferryError } from '../../manifests/errors.ts'
import { parseInventory, stateDigestOf, type Inventory } from '../../manifests/inventory.ts'
import { parseStandIn } from '../../manifests/stand-in.ts'
import { inventoryText, sealed, type InventoryParts } from '../helpers/inventory-text.ts'

const GOOD = inventoryText()

function parse(text: string): Inventory {
  return parseInventory(Buffer.from(text, 'latin1'), 'box.gfi')
}

function refused(t: Test, text: string, message: RegExp, why?: string): void {
  t.throws(() => parse(text), { code: 'INVENTORY_INVALID', message }, why ?? String(message))
}

/** With other lines under the same seal, as somebody would who edits the file and knows how. */
function edited(edit: (lines: string[]) => string[]): string {
  return sealed(edit(GOOD.trimEnd().split('\n').slice(0, -1)))
}

t.test('reads what gapferry-box wrote', (t) => {
  const box = parse(GOOD)
  t.match(box, { box: 'pbx1', createdAt: '2026-11-22T08:00:00Z', manager: 'yum', arch: 'x86_64', isGuess: false })
  t.strictSame(box.distribution, { id: 'centos', version: '7.9.2009', name: 'CentOS Linux release 7.9.2009 (Core)' })
  t.strictSame(box.packages, [
    {
      ...{ name: 'bash', epoch: '0', version: '4.2', release: '35.el7', arch: 'x86_64' },
      provides: [{ name: 'bash', flags: 'EQ', version: '4.2', release: '35.el7' }],
      requires: [{ name: 'glibc', flags: 'GE', version: '2.0' }],
    },
    {
      ...{ name: 'glibc', epoch: '0', version: '2.17', release: '326.el7', arch: 'x86_64' },
      provides: [{ name: 'glibc', flags: 'EQ', version: '2.17', release: '326.el7' }],
      requires: [{ name: '/bin/sh' }],
    },
  ])
  const nevras = ['glibc-2.17-326.el7.x86_64', 'bash-4.2-35.el7.x86_64']
  t.equal(box.stateDigest, stateDigestOf(nevras, ['main plugins 1']))
  t.not(box.stateDigest, stateDigestOf(nevras, []))
  t.end()
})

t.test('what is not the file as it was written is refused with the line and what was expected', (t) => {
  const cases: [string, RegExp][] = [
    ['', /line 1: expected "gapferry-inventory 1", found ""/],
    [`Welcome to PBX1!\n${GOOD}`, /line 1: expected "gapferry-inventory 1", found "Welcome to PBX1!"/],
    [GOOD.replaceAll('\n', '\r\n'), /line 1: expected printable ASCII, found a line end of Windows/],
    [GOOD.replace('plugins=1', 'plugins=1\r'), /line 13: .*found a line end of Windows/],
    [GOOD.replace('inventory 1', 'inventory 2'), /line 1: expected version 1, found version 2/],
    [GOOD.slice(0, 300), /line 17: expected a section or the last line, found the end of the file: it was cut off/],
    [
      GOOD.split('\n').slice(0, 13).join('\n') + '\n',
      /line 14: expected a section or the last line, found the end of the file/,
    ],
    [GOOD.slice(0, 430), /line 22: the section packages says 2 lines, found \d/],
    [GOOD.trimEnd(), /line \d+: expected nothing after the last line, found no line end/],
    [`${GOOD}logout\n`, /line 28: expected nothing after the last line, found "logout"/],
    [`${GOOD}\n`, /line 28: expected nothing after the last line/],
    [GOOD.replace('[main]\n', '[main]\nforeign\n'), /line 14: expected a section or the last line, found "plugins=1"/],
    [GOOD.replace('glibc 0 2.17', 'glibc 0 2.18'), /line 27: expected SHA-256 .*something was changed/],
    [GOOD.replace(/^end (\d+)/m, 'end 99'), /line 27: expected 99 lines before this one, found 26/],
    [GOOD.replace('CentOS', 'Cent\xf6S'), /line 10: expected printable ASCII/],
    [edited((lines) => [...lines, 'section plugins 0']), /line 27: the section plugins stands there twice/],
    [
      edited((lines) => [...lines, 'section modules 0']),
      /line 27: the section modules of gapferry-box 0\.1\.0 is not known/,
    ],
    [edited((lines) => [...lines, 'section file 0']), /the section file of gapferry-box/],
    [edited((lines) => [...lines, 'section file 0 /etc/strange']), /the file \/etc\/strange has no meaning here/],
    [edited((lines) => [...lines, 'section plugins 0 x']), /the section plugins of/],
    [
      edited((lines) => lines.map((line) => line.replace('section plugins 0', 'section plugins 999'))),
      /says 999 lines, found/,
    ],
  ]
  for (const [text, message] of cases) refused(t, text, message)
  t.end()
})

t.test('facts of a section that are missing, doubled or senseless are refused', (t) => {
  const parts: [InventoryParts, RegExp][] = [
    [{ sections: { settings: undefined } }, /expected a section settings, found none/],
    [{ sections: { packages: undefined } }, /expected a section packages/],
    [{ manager: 'apt' }, /the section relations of gapferry-box/],
    [{ manager: 'zypper' }, /manager: expected yum, dnf, apt, found "zypper"/],
    [{ box: '../x' }, /box: expected a host name/],
    [{ created: '2026-02-30T00:00:00Z' }, /created: expected a time/],
    [{ sections: { box: ['box a'] } }, /line 2: expected a line "created/],
    [{ sections: { box: ['box a', 'box b'] } }, /line 4: expected one of box, created/],
    [
      { sections: { packages: ['bash 0 4.2'] } },
      /line 23: expected a package with numbers of relations, found "bash 0 4.2"/,
    ],
    [{ sections: { packages: ['bash 0 4.2 1 noarch p=5'] } }, /line 23: expected a package/],
    [{ sections: { packages: ['bash 0 4.2 1 noarch p=0'] } }, /line 23/],
    [{ sections: { packages: ['bash 0 4.2 1 noarch p=2-1'] } }, /line 23/],
    [{ sections: { packages: ['bash 0 4.2 1 noarch r=1 p=1'] } }, /line 23/],
    [{ sections: { packages: ['bash 0 4.2 1 noarch p=1 p=1'] } }, /line 23/],
    [{ sections: { packages: ['bash 0 4.2 1 noarch x=1'] } }, /line 23/],
    [{ sections: { packages: ['bash 0 4.2 1 noarch f=1'] } }, /line 23/],
    [{ sections: { packages: ['bash 00 4.2 1 noarch'] } }, /line 23/],
    [{ sections: { packages: ['bash 4294967296 4.2 1 noarch'] } }, /line 23/],
    [{ sections: { relations: ['a b'] } }, /line 18: expected a relation, as "glibc >= 2.17", found "a b"/],
    [{ sections: { relations: ['a ~ 1'] } }, /line 18/],
    [{ sections: { relations: ['a = 1 2'] } }, /line 18/],
    [{ sections: { relations: ['%61'] } }, /line 18/],
    [{ sections: { relations: ['%zz'] } }, /line 18/],
    [{ sections: { readiness: ['dns'] } }, /line 27: expected a fact with its value, once/],
    [{ sections: { readiness: ['dns 1', 'dns 2'] } }, /line 28/],
    [{ sections: { freepbx: ['framework'] } }, /expected a fact of FreePBX/],
    [{ sections: { freepbx: ['license-fact /x a b'] } }, /expected a fact of FreePBX/],
    ...[
      ['key-line 9f9169f4b33b4659 x'],
      ['key-line ../../x y'],
      [`key-line ${'A'.repeat(16)} ${'x'.repeat(60_000)}`, `key-line ${'A'.repeat(16)} ${'x'.repeat(6000)}`],
      Array.from({ length: 21 }, (_, i) => `key-line ${String(i).padStart(16, '0')} x`),
      ['setting X 1', 'setting X 2'],
      ['sound a b c d'],
      ['sound a b c d e f'],
      ['active-repo a b'],
      ['framework 1', 'framework 2'],
      ['key a b'],
      ['module a b c'],
    ].map((freepbx): [InventoryParts, RegExp] => [{ sections: { freepbx } }, /expected a fact of FreePBX/]),
    [{ sections: { plugins: ['%41'] } }, /expected bytes in the spelling of gapferry-box/],
  ]
  for (const [one, message] of parts) refused(t, inventoryText(one), message)
  t.end()
})

t.test('keys, sound packages and settings; an older gapferry-box says nothing of them', (t) => {
  const id = '9F9169F4B33B4659'
  const lines = ['BEGIN', '', 'a  b%25 '].map((line) => `key-line ${id} ${line}`)
  const freepbx = [
    ...lines,
    'sound asterisk core-sounds en%2520GB ulaw 1.6',
    'setting A ',
    'setting B 1 2',
    'active-repo x',
  ]
  const read = (section: string[]) =>
    parseInventory(Buffer.from(inventoryText({ sections: { freepbx: section } })), 'box.gfi').freepbx
  t.strictSame(read(freepbx), {
    ...read(['framework 16.0']),
    framework: undefined,
    keyFiles: new Map([[id, 'BEGIN\n\na  b% \n']]),
    sounds: [{ type: 'asterisk', module: 'core-sounds', language: 'en GB', format: 'ulaw', version: '1.6' }],
    settings: new Map([
      ['A', ''],
      ['B', '1 2'],
    ]),
    activeRepos: ['x'],
  })
  t.match(read(['framework 16.0']), { keyFiles: new Map(), sounds: [], settings: new Map(), activeRepos: [] })
  t.end()
})

t.test('limits of pasted lists hold', (t) => {
  const box = { name: 'x', createdAt: '2026-11-22T08:00:00Z' }
  const read = (text: string) => parseStandIn(Buffer.from(text), box, 'rpms')
  t.throws(() => read('a-1-1.noarch\n'.repeat(30_000)), { message: /expected at most 30000 lines/ })
  t.throws(() => read('x'.repeat(4 * 1024 * 1024 + 1)), { message: /expected at most 4194304 bytes/ })
  t.throws(() => read('| a b | 1 | 2 | 3 |'), { message: /line 1: / })
  t.match(read('dnf-4.14-1.noarch\nyum-4.14-1.noarch\na-1-1.i686\nb-1-1.x86_64\nc-1-1.x86_64'), {
    manager: 'dnf',
    arch: 'x86_64',
  })
  t.match(read('rocky-release-8.9-1.noarch'), {
    manager: 'yum',
    arch: 'x86_64',
    distribution: { id: 'rocky', version: '8.9' },
  })
  t.end()
})

t.test('limits hold', (t) => {
  const many = Array.from({ length: 20_001 }, (_, i) => `p${i} 0 1 1 noarch`)
  refused(t, inventoryText({ sections: { packages: many } }), /expected at most 20000 packages, found 20001/)
  refused(
    t,
    inventoryText({ sections: { plugins: ['x'.repeat(65_537)] } }),
    /line 17: expected at most 65536 characters/,
  )
  refused(t, 'x'.repeat(4 * 1024 * 1024 + 1), /expected at most 4194304 bytes/)
  const relations = Array.from({ length: 1000 }, (_, i) => `r${i}`)
  const packages = Array.from({ length: 2001 }, (_, i) => `p${i} 0 1 1 noarch r=1-1000`)
  refused(t, inventoryText({ sections: { relations, packages } }), /expected a package/)
  t.end()
})

t.test('variables, releases and plugins are those that the manager computes', (t) => {
  const file = (release: string[], provides: string) =>
    parse(
      inventoryText({
        sections: {
          'file /etc/redhat-release': undefined,
          'file /etc/os-release': release,
          relations: [provides],
          packages: ['os 0 8 3 noarch p=1'],
          'file /etc/dnf/vars/releasever': undefined,
        },
      }),
    )
  t.equal(file([], 'system-release(releasever) = 8.5-1').variables.get('releasever'), '8.5-1')
  t.equal(file([], 'redhat-release').variables.get('releasever'), '8')
  t.equal(file([], 'os').variables.get('releasever'), undefined)
  t.strictSame(file(["ID='x'", 'broken', 'VERSION_ID=1'], 'os').distribution, { id: 'x', version: '1', name: 'x 1' })
  t.strictSame(file([], 'os').distribution, { id: 'unknown', version: '', name: 'unknown' })
  const over = parse(
    inventoryText({ sections: { 'file /etc/yum/vars/releasever': ['9 '], 'file /etc/yum/vars/empty': [] } }),
  )
  t.strictSame([over.variables.get('releasever'), over.variables.get('empty')], ['9', ''])
  const apt = parse(
    inventoryText({
      manager: 'apt',
      sections: {
        'file /etc/redhat-release': undefined,
        'file /etc/yum.conf': undefined,
        'file /etc/debian_version': ['12.4'],
        'file /etc/apt/sources.list': ['deb http://x bookworm main'],
        relations: undefined,
        packages: undefined,
        'rpm-keys': undefined,
        settings: [],
      },
    }),
  )
  t.match(apt, { manager: 'apt', packages: [], managerVersion: '' })
  t.end()
})

t.test('whatever the bytes are, it is read or refused', (t) => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 2000 }), (bytes) => isReadOrRefused(Buffer.from(bytes))))
  const lines = GOOD.trimEnd().split('\n').slice(0, -1)
  const word = fc.oneof(
    fc.constantFrom(...lines, 'section x 1', 'section file 0 /a', 'p=1-2', '%0a', 'end 1 00'),
    fc.string({ maxLength: 20 }),
  )
  const edit = fc.tuple(fc.nat(lines.length), fc.nat(2), fc.array(word, { maxLength: 3 }))
  fc.assert(
    fc.property(fc.array(edit, { maxLength: 4 }), (edits) => {
      const changed = [...lines]
      for (const [at, count, added] of edits) changed.splice(at, count, ...added)
      return isReadOrRefused(Buffer.from(sealed(changed), 'latin1'))
    }),
    { numRuns: 500 },
  )
  const pasted = fc.array(
    fc.oneof(fc.constantFrom('bash-4.2-1.noarch', '| core | 16 | Enabled | GPL |', '+--+'), fc.string()),
  )
  fc.assert(
    fc.property(pasted, (rows) => {
      const box = { name: 'x', createdAt: '2026-11-22T08:00:00Z' }
      return isReadOrRefused(Buffer.from(rows.join('\n')), (bytes) => parseStandIn(bytes, box, 'rpms'))
    }),
  )
  t.pass('only GapferryErrors')
  t.end()
})

function isReadOrRefused(
  bytes: Buffer,
  read: (bytes: Buffer) => Inventory = (all) => parseInventory(all, 'box.gfi'),
): boolean {
  try {
    read(bytes)
    return true
  } catch (error) {
    return error instanceof GapferryError && error.code === 'INVENTORY_INVALID'
  }
}

t.test('a hostile inventory is read in a time that follows its size', (t) => {
  const many = (n: number): string[] => Array.from({ length: n }, (_, i) => `a${i}`)
  const release = `distroverpkg=${many(9000).join(',')}`
  const texts: Record<string, string> = {
    sections: inventoryText({ sections: Object.fromEntries(many(60_000).map((one) => [`file /etc/apt/${one}`, []])) }),
    continued: inventoryText({
      sections: { 'file /etc/yum.conf': ['[main]', 'exclude=a', ...Array<string>(900_000).fill(' a')] },
    }),
    release: inventoryText({
      sections: {
        'file /etc/yum.conf': ['[main]', release],
        relations: Array.from({ length: 50 }, (_, i) => `b${i}`),
        packages: many(20_000).map((name) => `${name} 0 1 1 noarch p=1-50`),
      },
    }),
  }
  for (const [name, text] of Object.entries(texts)) {
    const before = process.cpuUsage().user
    parse(text)
    const ms = (process.cpuUsage().user - before) / 1000
    t.ok(ms < 8000, `${name}: ${Math.round(ms)} ms`)
  }
  t.end()
})
