import t, { type Test } from 'tap'
import { Fetcher, makeDispatcher } from '../../bundler/fetch.ts'
import { lookModules, type LookedBox, type ModuleSource, type ModuleUpstream } from '../../bundler/upstream-modules.ts'
import { parseModuleFeed } from '../../manifests/module-feed.ts'
import { BlobStore } from '../../storage/blobs.ts'
import { Ledger } from '../../storage/ledger.ts'
import { freepbxFacts } from '../helpers/freepbx-facts.ts'
import { startUpstream, type SeenRequest, type Upstream } from '../helpers/upstream.ts'

const dispatcher = makeDispatcher()
t.teardown(() => dispatcher.destroy())
const fetcher = new Fetcher({ dispatcher, userAgent: 'gapferry/0.0.0', wait: async () => {} })
const DEPLOYMENT = '80123456'
const BOX_IDS = { installid: 'id-of-the-box-itself', machineid: 'machine-of-the-box-itself' }

const entry = (rawname: string, version: string): string =>
  `<module><rawname>${rawname}</rawname><version>${version}</version><location>packages/${rawname}/${rawname}-${version}.tgz</location></module>`
const list = (modules: Record<string, string>, more = ''): string =>
  `<xml>${Object.entries(modules)
    .map(([rawname, version]) => entry(rawname, version))
    .join('\n')}${more}</xml>`
const CORE = { framework: '16.0.40', core: '16.0.68' }
const SOUNDS = `<xml><sounds>${['ulaw', 'g722']
  .map(
    (format) =>
      `<package><type>asterisk</type><module>core</module><language>en</language><format>${format}</format><version>1.6</version></package>`,
  )
  .join('')}</sounds></xml>`

t.test('asks once for each kind of box, by the one with most modules', async (t) => {
  const { look, requests } = await bench(t, ({ body }) => list({ ...CORE, php: version(body) }))
  const found = await look([
    box('zulu', { phpver: '7.4.33' }, 1),
    box('alpha', { phpver: '7.4.33' }, 3),
    box('mike', { phpver: '5.6.40' }, 2),
  ])
  t.strictSame(
    found.lists.map(({ boxes, feed }) => [boxes, feed.entries[2]!.version]),
    [
      [['alpha', 'zulu'], '7.4.33'],
      [['mike'], '5.6.40'],
    ],
  )
  t.match(found, { major: 16, sounds: undefined, warnings: [] })
  t.strictSame(
    requests().map(({ method, path, form }) => [method, path, form.get('phpver'), modulesOf(form)]),
    [
      ['POST', '/all-16.0.xml', '7.4.33', 3],
      ['POST', '/all-16.0.xml', '5.6.40', 2],
    ],
  )
  for (const { headers } of requests()) {
    t.equal(headers['content-type'], 'application/x-www-form-urlencoded')
    t.match(headers['accept-encoding'], /gzip/)
  }
})

t.test('makes one list of equal answers', async (t) => {
  const { look, store } = await bench(t, () => list(CORE))
  const { lists } = await look([box('b', { brandid: 'pbxact' }), box('a', { brandid: 'freepbx' })])
  t.strictSame(
    lists.map(({ boxes }) => boxes),
    [['a', 'b']],
  )
  const kept = parseModuleFeed(store.read(lists[0]!.blob, 1e6), 'the blob')
  t.strictSame(kept.entries, lists[0]!.feed.entries, 'the blob is the answer')
})

