/** `modules` of a group in `gapferry.yaml`: the module feed, and what the site decides about modules by name. */
import { resolve } from 'node:path'
import * as v from 'valibot'
import { dictionary, distinct, strictObject } from '../../manifests/document.ts'
import { nearest } from '../../manifests/settings.ts'
import { checkOrigin, invalidSetting, readKey, readNamed, type NamedFiles } from '../settings-checks.ts'
import type { Policy } from './policy.ts'

const MAX_REQUEST_CHARS = 1024 * 1024
const MAX_POLICIES = 2000
const MAX_KEYS = 100

const Path = v.pipe(v.string(), v.minLength(1))
const Rawname = v.pipe(v.string(), v.regex(/^[A-Za-z0-9_][A-Za-z0-9_-]{0,63}$/))

/** Each field by itself: what a preset says is overridden field by field. */
export const ModuleEntry = strictObject({
  enabled: v.exactOptional(v.boolean()),
  feed: v.exactOptional(Path),
  major: v.exactOptional(v.picklist([15, 16, 17])),
  request: v.exactOptional(Path),
  policy: v.exactOptional(v.pipe(dictionary(Rawname, v.string()), v.maxEntries(MAX_POLICIES))),
  keys: v.exactOptional(v.pipe(v.array(Path), v.maxLength(MAX_KEYS))),
  allowUnsigned: v.exactOptional(v.pipe(v.array(Rawname), v.maxLength(MAX_POLICIES), distinct())),
  wholeSet: v.exactOptional(v.boolean()),
})

export interface GroupModules {
  /** origin of the vendor's module server */
  feed: string
  major: 15 | 16 | 17
  /** the form body of a box's list request, to be sent instead of one that is made from inventories */
  request?: string
  /** by rawname */
  policy: [rawname: string, policy: Policy][]
  /** OpenPGP keys, armored; each key in them is one that modules may be signed by */
  keys: { file: string; text: string }[]
  /** rawnames that are carried although no pinned key signed them */
  allowUnsigned: string[]
  /** the vendor's archive of all modules, too */
  wholeSet: boolean
}

/** @param preset  what the group's preset says, if it says anything
 *  @param own  what the group says
 *  @returns undefined where the group has no modules
 *  @throws CONFIG_INVALID */
export function checkModules(
  preset: v.InferOutput<typeof ModuleEntry> | undefined,
  own: v.InferOutput<typeof ModuleEntry> | undefined,
  files: NamedFiles,
  what: string,
): GroupModules | undefined {
  const { enabled = true, ...entry } = { ...preset, ...own }
  if (!enabled || (preset ?? own) === undefined) return undefined
  const place = `${what}: modules`
  if (entry.feed === undefined) throw invalidSetting(place, 'needs a feed, as in https://mirror.freepbx.org')
  if (entry.major === undefined) throw invalidSetting(place, 'needs the major version of its boxes: 15, 16 or 17')
  const policy = Object.entries(entry.policy ?? {}).map(([rawname, text]): [string, Policy] => [
    rawname,
    parsePolicy(text, `${place}: policy: ${rawname}`),
  ])
  return {
    feed: checkOrigin('feed', entry.feed, place),
    major: entry.major,
    ...(entry.request === undefined ? {} : { request: readRequest(entry.request, place, files) }),
    policy: policy.sort(([a], [b]) => (a < b ? -1 : 1)),
    keys: (entry.keys ?? []).map((file) => ({ file, text: readKey(file, 'keys:', place, files) })),
    allowUnsigned: entry.allowUnsigned ?? [],
    wholeSet: entry.wholeSet ?? false,
  }
}

const KINDS = ['latest', 'block', 'want'] as const

function parsePolicy(text: string, what: string): Policy {
  const kind = KINDS.find((one) => one === text)
  if (kind !== undefined) return { kind }
  const version = /^pin +([A-Za-z0-9][A-Za-z0-9._+-]{0,63})$/.exec(text)?.[1]
  if (version !== undefined) return { kind: 'pin', version }
  if (/^pin\b/.test(text)) throw invalidSetting(what, `"${text}" names no version`, 'write it as in: pin 16.0.10.3')
  const near = nearest(text, [...KINDS, 'pin'])
  const all = 'latest, block, want, or pin VERSION'
  throw invalidSetting(what, `"${text}" is none of ${all}`, near === undefined ? undefined : `did you mean "${near}"?`)
}

/** As it came off a box. What it says is judged where it is sent. */
function readRequest(name: string, what: string, files: NamedFiles): string {
  const text = readNamed(name, 'request', what, files).trim()
  const file = resolve(files.base, name)
  if (!files.isRead) return text
  if (text.length > MAX_REQUEST_CHARS) throw invalidSetting(what, `request ${file} is larger than 1 MiB`)
  if (/^[!-~]+$/.test(text) && [...new URLSearchParams(text).keys()].some((key) => key.startsWith('modules[')))
    return text
  throw invalidSetting(
    what,
    `request ${file} is not the form body of a module list request: one line, with modules[…] in it`,
    'see "A request of a box" in the manual, bundler/README.md',
  )
}
