/** One package of the sample repository: names, relations and paths as the packages of a distribution have them. */
import { sha256Of } from '../../manifests/digest.ts'
import { escapeXml } from '../../manifests/xml.ts'
import { between, logNormal, pick, type Random } from './random.ts'

export const PACKAGES = 30_000
export const CARRIED_EVERY = 100
/** Three versions of each name. */
const VERSIONS = 3

export interface SamplePackage {
  name: string
  arch: string
  version: string
  release: string
  checksum: string
  bytes: number
  href: string
  requires: string[]
  files: string[]
  sentences: number
}

const STEMS = (
  'asterisk audio backup bind boot cairo cert cluster codec config crypt curl data dav db device disk dns draw dump ' +
  'event fax file font form frame fuse gate geo gnome graph group gtk hash health host http icon image index init ipa ' +
  'java job json kernel key lang ldap link list lock log mail map mark media mesh meta mod monitor net node ntp object ' +
  'page pam path pipe plug policy pool port print proc proxy pulse queue radio ring rpc sample scan script search ' +
  'secret serial server session shell sip sound source spool sql ssh stat stream sync table tag tape task text time ' +
  'tls token tool trace tree trunk tune unit update usb user util vector video view virt voice volume wave web widget ' +
  'window wire xml zone'
).split(' ')
const PREFIXES = ['', '', '', 'lib', 'python-', 'perl-', 'php-', 'rubygem-', 'lua-', 'golang-', 'mingw64-']
const SUFFIXES = ['', '', '', '-libs', '-devel', '-doc', '-common', '-utils', '-static', '-javadoc', '-debug']
const FOLDERS = [
  '/usr/lib64',
  '/usr/share/doc',
  '/usr/share/man/man3',
  '/usr/include',
  '/usr/share/locale/pt_BR/LC_MESSAGES',
  '/usr/lib/python2.7/site-packages',
  '/usr/share/javadoc',
  '/usr/share/icons/hicolor/48x48/apps',
  '/usr/share/perl5/vendor_perl',
]
const ENDINGS = ['.so.1', '.html', '.3.gz', '.h', '.mo', '.py', '.pyc', '.png', '.pm', '.conf', '.txt', '']
const LIBRARIES = ['libc.so.6(GLIBC_2.14)(64bit)', 'libpthread.so.0()(64bit)', 'rtld(GNU_HASH)', '/bin/sh']
const SENTENCES = [
  'It reads & writes the usual formats, and comes with a small server for tests.',
  'This package has the files that programs need which are built with it (headers <*.h>, libraries).',
  'Does it work with older versions? It does, from 2.4 on!',
  'For settings see /etc/sysconfig and the manual; everything has a default that suits most machines.',
]

/** Package `index` of the repository. */
export function samplePackage(random: Random, index: number): SamplePackage {
  const name = nameOf(Math.floor(index / VERSIONS))
  const arch = random() < 0.7 ? 'x86_64' : 'noarch'
  const version = `${between(random, 0, 9)}.${between(random, 0, 40)}.${index % VERSIONS}`
  const release = `${between(random, 1, 60)}.el7_${between(random, 0, 9)}`
  const files = Math.min(20_000, Math.round(logNormal(random, 24.4, 1.75)) + 1)
  return {
    name,
    arch,
    version,
    release,
    checksum: sha256Of(`package ${index}`),
    bytes: Math.round(logNormal(random, 60_000, 1.8)),
    href: `Packages/${name[0]}/${name}-${version}-${release}.${arch}.rpm`,
    requires: requirementsOf(random, Math.min(200, Math.round(logNormal(random, 9.1, 0.9)))),
    files: filesOf(random, name, version, files),
    sentences: between(random, 1, 6),
  }
}

/** Its element of primary, as createrepo_c writes it. */
export function primaryElement(one: SamplePackage): string {
  const evr = evrOf(one)
  const provided = one.arch === 'noarch' ? [one.name] : [one.name, `${one.name}(x86-64)`]
  const provides = provided.map((name) => entry(`name="${name}" flags="EQ" ${evr}`))
  const requires = one.requires.map((attributes) => entry(attributes))
  const shown = one.files.filter((path) => path.startsWith('/etc/') || path.includes('bin/'))
  return `<package type="rpm">
  <name>${one.name}</name>
  <arch>${one.arch}</arch>
  <version ${evr}/>
  <checksum type="sha256" pkgid="YES">${one.checksum}</checksum>
  <summary>${one.name}: tools and libraries for everyday work</summary>
  <description>${escapeXml(Array.from({ length: one.sentences }, (_, i) => SENTENCES[i % SENTENCES.length]).join('\n'))}</description>
  <packager>Build System &lt;build@example.invalid&gt;</packager>
  <url>https://www.example.invalid/projects/${one.name}/</url>
  <time file="1700000000" build="1690000000"/>
  <size package="${one.bytes}" installed="${one.bytes * 3}" archive="${one.bytes * 3 + 2000}"/>
  <location href="${one.href}"/>
  <format>
    <rpm:license>GPLv2+ and LGPLv2+</rpm:license>
    <rpm:vendor>Example</rpm:vendor>
    <rpm:group>System Environment/Libraries</rpm:group>
    <rpm:buildhost>x86-01.build.example.invalid</rpm:buildhost>
    <rpm:sourcerpm>${one.name}-${one.version}-${one.release}.src.rpm</rpm:sourcerpm>
    <rpm:header-range start="1384" end="${20_000 + one.files.length * 40}"/>
    <rpm:provides>
${provides.join('\n')}
    </rpm:provides>
    <rpm:requires>
${requires.join('\n')}
    </rpm:requires>
${shown.map((path) => `    <file>${path}</file>\n`).join('')}  </format>
</package>
`
}

/** Its element of filelists. */
export function filelistsElement(one: SamplePackage): string {
  const files = one.files.map((path) => `  <file>${path}</file>\n`).join('')
  return `<package pkgid="${one.checksum}" name="${one.name}" arch="${one.arch}">\n  <version ${evrOf(one)}/>\n${files}</package>\n`
}

/** Every number another name: two stems and what stands around them. */
export function nameOf(number: number): string {
  const first = STEMS[number % STEMS.length]!
  const second = STEMS[Math.floor(number / STEMS.length) % STEMS.length]!
  return `${PREFIXES[number % PREFIXES.length]}${first}-${second}${SUFFIXES[Math.floor(number / 7) % SUFFIXES.length]}`
}

function requirementsOf(random: Random, count: number): string[] {
  return [...new Set(Array.from({ length: count }, () => requirement(random)))]
}

function requirement(random: Random): string {
  if (random() < 0.5) return `name="${pick(random, LIBRARIES)}"`
  const version = `${between(random, 0, 9)}.${between(random, 0, 40)}`
  return `name="${nameOf(between(random, 0, PACKAGES / VERSIONS))}" flags="GE" epoch="0" ver="${version}"`
}

function filesOf(random: Random, name: string, version: string, count: number): string[] {
  const folder = pick(random, FOLDERS)
  return Array.from({ length: count }, (_, i) => {
    const base = `${pick(random, STEMS)}_${pick(random, STEMS)}`
    if (i === 0) return random() < 0.4 ? `/usr/bin/${name}` : `/etc/${name}.conf`
    return `${folder}/${name}-${version}/${base}/${pick(random, STEMS)}${pick(random, ENDINGS)}`
  })
}

function evrOf({ version, release }: SamplePackage): string {
  return `epoch="0" ver="${version}" rel="${release}"`
}

function entry(attributes: string): string {
  return `      <rpm:entry ${attributes}/>`
}
