import { createHash } from 'node:crypto'
import type { BuiltModule } from './module-archive.ts'

/** One module as the vendor has it. */
export interface ModuleSpec {
  rawname: string
  version: string
  /** Default `module`: what a box installs. `beta` and `edge` may stand beside it, `previous` are its older versions. */
  section?: 'module' | 'edge' | 'beta' | 'previous'
  name?: string
  /** default standard */
  repo?: string
  license?: string
  /** type (version, phpversion, phpcomponent, module, file, engine) → one or more requirements */
  depends?: Record<string, string | string[]>
  /** `<breaking>`: modules that this one cannot stand beside */
  breaking?: { rawname: string; version?: string; type?: string; replace?: string }[]
  /** One build for each of these PHP versions (`7.4`), in a folder of its own; listed only for boxes with that PHP. */
  php?: string[]
  /** only listed for these: brand of the box; boxes with any deployment id */
  only?: { brand?: string; deployment?: true }
  /** default vendor */
  signed?: 'vendor' | 'foreign' | 'no'
  /** a module.sig inside, clear-signed as the archive is */
  sig?: true
  /** more files: path below the top folder → text */
  files?: Record<string, string>
  /** of noise, so that archives have a size; default 600 */
  payloadBytes?: number
  /** fields of the module.xml inside that differ from the entry */
  inside?: Record<string, string>
  /** the plain archive, instead of one made of the above */
  archive?: Buffer
  /** fields of the entry that differ from the truth; `signed` is the SHA-1 of the served file; '' leaves a field out */
  entry?: Partial<Record<EntryField, string>>
  /** put into the entry as it is */
  xml?: string
  /** listed, but the archive is not there */
  absent?: true
}

type EntryField = 'location' | 'md5sum' | 'sha1sum' | 'signed' | 'version'

/** A `<security><issue>`. */
export interface IssueSpec {
  id: string
  vulnerable?: boolean
  /** rawname → first version without it */
  fixes?: Record<string, string>
}

/** A module with one of its archives and the place of that below `/modules/`. */
export interface ListedModule {
  spec: ModuleSpec
  built: BuiltModule
  location: string
  php?: string
}

/** `packages/core/core-17.0.1.tgz.gpg`; commercial builds one folder deeper. */
export function locationOf(spec: ModuleSpec, php?: string): string {
  const folder = php === undefined ? '' : `${php}/`
  const ending = (spec.signed ?? 'vendor') === 'no' ? 'tgz' : 'tgz.gpg'
  return `packages/${spec.rawname}/${folder}${spec.rawname}-${spec.version}.${ending}`
}

/** The vendor's list, as a box of this major gets it: indented, with fields and sections that nobody here knows. */
export function listXml(major: number, modules: readonly ListedModule[], issues: readonly IssueSpec[]): string {
  const of = (section: string) => modules.filter(({ spec }) => (spec.section ?? 'module') === section)
  const wrapped = (section: string, inner: (all: readonly ListedModule[]) => string): string => {
    const byName = Map.groupBy(of(section), ({ spec }) => spec.rawname)
    const children = [...byName].map(([raw, all]) => `    <${raw}>\n${inner(all)}    </${raw}>\n`)
    return children.length === 0 ? '' : `  <${section}>\n${children.join('')}  </${section}>\n`
  }
  return [
    '<?xml version="1.0" encoding="UTF-8"?>\n',
    `<!-- ${major}.0 -->\n<xml generated="yes">\n`,
    ...of('module').map((one) => `  <module>\n${entryXml(one)}  </module>\n`),
    wrapped('edge', ([one]) => entryXml(one!)),
    wrapped('beta', (all) =>
      all.map((one) => `${entryXml(one)}      <releasetracktype>beta</releasetracktype>\n`).join(''),
    ),
    wrapped('previous', (all) => {
      const releases = all.map((one) => `        <module>\n${entryXml(one)}        </module>\n`)
      return `      <releases>\n${releases.join('')}      </releases>\n`
    }),
    securityXml(major, issues),
    '  <expired>\n    <notice><![CDATA[<b>opaque</b> & unread]]></notice>\n  </expired>\n',
    '  <newfield version="9">of a later year</newfield>\n',
    '</xml>\n',
  ].join('')
}

