/**
 * What the documents of this project need beside valibot, whose objects and records take an array for an object, and whose
 * records leave out keys such as `constructor` without a word: here each of these is a fault. Checks end at the first fault,
 * so that a hostile document costs no more than its bytes.
 */
import * as v from 'valibot'

/** What is wrong first, and where. */
export interface Fault {
  /** the keys that lead to the wrong value */
  path: (string | number)[]
  /** to stand after the path: `must be …` */
  message: string
  /** a key that is not allowed there, and those that are */
  unknown?: { key: string; known: string[] }
}

type Fields<E extends v.ObjectEntries> = v.ObjectSchema<E, undefined>

const MAX_SHOWN_CHARS = 200

/** An object with these keys and no others. Unknown keys are found before missing ones, which they explain.
 *  @param extra  further keys, and what their values are; no part of the output */
export function strictObject<const E extends v.ObjectEntries>(
  entries: E,
  extra?: { key: RegExp; value: v.GenericSchema },
): v.GenericSchema<v.InferInput<Fields<E>>, v.InferOutput<Fields<E>>> {
  const known = Object.keys(entries)
  return v.pipe(
    v.custom<v.InferInput<Fields<E>>>(isObject, 'must be an object'),
    v.rawCheck(({ dataset, addIssue }) => {
      if (!dataset.typed) return
      for (const key of Object.keys(dataset.value)) {
        if (Object.hasOwn(entries, key)) continue
        if (extra?.key.test(key) !== true)
          return addIssue({ input: key, expected: known.join(' '), message: unknownKey(key) })
        const info = faultInside(dataset.value, key, extra.value)
        if (info !== undefined) return addIssue(info)
      }
    }),
    v.object(entries),
  )
}

/** An object of own keys that `key` admits, whatever they are called.
 *  @param value  checks only: what it would make of a value is not taken over */
export function dictionary<const V extends v.GenericSchema>(
  key: v.GenericSchema<string>,
  value: V,
): v.GenericSchema<Record<string, v.InferInput<V>>> {
  return v.pipe(
    v.custom<Record<string, v.InferInput<V>>>(isObject, 'must be an object'),
    v.rawCheck(({ dataset, addIssue }) => {
      if (!dataset.typed) return
      for (const name of Object.keys(dataset.value)) {
        const [wrong] = v.safeParse(key, name, { abortEarly: true }).issues ?? []
        if (wrong !== undefined) return addIssue({ message: `${unknownKey(name)}: a key ${messageOf(wrong)}` })
        const info = faultInside(dataset.value, name, value)
        if (info !== undefined) return addIssue(info)
      }
    }),
  )
}

/** No item twice. */
export function distinct<T>(): v.CheckAction<T[], string> {
  return v.check<T[], string>(
    (items) => new Set(items.map((item) => JSON.stringify(item))).size === items.length,
    'must not have an item twice',
  )
}

/** @param issue  the first one of a check that ended with it */
export function faultOf(issue: v.BaseIssue<unknown>): Fault {
  const steps = issue.path ?? []
  // A key that is missing or not allowed is a fault of the object.
  const path = (steps.at(-1)?.origin === 'key' ? steps.slice(0, -1) : steps).map(({ key }) => key as string | number)
  const unknown =
    issue.type === 'raw_check' && issue.expected !== null
      ? { unknown: { key: String(issue.input), known: issue.expected.split(' ') } }
      : {}
  return { path, message: messageOf(issue), ...unknown }
}

/** What is wrong with a document that `schema` does not admit: `/sites/0/name must be a string`. */
export function describeFault(schema: v.GenericSchema, document: unknown): string {
  const [issue] = v.safeParse(schema, document, { abortEarly: true }).issues ?? []
  if (issue === undefined) throw new Error('nothing is wrong with it')
  const { path, message } = faultOf(issue)
  return `${`/${path.join('/')}`.slice(0, MAX_SHOWN_CHARS)} ${message}`
}

/** What to say of the value of one key, for a check of the whole object. */
function faultInside(input: Record<string, unknown>, key: string, schema: v.GenericSchema) {
  const value = input[key]
  const [issue] = v.safeParse(schema, value, { abortEarly: true }).issues ?? []
  if (issue === undefined) return undefined
  const path: [v.IssuePathItem, ...v.IssuePathItem[]] = [
    { type: 'object', origin: 'value', input, key, value },
    ...(issue.path ?? []),
  ]
  return { message: messageOf(issue), path }
}

function messageOf(issue: v.BaseIssue<unknown>): string {
  const { kind, type, input } = issue
  if (kind === 'schema') return schemaMessage(issue)
  const bound = String(issue.requirement)
  const unit = typeof input === 'string' ? 'characters' : Array.isArray(input) ? 'items' : 'keys'
  if (type === 'integer' || type === 'safe_integer') return 'must be an integer'
  if (type === 'regex') return `must match ${bound}`
  if (type === 'min_value') return `must be at least ${bound}`
  if (type === 'max_value') return `must be at most ${bound}`
  if (/^min_(?:length|entries)$/.test(type)) return `must not have fewer than ${bound} ${unit}`
  if (/^max_(?:length|entries)$/.test(type)) return `must not have more than ${bound} ${unit}`
  return issue.message
}

const NAMES: Readonly<Record<string, string>> = { array: 'a list', boolean: 'true or false', variant: 'an object' }

function schemaMessage({ type, expected, path, input, message }: v.BaseIssue<unknown>): string {
  if (type === 'custom') return message
  if (path?.at(-1)?.origin === 'key') return expected === 'never' ? unknownKey(String(input)) : `must have ${expected}`
  const choice = /^\((.*)\)$/.exec(expected ?? '')?.[1]
  if (choice !== undefined) return `must be one of ${choice.replaceAll(' | ', ', ')}`
  if (type === 'literal' || type === 'picklist' || (type === 'variant' && expected !== 'Object'))
    return `must be ${expected}`
  if (type === 'strict_object') return 'must be an object'
  return `must be ${NAMES[type] ?? `a ${type}`}`
}

function unknownKey(key: string): string {
  return `must not have the key ${JSON.stringify(key.slice(0, MAX_SHOWN_CHARS))}`
}

function isObject(value: unknown): boolean {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
