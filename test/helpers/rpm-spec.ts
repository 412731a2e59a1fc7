import { createHash } from 'node:crypto'

/** A package to build. Dependencies are written as in a spec file, one per entry: `libx >= 2.0`, `/usr/bin/tool`,
 *  `(a if b)`. Nothing is detected from the payload: what stands here is all there is, but for what rpm always adds
 *  (`name = evr`, `rpmlib(…)`). */
export interface PackageSpec {
  name: string
  epoch?: number
  version: string
  /** Default `1`. */
  release?: string
  /** Default `noarch`; any architecture rpm knows, since nothing is compiled. */
  arch?: string
  summary?: string
  requires?: string[]
  provides?: string[]
  obsoletes?: string[]
  conflicts?: string[]
  recommends?: string[]
  supplements?: string[]
  /** Absolute path → content. Without any, the package holds one small file under /usr/share/lab that no other version
   *  holds, so that installonly packages can stand side by side. */
  files?: Record<string, string | Uint8Array>
  /** Adds one file of this many bytes that do not compress. */
  payloadBytes?: number
}

const DEPENDENCIES = ['requires', 'provides', 'obsoletes', 'conflicts', 'recommends', 'supplements'] as const

/** `name-[epoch:]version-release.arch`; an epoch of 0 is left out, as rpm and dnf print it. */
export function nevra(spec: PackageSpec): string {
  return `${spec.name}-${spec.epoch ? `${spec.epoch}:` : ''}${spec.version}-${spec.release ?? '1'}.${archOf(spec)}`
}

/** The file name that rpmbuild would give: the epoch is not in it. */
export function rpmFileName(spec: PackageSpec): string {
  return `${spec.name}-${spec.version}-${spec.release ?? '1'}.${archOf(spec)}.rpm`
}

/** The architecture, `noarch` where none is given. */
export function archOf(spec: PackageSpec): string {
  return spec.arch ?? 'noarch'
}

/** All files of the package with their bytes, by absolute path. */
export function payloadOf(spec: PackageSpec): Map<string, Uint8Array> {
  const mark = `/usr/share/lab/${rpmFileName(spec).replace(/\.rpm$/, '')}`
  const files = Object.entries(spec.files ?? { [mark]: `${nevra(spec)}\n` })
  const payload = new Map<string, Uint8Array>(files.map(([path, content]) => [path, Buffer.from(content)]))
  if (spec.payloadBytes !== undefined) payload.set(`${mark}.bin`, noise(nevra(spec), spec.payloadBytes))
  return payload
}

/** A digest over everything that decides the package: equal digests, interchangeable packages. */
export function specDigest(spec: PackageSpec, tool: string): string {
  const payload = [...payloadOf(spec)].map(([path, bytes]) => [path, createHash('sha256').update(bytes).digest('hex')])
  const text = JSON.stringify([tool, specText(spec, { payloadDir: '', fileName: '' }), payload])
  return createHash('sha256').update(text).digest('hex')
}

/** The spec file. `payloadDir` holds the payload as it will lie under the root; the package is written as `fileName`. */
export function specText(spec: PackageSpec, to: { payloadDir: string; fileName: string }): string {
  const evr = `${spec.version}-${spec.release ?? '1'}`
  const dependencies = DEPENDENCIES.flatMap((kind) =>
    (spec[kind] ?? []).map((entry) => `${kind[0]!.toUpperCase()}${kind.slice(1)}: ${plain(entry)}`),
  )
  return [
    `%global _rpmfilename ${to.fileName}`,
    `Name: ${spec.name}`,
    ...(spec.epoch === undefined ? [] : [`Epoch: ${spec.epoch}`]),
    `Version: ${spec.version}`,
    `Release: ${spec.release ?? '1'}`,
    `Summary: ${plain(spec.summary ?? `test package ${spec.name}`)}`,
    'License: MIT',
    ...(archOf(spec) === 'noarch' ? ['BuildArch: noarch'] : []),
    'AutoReqProv: no',
    ...dependencies,
    `%description\n${plain(spec.summary ?? `Test package ${spec.name}.`)}`,
    `%install\nmkdir -p %{buildroot}\ncp -a ${to.payloadDir}/. %{buildroot}/`,
    `%files\n${[...payloadOf(spec).keys()].map((path) => `"${plain(path)}"`).join('\n')}`,
    `%changelog\n* Thu Jan 01 2026 Lab <lab@example.invalid> - ${plain(evr)}\n- version ${plain(evr)}`,
    '',
  ].join('\n')
}

/** `text` with rpm's macro sign taken literally. */
function plain(text: string): string {
  return text.replaceAll('%', '%%')
}

/** `size` bytes that depend on `seed` alone and do not compress. */
function noise(seed: string, size: number): Buffer {
  const blocks: Buffer[] = []
  for (let i = 0; i * 32 < size; i++) blocks.push(createHash('sha256').update(`${seed} ${i}`).digest())
  return Buffer.concat(blocks).subarray(0, size)
}