t.test('asks as itself, always as the same, and with what the vendor gave it', async (t) => {
  const { look, requests, upstream, ledger } = await bench(t, () => list(CORE))
  const given = '99999999-2222-4333-8444-555555555555'
  upstream.headers('/all-16.0.xml', { 'x-current-uuid': given })
  await look([box('a', BOX_IDS)])
  await look([box('a', BOX_IDS)])
  const [first, second] = requests().map(({ form }) => form)
  for (const field of ['installid', 'machineid']) {
    t.match(first!.get(field), /^[0-9a-f-]{36,64}$/)
    t.equal(second!.get(field), first!.get(field), field)
  }
  t.equal(first!.get('lastaccesseduuid'), null)
  t.equal(second!.get('lastaccesseduuid'), given)
  t.not(first!.get('currentuuid'), second!.get('currentuuid'))
  t.notMatch(
    requests()
      .map(({ body }) => body)
      .join(),
    /of-the-box-itself/,
  )
  upstream.headers('/all-16.0.xml', { 'x-regenerate-id': '1', 'x-current-uuid': '<script>' })
  await look([box('a')])
  t.not(ledger.noted('modules').get('installid'), first!.get('installid'), 'a new one when the vendor says so')
  t.equal(ledger.noted('modules').get('accesseduuid'), given, 'what is no uuid is not kept')
})

t.test('asks with a captured body instead of inventories, or without them', async (t) => {
  const { look, requests } = await bench(t, () => list(CORE))
  const request = `installid=${BOX_IDS.installid}&machineid=x&modules%5Bcore%5D%5Bversion%5D=1&deploymentid=${DEPLOYMENT}&phpver=7.4.1&sv=2`
  t.strictSame((await look([], { request })).lists[0]!.boxes, [])
  t.strictSame((await look([box('b'), box('a', { phpver: '5.6' })], { request })).lists[0]!.boxes, ['a', 'b'])
  for (const { form } of requests()) {
    t.equal(form.get('phpver'), '7.4.1')
    t.equal(form.get('deploymentid'), DEPLOYMENT)
    t.not(form.get('installid'), BOX_IDS.installid)
  }
  t.equal(requests().length, 2)
  t.equal((await look([], { request: `${request}&pbxver=16.0.40` })).lists.length, 1)
  await t.rejects(look([], { request: `${request}&pbxver=15.0.17` }), {
    code: 'INVENTORY_MISMATCH',
    message: /request/,
  })
})

t.test('asks nobody where nobody can ask, and refuses that where modules are wanted', async (t) => {
  const { look, requests } = await bench(t, () => list(CORE))
  const found = await look([])
  t.match(found, { lists: [], sounds: undefined, warnings: [/no inventory tells .* no modules are carried/] })
  await look([], { policy: [['core', { kind: 'block' }]] })
  for (const kind of ['want', 'pin'])
    await t.rejects(look([], { policy: [['core', { kind }]] }), { code: 'MODULE_REQUEST_MISSING', message: /core/ })
  t.equal(requests().length, 0)
  await t.rejects(look([{ name: 'old', facts: freepbxFacts({ framework: '15.0.17' }) }]), {
    code: 'INVENTORY_MISMATCH',
    message: /box old has FreePBX 15\.0\.17/,
  })
})

t.test('looks for sounds where a box has some', async (t) => {
  const { look, requests, upstream } = await bench(t, ({ path }) => (path.startsWith('/sounds') ? SOUNDS : list(CORE)))
  const boxes = [withSounds(box('a', { deploymentid: DEPLOYMENT }))]
  const { sounds, warnings } = await look(boxes)
  t.strictSame(
    sounds!.feed.packages.map((one) => one.format),
    ['ulaw', 'g722'],
  )
  t.strictSame(warnings, [])
  const asked = requests().at(-1)!
  t.match(asked, { method: 'POST', path: '/sounds-16.0.xml' })
  t.match(asked.body, /&sv=2&soundlangver=2&canredirect=1$/)
  t.equal(asked.form.get('currentuuid'), null)
  upstream.fault('/sounds-16.0.xml', { kind: 'status', status: 404 })
  t.match(await look(boxes), { sounds: undefined, warnings: [/^no sound packages are carried: sound list of hq\/pbx/] })
  upstream.fault('/sounds-16.0.xml', { kind: 'replace', body: `<xml>${DEPLOYMENT}</xml>` })
  const odd = await look(boxes)
  t.match(odd, { sounds: undefined, warnings: [/expected one <sounds>/] })
  upstream.fault('/sounds-16.0.xml', { kind: 'portal' })
  await t.rejects(look(boxes), { code: 'FETCH_CAPTIVE' })
})