/** What a box needs to know of it, as its JSON has it. */
export function tagJson(one: ListedModule): string {
  const { md5sum, sha1sum, signed, version } = factsOf(one)
  const { rawname, repo = 'standard', depends } = one.spec
  const license = licenseOf(one.spec)
  const signature = signed === '' ? {} : { signed: { type: 'gpg', sha1: signed } }
  const rest = { name: one.spec.name ?? rawname, license, ...(depends === undefined ? {} : { depends }), ...signature }
  return JSON.stringify({ rawname, repo, version, location: one.location, md5sum, sha1sum, ...rest })
}

export function licenseOf({ license, php }: ModuleSpec): string {
  return license ?? (php === undefined ? 'GPLv3+' : 'Commercial')
}

export function escapeXml(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;')
}

function entryXml(one: ListedModule): string {
  const { spec } = one
  const facts = factsOf(one)
  const tag = (name: string, text: string) => (text === '' ? '' : `    <${name}>${escapeXml(text)}</${name}>\n`)
  return [
    tag('rawname', spec.rawname),
    tag('repo', spec.repo ?? 'standard'),
    tag('name', spec.name ?? spec.rawname),
    tag('version', facts.version),
    tag('publisher', 'Example Vendor'),
    tag('license', licenseOf(spec)),
    tag('category', 'Test'),
    `    <description>Does ${escapeXml(spec.rawname)} &amp; more &#8211; caf&#xe9;</description>\n`,
    `    <changelog>*${spec.version}* &lt;a href="x"&gt;FREEPBX-1&lt;/a&gt; first\n*0.1* older</changelog>\n`,
    spec.php === undefined
      ? ''
      : '    <commercial>\n      <type>paid</type>\n      <link>https://vendor.invalid/</link>\n    </commercial>\n',
    dependsXml(spec),
    breakingXml(spec),
    `    <supported>\n      <version>${spec.version.split('.').slice(0, 2).join('.')}</version>\n    </supported>\n`,
    tag('location', facts.location),
    tag('md5sum', facts.md5sum),
    tag('sha1sum', facts.sha1sum),
    facts.signed === ''
      ? ''
      : `    <signed>\n      <type>gpg</type>\n      <sha1>${facts.signed}</sha1>\n    </signed>\n`,
    `    <track kind="stable">stable</track>\n    <releasedate>2026-11-01</releasedate>\n${spec.xml ?? ''}`,
  ].join('')
}

function factsOf({ spec, built, location }: ListedModule): Record<EntryField, string> {
  const hash = (name: string, bytes: Buffer) => createHash(name).update(bytes).digest('hex')
  const signed = built.isSigned ? hash('sha1', built.served) : ''
  const truth = {
    md5sum: hash('md5', built.tgz),
    sha1sum: hash('sha1', built.tgz),
    signed,
    location,
    version: spec.version,
  }
  return { ...truth, ...spec.entry }
}

function dependsXml({ depends }: ModuleSpec): string {
  if (depends === undefined) return ''
  const lines = Object.entries(depends).flatMap(([type, texts]) =>
    [texts].flat().map((text) => `      <${type}>${escapeXml(text)}</${type}>\n`),
  )
  return `    <depends>\n${lines.join('')}    </depends>\n`
}

function breakingXml({ breaking }: ModuleSpec): string {
  if (breaking === undefined) return ''
  const modules = breaking.map((one) => {
    const fields = Object.entries(one).map(([name, text]) => `        <${name}>${escapeXml(text)}</${name}>\n`)
    return `      <module>\n${fields.join('')}      </module>\n`
  })
  return `    <breaking>\n${modules.join('')}    </breaking>\n`
}

function securityXml(major: number, issues: readonly IssueSpec[]): string {
  if (issues.length === 0) return ''
  const all = issues.map(({ id, vulnerable = false, fixes = {} }) => {
    const lines = Object.entries(fixes).map(([raw, version]) => `            <${raw}>${version}</${raw}>\n`)
    return [
      `    <issue>\n      <id>${id}</id>\n      <cve>CVE-2026-${id.slice(-4)}</cve>\n      <versions>\n        <v${major}.0>\n`,
      `          <vulnerable>${vulnerable ? 'yes' : 'no'}</vulnerable>\n`,
      lines.length === 0 ? '' : `          <fixes>\n${lines.join('')}          </fixes>\n`,
      `        </v${major}.0>\n      </versions>\n    </issue>\n`,
    ].join('')
  })
  return `  <security>\n${all.join('')}  </security>\n`
}
