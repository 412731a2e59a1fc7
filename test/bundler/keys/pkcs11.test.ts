import { chmodSync, readFileSync, writeFileSync } from 'node:fs'
import { createPublicKey, generateKeyPairSync } from 'node:crypto'
import { join } from 'node:path'
import t from 'tap'
import { tokenKeyFile } from '../../../bundler/keys/keyfile.ts'
import { openRootKeys } from '../../../bundler/keys/root-keys.ts'
import { roleKey } from '../../../manifests/role-key.ts'
import { parseTokenPlace, readTokenKey, signWithToken, tokenTool } from '../../../bundler/keys/pkcs11.ts'
import { makeKeyLab, must, only, textsBelow } from '../../helpers/key-lab.ts'
import { mustRun } from '../../helpers/process.ts'

const MODULE = '/usr/lib/softhsm/libsofthsm2.so'
const PIN = 'secret-4321'
const dir = t.testdir({ tokens: {}, tools: {} })
const conf = join(dir, 'softhsm2.conf')
writeFileSync(conf, `directories.tokendir = ${join(dir, 'tokens')}\nobjectstore.backend = file\nlog.level = ERROR\n`)
const environment = { SOFTHSM2_CONF: conf, PATH: '/usr/bin:/bin', GAPFERRY_PIN: PIN }
await mustRun('softhsm2-util', ['--init-token', '--free', '--label', 'lab', '--so-pin', '87654321', '--pin', PIN], {
  env: { SOFTHSM2_CONF: conf },
})
for (const [id, type] of [
  ['01', 'EC:prime256v1'],
  ['02', 'EC:prime256v1'],
  ['03', 'EC:secp384r1'],
  ['04', 'rsa:2048'],
] as const) {
  await mustRun(
    'pkcs11-tool',
    [
      '--module',
      MODULE,
      '--token-label',
      'lab',
      '--login',
      '--pin',
      'env:P',
      '--keypairgen',
      '--key-type',
      type,
      '--id',
      id,
    ],
    {
      env: { SOFTHSM2_CONF: conf, P: PIN },
    },
  )
}
const place = parseTokenPlace(MODULE, 'lab', '01')
const tool = tokenTool(environment)
const publicPem = readTokenKey(tool, place)
/** A tool of the same manners that does as a test says. */
function fake(name: string, script: string, timeoutMs?: number): ReturnType<typeof tokenTool> {
  const file = join(dir, 'tools', name)
  writeFileSync(file, `#!/bin/sh\n${script}\n`)
  chmodSync(file, 0o755)
  return tokenTool({ ...environment, GAPFERRY_PKCS11_TOOL: file }, timeoutMs)
}

t.test('signs what is longer than a digest, by way of its digest', async (t) => {
  for (const length of [0, 31, 32, 33, 100_000]) {
    const bytes = Buffer.alloc(length, 7)
    t.match(signWithToken(tool, { ...place, publicPem, pin: PIN }, bytes)[0], 0x30, `${length} bytes`)
  }
})

t.test('the PIN is in no argument', async (t) => {
  const spy = fake('spy', `for a in "$@"; do echo "$a"; done > ${dir}/args; env > ${dir}/env; exec pkcs11-tool "$@"`)
  signWithToken(spy, { ...place, publicPem, pin: PIN }, Buffer.from('x'))
  t.match(readFileSync(join(dir, 'args'), 'utf8'), /--pin\nenv:GAPFERRY_TOKEN_PIN\n/)
  t.notMatch(readFileSync(join(dir, 'args'), 'utf8'), PIN)
  t.notMatch(
    readFileSync(join(dir, 'env'), 'utf8'),
    /GAPFERRY_PIN|GAPFERRY_PASSPHRASE/,
    'nor is our environment handed on',
  )
})

