import { join } from 'node:path'
import t from 'tap'
import { parseInventory } from '../../manifests/inventory.ts'
import { runBox } from './box-root.ts'
import { makeFolderBox } from './folder-box/box.ts'
import { vendorMirrorlist, vendorRepoFiles } from './folder-box/el7.ts'
import { mustRun, run } from './process.ts'

t.test('an SNG7 box is read as one: repositories, variables, modules, settings, keys', async (t) => {
  const box = await makeFolderBox(t.testdir(), { major: 16, modules: { endpoint: '16.0.1' } })
  const before = box.everything()
  const outcome = await runBox(['inventory', '--root', box.root], { path: box.path })
  t.match(outcome, { status: 0, stderr: '' })
  const inventory = parseInventory(Buffer.from(outcome.stdout), 'box.gfi')
  t.match(inventory, { manager: 'yum', managerVersion: '3.4.3', distribution: { id: 'sangoma', version: '7' } })
  const on = inventory.repositories.filter(({ options }) => options.get('enabled') !== '0').map(({ id }) => id)
  t.strictSame(on, ['sng-base', 'sng-updates', 'sng-extras', 'sng-pkgs', 'sng-epel'])
  const pkgs = inventory.repositories.find(({ id }) => id === 'sng-pkgs')!
  t.equal(pkgs.options.get('mirrorlist'), vendorMirrorlist('sng7'))
  t.match(Object.fromEntries(inventory.variables), { releasever: '7', dist: 'sng7', staging: '' })
  t.strictSame(
    inventory.freepbx?.modules.map(({ name, state }) => [name, state]),
    [
      ['core', 'enabled'],
      ['endpoint', 'enabled'],
      ['framework', 'enabled'],
    ],
  )
  t.equal(inventory.freepbx?.keys.length, 3)
  t.match(Object.fromEntries(inventory.freepbx!.profile), { brandid: 'pbxact', deploymentid: '12345678', ucount: '3' })
  t.equal(inventory.readiness.get('module-repo'), 'https://mirror.freepbx.org')
  t.strictSame(box.calls({ isChange: true }), [])
  t.equal(box.calls().length, 1)
  t.strictSame(box.everything(), before)
})

t.test('a Debian 12 box is read as one', async (t) => {
  const box = await makeFolderBox(t.testdir(), { major: 17 })
  const outcome = await runBox(['inventory', '--root', box.root], { path: box.path })
  const inventory = parseInventory(Buffer.from(outcome.stdout), 'box.gfi')
  t.match(inventory, { manager: 'apt', distribution: { id: 'debian', version: '12' } })
  t.match(inventory.freepbx, { framework: '17.0.19.29' })
  t.equal(inventory.freepbx?.keys.length, 3)
})

t.test('what fwconsole sets mysql tells, and what mysql writes fwconsole tells', async (t) => {
  const box = await makeFolderBox(t.testdir(), { major: 16, programs: ['systemctl'] })
  const env = { PATH: `${box.path}:/usr/bin:/bin`, MYSQL_PWD: "pa'ss word" }
  const mysql = (sql: string) => run('mysql', ['-BN', '-u', 'freepbxuser', 'asterisk', '-e', sql], { env })
  const fwconsole = (...args: string[]) => run('fwconsole', args, { env })
  await mustRun('fwconsole', ['setting', 'MODULE_REPO', 'http://m:8416'], { env })
  t.match(await mysql('SELECT value, defaultval FROM freepbx_settings WHERE keyword = "MODULE_REPO"'), {
    stdout: 'http://m:8416\thttps://mirror.freepbx.org\n',
  })
  t.match(await mysql("UPDATE `freepbx_settings` SET defaultval = 'it\\'s' WHERE keyword='MODULE_REPO'; SELECT 1"), {
    ...{ status: 0, stdout: '1\n' },
  })
  t.strictSame(box.setting('MODULE_REPO'), ['http://m:8416', "it's"])
  t.match(await fwconsole('setting', 'MODULE_REPO'), { stdout: /\[http:\/\/m:8416\]/ })
  t.match(await fwconsole('setting', 'NO_SUCH'), { status: 4 })
  t.match(await fwconsole('ma', 'list', '--format=json'), { stdout: /\["core","16.0.10","Enabled","GPLv3\+"\]/ })
  t.match(await mysql('SELECT * FROM nowhere'), { status: 1, stderr: /^ERROR / })
  box.set('MODULE_REPO', 'https://mirror.freepbx.org')
  box.onModuleAdmin('echo "$1 from $MODULE_REPO"')
  t.match(await fwconsole('ma', 'upgradeall'), { status: 0, stdout: 'upgradeall from https://mirror.freepbx.org\n' })
  box.answer('systemctl', 3, 'inactive\n')
  t.match(await run('systemctl', ['is-active', 'httpd'], { env }), { status: 3, stdout: 'inactive\n' })
  t.equal(box.calls({ isChange: true }).length, 4)
  box.database(false)
  t.match(await mysql('SELECT 1'), { status: 1, stderr: /^ERROR 2002/ })
  box.forget()
  t.strictSame(box.calls(), [])
  t.match(await run('mysql', ['-u', 'root', 'asterisk'], { env, input: 'SELECT 1;' }), { status: 1 })
})

t.test('its files can be written, read and compared', async (t) => {
  const box = await makeFolderBox(join(t.testdir(), 'x'), { major: 15, without: ['0000000000000000.key'] })
  const before = box.everything()
  box.write('/etc/yum.repos.d/Sangoma-Base.repo', 'x')
  t.not(box.everything()['etc/yum.repos.d/Sangoma-Base.repo'], before['etc/yum.repos.d/Sangoma-Base.repo'])
  box.write('/etc/yum.repos.d/Sangoma-Base.repo', vendorRepoFiles()['Sangoma-Base.repo']!)
  t.strictSame(box.everything(), before)
  t.match(box.read('/etc/yum.repos.d/Sangoma-Base.repo'), /^\[sng-pkgs\]$/m)
})