t.test('refuses an answer that is no list, and shows nothing of what was asked', async (t) => {
  const { look, upstream, ledger, requests } = await bench(t, () => list(CORE))
  const boxes = [box('a', { deploymentid: DEPLOYMENT })]
  await look(boxes)
  const { installid } = Object.fromEntries(ledger.noted('modules'))
  const before = ledger.noted('module-list hq/pbx')
  const echo = `deploymentid=${DEPLOYMENT}&installid=${installid}`
  const truncated = list(CORE).slice(0, 200)
  for (const [name, fault, code] of [
    ['a page', { kind: 'portal' }, 'FETCH_CAPTIVE'],
    ['404', { kind: 'status', status: 404, body: `<html>${echo}</html>` }, 'FETCH_STATUS'],
    ['500', { kind: 'status', status: 500, body: echo }, 'FETCH_STATUS'],
    ['empty', { kind: 'replace', body: '' }, 'MODULE_LIST_INVALID'],
    ['text', { kind: 'replace', body: `bad request: ${echo}` }, 'MODULE_LIST_INVALID'],
    ['another root', { kind: 'replace', body: `<error>${echo}</error>` }, 'MODULE_LIST_INVALID'],
    ['cut off by the vendor', { kind: 'replace', body: truncated }, 'MODULE_LIST_INVALID'],
    ['cut off on the way', { kind: 'truncate', after: 200 }, /^FETCH_/],
    ['no modules', { kind: 'replace', body: '<xml/>' }, 'MODULE_LIST_INVALID'],
    ['no usable one', { kind: 'replace', body: list({ [`x ${DEPLOYMENT}`]: '1' }) }, 'MODULE_LIST_INVALID'],
    ['endless', { kind: 'endless' }, 'FETCH_TOO_LONG'],
  ] as const) {
    upstream.fault('/all-16.0.xml', fault)
    const error = await look(boxes).then(
      () => t.fail(name),
      (thrown: unknown) => thrown as Error & { hint?: string },
    )
    t.match(error, { code }, name)
    t.match((error as Error).message, /module list of hq\/pbx/, name)
    for (let one = error as Error | undefined; one instanceof Error; one = one.cause as Error | undefined)
      t.notMatch(`${one.message} ${(one as { hint?: string }).hint}`, new RegExp(`${DEPLOYMENT}|${installid}`), name)
  }
  t.strictSame(ledger.noted('module-list hq/pbx'), before, 'what was there last time stays')
  t.ok(requests().every(({ form }) => form.get('deploymentid') === DEPLOYMENT))
})

t.test('carries the list over a passing fault, and in the coding gzip', async (t) => {
  const { look, upstream } = await bench(t, () => list(CORE))
  upstream.fault('/all-16.0.xml', { kind: 'status', status: 503, times: 1 }, { kind: 'gzip', times: 1 })
  t.equal((await look([box('a')])).lists[0]!.feed.entries.length, 2)
})

t.test('tells what is odd, without what was asked', async (t) => {
  const broken = `<module><rawname>bad</rawname><version>1</version><location>https://x.example/${DEPLOYMENT}</location></module>`
  const { look, ledger } = await bench(t, () => list(CORE, `${broken}<expired>${DEPLOYMENT}</expired>`))
  const { warnings } = await look([box('a', { deploymentid: DEPLOYMENT }), box('b', { deploymentid: '', phpver: '' })])
  t.match(warnings, [
    /^box b: its inventory does not tell its PHP/,
    /^module list: module "bad": its archive lies elsewhere, "https:\/\/x\.example\/\*\*\*"/,
    /names the deployment ID/,
  ])
  t.notMatch(warnings.join(), DEPLOYMENT)
  t.notMatch(JSON.stringify([...ledger.noted('modules'), ...ledger.noted('module-list hq/pbx')]), DEPLOYMENT)
})

