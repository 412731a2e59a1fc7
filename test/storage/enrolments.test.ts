import { join } from 'node:path'
import t from 'tap'
import { sha256Of } from '../../manifests/digest.ts'
import { openDatabase } from '../../storage/database.ts'
import { ENROLMENT_MIGRATION, Enrolments } from '../../storage/enrolments.ts'

t.test('an older database that comes back keeps what was bound and revoked since', (t) => {
  const dir = t.testdir()
  const open = (name: string): Enrolments => {
    const db = openDatabase(join(dir, name), [ENROLMENT_MIGRATION])
    t.teardown(() => db.close())
    return new Enrolments(db)
  }
  const [now, older] = [open('now.db'), open('older.db')]
  const [mine, other, third] = ['1', '2', '3'].map((digit) => digit.repeat(64))
  const enrol = (all: Enrolments[], name: string, deployment: string | null = null): string => {
    const certificate = Buffer.from(name)
    const sha256 = sha256Of(certificate)
    for (const one of all) one.enrol({ sha256, name, certificate, deployment, nowMs: 1 })
    return sha256
  }
  const [a, b, gone] = ['a', 'b', 'gone'].map((name) => enrol([now, older], name))
  older.bind(b!, mine!)
  older.bind(gone!, third!)
  now.bind(a!, mine!)
  now.bind(b!, other!)
  now.bind(gone!, third!)
  now.revoke('gone', 5)
  enrol([now], 'new', third)
  older.merge(now.all())
  const bound = (one: Enrolments) =>
    one.all().map(({ name, deployment, revokedAtMs }) => [name, deployment, revokedAtMs])
  t.same(bound(older), bound(now))
  t.equal(older.bind(b!, mine!), false)
  t.end()
})
