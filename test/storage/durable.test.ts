import { spawnSync } from 'node:child_process'
import { closeSync, openSync, readdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { constants } from 'node:os'
import { basename, join } from 'node:path'
import t from 'tap'
import { makeScratch, noticeShortSpace, replaceFile, syncFolder, systemCode, writeAll } from '../../storage/durable.ts'

t.test('a full disk is said plainly', (t) => {
  const fd = openSync('/dev/full', 'w')
  t.throws(() => writeAll(fd, Buffer.alloc(10), 'x.tar'), { code: 'SPACE_SHORT', message: /x\.tar/ })
  t.doesNotThrow(() => writeAll(fd, Buffer.alloc(0), 'x.tar'))
  closeSync(fd)
  t.throws(() => replaceFile('/dev/full/x', Buffer.alloc(1)), { code: 'ENOTDIR' }, 'other errors stay what they are')
  t.end()
})

t.test('a file system that takes no larger file is told with what to do', (t) => {
  const error = Object.assign(new Error('EFBIG'), { code: 'EFBIG' })
  const fail = (): never => {
    throw error
  }
  t.throws(() => noticeShortSpace('x.tar', fail), { code: 'SPACE_SHORT', hint: /--part-size/ })
  t.end()
})

t.test('replaces a file in one step and leaves nothing beside it', (t) => {
  const dir = t.testdir({ file: 'old', 'file.part': 'left by a crash' })
  const file = join(dir, 'file')
  t.equal(replaceFile(file, Buffer.from('new')), true)
  t.equal(readFileSync(file, 'utf8'), 'new')
  t.strictSame(readdirSync(dir), ['file'])
  t.equal(replaceFile(join(dir, 'key'), Buffer.from('secret'), 0o600), true)
  t.equal(statSync(join(dir, 'key')).mode & 0o777, 0o600)
  t.end()
})

t.test('what a crash left beside a file goes, also where the file is as it shall be', (t) => {
  const dir = t.testdir({ file: 'same', 'file.part': 'left by a crash' })
  t.equal(replaceFile(join(dir, 'file'), Buffer.from('same')), false)
  t.strictSame(readdirSync(dir), ['file'])
  t.end()
})

t.test('a scratch folder is removed by the next run when its process is gone, never while it lives', (t) => {
  const { pid: gone } = spawnSync('true')
  const dir = t.testdir({
    [`x-${gone}-abc`]: { key: 'secret' },
    [`y-${gone}-abc`]: {},
    'x-old': {},
    [`x-${gone}`]: 'file',
  })
  const first = makeScratch(dir, 'x-')
  t.equal(statSync(first).mode & 0o777, 0o700)
  const second = makeScratch(dir, 'x-')
  t.strictSame(
    readdirSync(dir).sort(),
    [basename(first), basename(second), `x-${gone}`, 'x-old', `y-${gone}-abc`].sort(),
    'ours live, and what is not named like one is somebody else’s',
  )
  t.end()
})

t.test('a quota that is used up is no room, though Node has no name for it', (t) => {
  const error = Object.assign(new Error('Unknown system error -122'), {
    code: 'Unknown system error -122',
    errno: -constants.errno.EDQUOT,
    syscall: 'rename',
  })
  t.equal(systemCode(error), 'EDQUOT')
  t.throws(
    () =>
      noticeShortSpace('x.tar', () => {
        throw error
      }),
    { code: 'SPACE_SHORT' },
  )
  t.end()
})

t.test('leaves a file alone that holds the bytes already', (t) => {
  const dir = t.testdir({ file: 'same' })
  const before = statSync(join(dir, 'file')).ino
  t.equal(replaceFile(join(dir, 'file'), Buffer.from('same')), false)
  t.equal(statSync(join(dir, 'file')).ino, before)
  t.end()
})

t.test('a link left at the temporary name is not written through', (t) => {
  const dir = t.testdir({ victim: 'untouched' })
  symlinkSync(join(dir, 'victim'), join(dir, 'file.part'))
  replaceFile(join(dir, 'file'), Buffer.from('new'))
  t.equal(readFileSync(join(dir, 'victim'), 'utf8'), 'untouched')
  t.equal(readFileSync(join(dir, 'file'), 'utf8'), 'new')
  t.end()
})

t.test('syncs a folder, and tells when there is none', (t) => {
  const dir = t.testdir({ file: '' })
  t.doesNotThrow(() => syncFolder(dir))
  t.throws(() => syncFolder(join(dir, 'file')), { code: 'ENOTDIR' })
  t.throws(() => syncFolder(join(dir, 'none')), { code: 'ENOENT' })
  t.end()
})

t.test('names the error of the system, and no other', (t) => {
  const dir = t.testdir({})
  try {
    writeFileSync(join(dir, 'none', 'x'), '')
    t.fail('was written')
  } catch (error) {
    t.equal(systemCode(error), 'ENOENT')
  }
  t.equal(systemCode(new Error('x')), '')
  t.equal(systemCode('x'), '')
  t.end()
})
