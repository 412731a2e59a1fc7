import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createServer, type IncomingMessage, type RequestListener, type Server } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import type { Laptop } from '../../bundler/carry.ts'
import { askForLicenses } from '../../bundler/licenses/license-http.ts'
import { checkLicenseSource, type LicenseUpstream } from '../../bundler/licenses/license-settings.ts'
import { Wire } from '../../bundler/wire.ts'
import { captureOf, licenseText } from '../helpers/licenses.ts'
import { makeHolder } from '../helpers/openssl.ts'

const PBX1 = { box: 'pbx1', deploymentId: 'MARK-11112222-a' }
const PBX2 = { box: 'pbx2', deploymentId: 'MARK-33334444-b' }
const SECRET = 'bearer-9d1f7c'

async function serve(t: Test, server: Server): Promise<string> {
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  return `127.0.0.1:${(server.address() as AddressInfo).port}`
}

/** A laptop as far as asking goes. */
function laptopOf(limitBytes = Infinity): Laptop {
  const wire = new Wire()
  wire.limitBytes = limitBytes
  const fleet = { file: 'gapferry.yaml', link: { proxy: 'none', retries: 0 } }
  return { fleet, fetcher: { wire }, signal: new AbortController().signal } as unknown as Laptop
}

const source = (t: Test, entry: Partial<LicenseUpstream>): LicenseUpstream =>
  checkLicenseSource({ url: 'x', as: '/etc/schmooze/schmooze.zl', headers: {}, ...entry }, t.testdirName, 'hq')
const ask = (upstream: LicenseUpstream, environment = {}, laptop = laptopOf()) =>
  askForLicenses(laptop, environment, upstream, [PBX1, PBX2])

t.test('asks for each deployment, and takes a license file or what a box captured', async (t) => {
  const seen: IncomingMessage[] = []
  const answer: RequestListener = (request, response) => {
    seen.push(request)
    response.end(request.url!.includes(PBX1.deploymentId) ? licenseText(PBX1) : captureOf(PBX2))
  }
  const host = await serve(t, createServer(answer))
  const upstream = source(t, {
    url: `http://${host}/v1/{deploymentId}/license?id={deploymentId}`,
    as: '/etc/sangoma/sangoma.zl',
    headers: { Authorization: 'env:TOKEN', 'X-Who': 'me' },
  })
  const laptop = laptopOf()
  const [first, second] = await ask(upstream, { TOKEN: SECRET }, laptop)
  t.strictSame(seen.map(({ url }) => String(url)).sort(), [
    `/v1/${PBX1.deploymentId}/license?id=${PBX1.deploymentId}`,
    `/v1/${PBX2.deploymentId}/license?id=${PBX2.deploymentId}`,
  ])
  t.match(seen[0]!.headers, { authorization: SECRET, 'x-who': 'me' })
  t.match(first, { box: 'pbx1', brought: { source: 'http', deploymentId: PBX1.deploymentId } })
  t.match(first!.brought!.files, [{ path: '/etc/sangoma/sangoma.zl', mode: '0644', owner: 'root' }])
  t.match(second, { box: 'pbx2', brought: { source: 'capture', capturedAt: '2026-11-20T10:00:00Z' } })
  t.ok(laptop.fetcher.wire.spentBytes > 500, 'the budget pays for it')
})

t.test('what cannot be had is told for the box, without its deployment', async (t) => {
  const host = await serve(
    t,
    createServer((request, response) => {
      response.statusCode = request.url!.includes(PBX1.deploymentId) ? 404 : 500
      response.end(`no license for ${request.url}`)
    }),
  )
  const answers = await ask(source(t, { url: `http://${host}/{deploymentId}` }))
  t.match(answers, [
    { box: 'pbx1', failure: { code: 'FETCH_STATUS', message: /^license of pbx1: .*404/ } },
    { box: 'pbx2', failure: { code: 'FETCH_STATUS', message: /^license of pbx2: .*500/ } },
  ])
  for (const { failure } of answers)
    t.notMatch(`${failure!.message} ${failure!.hint} ${String(failure!.cause)}`, /MARK-/)
})

t.test('secrets go to the source and nowhere that it leads', async (t) => {
  const led: IncomingMessage[] = []
  const elsewhere = await serve(
    t,
    createServer((request, response) => {
      led.push(request)
      response.end(licenseText(PBX1))
    }),
  )
  const host = await serve(
    t,
    createServer((_request, response) => {
      response.writeHead(302, { location: `http://localhost:${elsewhere.split(':')[1]}/x` }).end()
    }),
  )
  writeFileSync(join(t.testdir({}), 'token'), `${SECRET}\n`)
  const upstream = source(t, { url: `http://${host}/{deploymentId}`, headers: { 'X-Token': 'file:token' } })
  await ask(upstream)
  t.equal(led.length, 2)
  t.equal(JSON.stringify(led.map(({ headers }) => headers)).includes(SECRET), false)
  await t.rejects(ask(source(t, { url: upstream.url, headers: { A: 'file:none' } })), { code: 'CONFIG_INVALID' })
  await t.rejects(ask(source(t, { url: upstream.url, headers: { A: 'env:NONE' } })), { code: 'CONFIG_INVALID' })
  await t.rejects(ask(upstream, {}, laptopOf(0)), { code: 'BUDGET_EXCEEDED' })
})

t.test('shows a client certificate, and believes the authority that the settings name', async (t) => {
  const dir = t.testdir({})
  mkdirSync(join(dir, 'tls'))
  const client = makeHolder(join(dir, 'tls'), 'client')
  const server = makeHolder(join(dir, 'tls'), 'localhost')
  const tls = { key: readFileSync(server.keyFile), cert: readFileSync(server.certificateFile) }
  const options = { ...tls, requestCert: true, rejectUnauthorized: true, ca: readFileSync(client.certificateFile) }
  const host = await serve(
    t,
    createTlsServer(options, (_request, response) => response.end(licenseText(PBX1))),
  )
  const url = `https://localhost:${host.split(':')[1]}/{deploymentId}`
  const own = { url, certificate: 'tls/client.pem', key: 'tls/client.key', ca: 'tls/localhost.pem' }
  t.match(await ask(source(t, own)), [{ brought: { source: 'http' } }, { brought: { source: 'http' } }])
  const { ca, ...withoutCa } = own
  t.ok(ca)
  t.match(await ask(source(t, withoutCa)), [
    { failure: { code: 'FETCH_FAILED' } },
    { failure: { code: 'FETCH_FAILED' } },
  ])
  t.match(await ask(source(t, { url, ca })), [{ failure: { code: 'FETCH_FAILED' } }, {}])
})

t.test('settings that cannot be meant are refused', (t) => {
  for (const [name, entry] of Object.entries({
    'no place for the deployment': { url: 'http://x/license' },
    'no address': { url: 'ftp://x/{deploymentId}' },
    'a place that no license has': { url: 'http://x/{deploymentId}', as: '/etc/passwd' },
    'a certificate without its key': { url: 'http://x/{deploymentId}', certificate: 'a.pem' },
  }))
    t.throws(() => source(t, entry), { code: 'CONFIG_INVALID' }, name)
  t.end()
})
