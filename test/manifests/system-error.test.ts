import t from 'tap'
import { systemCode, withCode } from '../../manifests/system-error.ts'

const failure = (code: string, more: object = {}): Error => Object.assign(new Error(code), { code, ...more })
const ofFile = (code: string): Error => failure(code, { syscall: 'write', path: '/store/x' })

t.test('what a disk refuses has a code, and names the file', (t) => {
  for (const code of ['ENOSPC', 'EDQUOT', 'EFBIG']) {
    t.match(withCode(ofFile(code)), { code: 'SPACE_SHORT', message: `/store/x: write failed (${code})` })
  }
  for (const code of ['EIO', 'EROFS', 'EACCES', 'ENXIO']) {
    t.match(withCode(ofFile(code)), { code: 'FILE_FAILED', message: `/store/x: write failed (${code})` })
  }
  t.end()
})

t.test('so has what SQLite says of it', (t) => {
  t.match(withCode(failure('SQLITE_FULL')), { code: 'SPACE_SHORT' })
  for (const code of ['SQLITE_IOERR_WRITE', 'SQLITE_IOERR', 'SQLITE_READONLY_DBMOVED']) {
    t.match(withCode(failure(code)), { code: 'FILE_FAILED', message: /SQLite failed/ })
  }
  t.end()
})

t.test('anything else comes back as it is', (t) => {
  const others = [
    ofFile('ENOENT'),
    failure('EACCES', { syscall: 'listen' }),
    failure('EIO'),
    failure('SQLITE_CONSTRAINT'),
    new Error('plain'),
    'text',
    undefined,
  ]
  for (const other of others) t.equal(withCode(other), other)
  t.equal(systemCode(failure('ERR_INVALID_ARG_TYPE')), '')
  t.equal(systemCode(failure('SPACE_SHORT')), '')
  t.end()
})