t.test('warns when half of the modules are gone, and when a version went down', async (t) => {
  let now: Record<string, string> = { ...CORE, a: '1.0', b: '1.0rc1' }
  const { look } = await bench(t, () => list(now))
  const warned = async (next: Record<string, string>): Promise<string[]> => {
    now = next
    return (await look([box('a')])).warnings
  }
  t.strictSame(await warned(now), [], 'the first time')
  t.strictSame(await warned({ ...CORE, a: '1.1', b: '1.0', c: '1' }), [], 'newer, and more')
  t.match(await warned({ framework: '16.0.40', core: '16.0.67' }), [
    /has 3 of the 5 modules no more/,
    /^module core: the upstream offers 16\.0\.67, and had 16\.0\.68 last time$/,
  ])
  t.strictSame(await warned({ framework: '16.0.40', core: '16.0.67' }), [], 'told once')
  const many = Object.fromEntries(Array.from({ length: 30 }, (_, i) => [`m${i}`, '2']))
  await warned({ ...CORE, ...many })
  const lower = await warned({ ...CORE, ...Object.fromEntries(Object.keys(many).map((name) => [name, '1'])) })
  t.equal(lower.length, 21)
  t.match(lower.at(-1), /^10 more modules/)
})

t.test('ends when it is told to', async (t) => {
  const { look, upstream } = await bench(t, () => list(CORE))
  upstream.fault('/all-16.0.xml', { kind: 'hang' })
  const stop = new AbortController()
  const looking = look([box('a')], {}, stop.signal)
  stop.abort(new Error('enough'))
  await t.rejects(looking, { message: 'enough' })
})

interface Bench {
  upstream: Upstream
  store: BlobStore
  ledger: Ledger
  look: (boxes: LookedBox[], source?: Partial<ModuleSource>, signal?: AbortSignal) => Promise<ModuleUpstream>
  requests: () => (SeenRequest & { form: URLSearchParams })[]
}

async function bench(t: Test, answer: (request: SeenRequest) => string): Promise<Bench> {
  const upstream = await startUpstream(t, (request) => Buffer.from(answer(request)))
  const folder = t.testdir()
  const store = new BlobStore(`${folder}/store`)
  const ledger = new Ledger(`${folder}/ledger.db`)
  t.teardown(() => ledger.close())
  return {
    upstream,
    store,
    ledger,
    look: (boxes, source = {}, signal = new AbortController().signal) =>
      lookModules({ feed: upstream.url, major: 16, policy: [], ...source }, boxes, {
        ...{ fetcher, store, signal, memory: ledger, name: 'hq/pbx' },
      }),
    requests: () => upstream.requests.map((one) => ({ ...one, form: new URLSearchParams(one.body) })),
  }
}

/** A profile with '' for a field has none of that. */
function box(name: string, profile: Record<string, string> = {}, count = 1): LookedBox {
  const modules = Object.fromEntries(Array.from({ length: count }, (_, i) => [`m${i}`, '1']))
  const told = Object.entries({ phpver: '7.4.33', ...profile }).filter(([, value]) => value !== '')
  return { name, facts: freepbxFacts({ profile: Object.fromEntries(told), modules }) }
}

function withSounds({ name, facts }: LookedBox): LookedBox {
  const sounds = [{ type: 'asterisk', module: 'core', language: 'en', format: 'ulaw', version: '1.5' }]
  return { name, facts: { ...facts, sounds } }
}

function version(body: string): string {
  return new URLSearchParams(body).get('phpver') ?? '0'
}

function modulesOf(form: URLSearchParams): number {
  return [...form.keys()].filter((key) => key.endsWith('[rawname]')).length
}
