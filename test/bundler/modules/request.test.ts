import { execFileSync } from 'node:child_process'
import t from 'tap'
import { listForm, profileOf, secretsOf, soundForm, type RequestIds } from '../../../bundler/modules/request.ts'
import { freepbxFacts } from '../../helpers/freepbx-facts.ts'

const IDS: RequestIds = {
  installid: '11111111-2222-4333-8444-555555555555',
  machineid: 'f'.repeat(64),
  lastaccesseduuid: '22222222-2222-4333-8444-555555555555',
  currentuuid: '33333333-2222-4333-8444-555555555555',
}
/** What a request for sounds has otherwise. */
const SOUND = { lastaccesseduuid: null, currentuuid: null, soundlangver: 2, canredirect: 1 }
const facts = freepbxFacts({
  profile: {
    installid: 'the-box-itself',
    machineid: 'the-box-itself',
    deploymentid: '80123456',
    brandid: 'pbxact',
    astver: '16.30.0',
    phpver: '7.4.33',
    distro: 'freepbxdistro',
    distrover: '12.7.8-2204-1.sng7',
    ucount: '40',
    ioncube: '12.0.2',
    endpoint_model: 'of a callback',
  },
  modules: {
    core: '16.0.68',
    endpoint: ['16.0.90', 'needs-upgrade', 'Commercial & (closed) ~ "x"'],
    old: ['?', 'disabled', '?'],
    gone: ['1.0', 'broken', 'GPL'],
    local: ['16.0.1', 'not-installed', 'GPLv3+'],
    untold: ['16.0.2', 'unknown', 'größer'],
  },
})

t.test('asks as a box does, with ids of its own', async (t) => {
  const form = listForm({ facts, ids: IDS, major: 16 })
  // The array that the framework makes, in its order, spelled by the real function.
  const options = {
    lastaccesseduuid: IDS.lastaccesseduuid,
    currentuuid: IDS.currentuuid,
    machineid: IDS.machineid,
    installid: IDS.installid,
    type: '',
    modules: {
      core: { version: '16.0.68', status: 2, rawname: 'core', license: 'GPLv3+' },
      endpoint: { version: '16.0.90', status: 3, rawname: 'endpoint', license: 'Commercial & (closed) ~ "x"' },
      old: { version: null, status: 1, rawname: 'old', license: 'unknown' },
      local: { version: '16.0.1', status: 0, rawname: 'local', license: 'GPLv3+' },
      untold: { version: '16.0.2', status: 2, rawname: 'untold', license: 'größer' },
    },
    brandid: 'pbxact',
    deploymentid: '80123456',
    astver: '16.30.0',
    phpver: '7.4.33',
    distro: 'freepbxdistro',
    distrover: '12.7.8-2204-1.sng7',
    pbxver: '16.0.40.11',
    ucount: '40',
    extraid: 'W10=',
    ioncube: '12.0.2',
    endpoint_model: 'of a callback',
    sv: 2,
  }
  t.equal(form, built(options))
  t.notMatch(form, 'the-box-itself')
  t.equal(soundForm(form), built({ ...options, ...SOUND }))
})

t.test('asks for expired modules from 17 on, and has no deployment where the box has none', async (t) => {
  const form = listForm({ facts: freepbxFacts(), ids: IDS, major: 17 })
  t.match(form, '&enableExpiredModuleList=1&')
  t.notMatch(form, 'deploymentid')
  t.notMatch(listForm({ facts, ids: IDS, major: 16 }), 'enableExpired')
})

t.test('spells everything as PHP does', async (t) => {
  const odd = Array.from({ length: 0x7f - 0x20 }, (_, i) => String.fromCharCode(i + 0x20)).join('') + 'é𝄞'
  const form = listForm({ facts: freepbxFacts({ profile: { brandid: odd } }), ids: IDS, major: 16 })
  t.match(form, `&${built({ brandid: odd })}&`)
  t.match(
    listForm({ facts: freepbxFacts({ profile: { brandid: '\ud800' } }), ids: IDS, major: 16 }),
    'brandid=%EF%BF%BD',
  )
})

t.test('takes a body that a box sent, but not who sent it', async (t) => {
  const { installid, machineid, ...ids } = IDS
  const rest = 'type=&modules%5Bcore%5D%5Bversion%5D=16.0.1&deploymentid=80123456&phpver=7.4.33&distrover=a+b'
  const own = `machineid=${machineid}&installid=${installid}`
  const both = `lastaccesseduuid=${ids.lastaccesseduuid}&currentuuid=${ids.currentuuid}&${own}`
  for (const captured of [
    `firstinstall=yes&lastaccesseduuid=a&currentuuid=b&machineid=c&installid=d&${rest}&sv=2`,
    `machineid=c&installid=d&${rest}`,
    `${rest}&sv=2&soundlangver=2&canredirect=1\n`,
  ]) {
    t.equal(listForm({ facts, captured, ids: IDS, major: 16 }), `${both}&${rest}&sv=2`)
    t.equal(listForm({ captured, ids: { installid, machineid }, major: 16 }), `${own}&${rest}&sv=2`)
  }
})

t.test('knows which boxes get the same list', async (t) => {
  const profile = { phpver: '7.4.33', brandid: 'pbxact', deploymentid: '1', astver: '16', ucount: '3', installid: 'x' }
  const one = profileOf(freepbxFacts({ profile }))
  t.equal(profileOf(freepbxFacts({ profile: { ...profile, ucount: '9', astver: '18', installid: 'y' } })), one)
  for (const field of ['phpver', 'brandid', 'deploymentid', 'distro', 'distrover', 'zend', 'ioncube'])
    t.not(profileOf(freepbxFacts({ profile: { ...profile, [field]: 'z' } })), one, field)
})

t.test('knows what nobody may see', async (t) => {
  const form = listForm({ facts, ids: IDS, major: 16 })
  t.strictSame(new Set(secretsOf(form)), new Set([...Object.values(IDS), '80123456', 'W10=']))
  t.strictSame(secretsOf('phpver=7.4'), [])
})

function built(options: unknown): string {
  const program = 'echo http_build_query(json_decode(stream_get_contents(STDIN), true));'
  return execFileSync('php', ['-n', '-r', program], { input: JSON.stringify(options), encoding: 'utf8' })
}