t.test('each way to fail has its own words', async (t) => {
  const sign = (over: object, using = tool): void =>
    void signWithToken(using, { ...place, publicPem, pin: PIN, ...over }, Buffer.from('x'))
  t.throws(() => sign({ pin: '0000' }), { code: 'TOKEN_PIN_WRONG', message: /refuses the PIN/, hint: /lock/ })
  t.throws(() => sign({ token: 'other' }), {
    code: 'TOKEN_FAILED',
    message: /there is no token "other"/,
    hint: /plug it in/,
  })
  t.throws(() => sign({ id: '09' }), { code: 'TOKEN_FAILED', message: /has no key 09/, hint: /--keypairgen/ })
  t.throws(() => sign({ module: '/nowhere.so' }), { code: 'TOKEN_FAILED', message: /nowhere.so cannot be loaded/ })
  t.throws(() => sign({ id: '02' }), { code: 'KEY_INVALID', message: /the token holds another key/ })
  t.throws(() => sign({}, tokenTool({ ...environment, GAPFERRY_PKCS11_TOOL: '/nowhere/tool' })), {
    code: 'TOKEN_FAILED',
    message: /the tool \/nowhere\/tool is not there/,
    hint: /opensc/,
  })
  t.throws(() => sign({}, fake('hangs', 'sleep 30 & exec sleep 30', 300)), {
    code: 'TOKEN_TIMEOUT',
    message: /0.3 seconds/,
    hint: /plug/,
  })
  t.throws(() => sign({}, fake('silent', 'exit 3')), { code: 'TOKEN_FAILED', message: /ended with 3 and said nothing/ })
  t.throws(() => sign({}, fake('liar', 'cat > /dev/null; echo no signature')), { code: 'KEY_INVALID' })
  t.throws(() => sign({}, fake('flood', 'exec yes')), { code: 'TOKEN_FAILED' })
  t.throws(() => sign({}, fake('locked', 'echo "C_Login failed: rv = CKR_PIN_LOCKED" >&2; exit 1')), {
    code: 'TOKEN_PIN_WRONG',
    message: /locked/,
  })
  for (const id of ['03', '04']) {
    t.throws(() => readTokenKey(tool, { ...place, id }), { code: 'KEY_INVALID', message: /P-256/ }, id)
  }
  t.throws(() => readTokenKey(fake('junk', 'echo junk'), place), { code: 'KEY_INVALID', message: /not a public key/ })
  t.throws(() => parseTokenPlace(MODULE, 'lab', 'bundle key'), { code: 'USAGE_INVALID', hint: /list-objects/ })
})

t.test('a site whose bundle key is in a token from the first day; a mirror takes its bundles', async (t) => {
  const site = await makeKeyLab(t, t.testdir(), ['--pkcs11', MODULE, '--token', 'lab', '--key-id', '01'], environment)
  const file = only(site.keys, /^bundle-/)
  t.match(JSON.parse(readFileSync(file, 'utf8')), {
    public: publicPem,
    kdf: null,
    cipher: { name: 'PKCS#11', module: MODULE, token: 'lab', id: '01' },
    data: '',
  })
  await site.bundle()
  must(await site.deliver())
  const { stdout } = must(await site.gapferry('keys', 'list'))
  t.match(stdout, /bundle +[0-9a-f]{8} +in force +token "lab" 01/)
  for (const text of textsBelow(join(site.dir, 'lap')).values()) t.notMatch(text, PIN)

  const wrong = await site.at(join(site.dir, 'lap'), { environment: { GAPFERRY_PIN: '1' } })(
    'pack',
    '--to',
    site.stick,
    '--renew',
  )
  t.equal(wrong.status, 2)
  t.match(wrong.stderr, /TOKEN_PIN_WRONG/)
})

t.test('an old site moves its bundle key, then its root key, into a token', async (t) => {
  const site = await makeKeyLab(t, t.testdir(), ['--no-passphrase'], environment)
  await site.bundle()
  must(await site.deliver())
  const token = (id: string): string[] => ['--pkcs11', MODULE, '--token', 'lab', '--key-id', id]
  must(await site.gapferry('keys', 'rotate', 'bundle', ...token('01')))
  await site.bundle()
  must(await site.deliver())
  must(await site.gapferry('keys', 'rotate', 'root', ...token('02')))
  must(await site.gapferry('keys', 'rotate'))
  const absent = await site.at(join(site.dir, 'lap'), { environment: { SOFTHSM2_CONF: '/dev/null' } })('keys', 'rotate')
  t.equal(absent.status, 1)
  t.match(absent.stderr, /TOKEN_FAILED/)
  t.equal(await site.bundle(), 3)
  must(await site.deliver())
  t.equal(await site.served(), 3)
  const halves = await site.gapferry('keys', 'rotate', 'bundle', '--pkcs11', MODULE)
  t.match(halves.stderr, /USAGE_INVALID/)
})

t.test('a key file on another medium cannot name a module to run', async (t) => {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const pem = createPublicKey(privateKey).export({ type: 'spki', format: 'pem' }).toString()
  const { keyid } = roleKey('ecdsa', pem)
  const file = join(t.testdir(), 'root.key')
  writeFileSync(
    file,
    tokenKeyFile({ role: 'root', keyid, public: pem }, { module: '/no/such.so', token: 'x', id: '01' }),
  )
  const never = (): Promise<never> => Promise.reject(new Error('asked'))
  const secrets = { passphrase: never, pin: never, tool: tokenTool({}) }
  await t.rejects(openRootKeys({ files: [file], wanted: new Set([keyid]), secrets }), { code: 'KEY_INVALID' })
})
