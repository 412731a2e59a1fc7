/**
 * Shapes of documents: schemas as plain JSON Schema objects with their static types, and the check of a parsed document
 * against one. Only the keywords that are needed here. A library for this is 680 modules: half of the time that a program
 * took to start (0.2 processor seconds) and 20 MB of a mirror's memory; the test checks this against it.
 */

/** A JSON Schema for values of type T. */
export interface Schema<T = unknown> {
  /** never there: carries T */
  readonly [VALUE]?: T
  readonly [OPTIONAL]?: true
  readonly type?: 'object' | 'array' | 'string' | 'integer' | 'number' | 'boolean' | 'null'
  readonly const?: string | number | boolean
  readonly anyOf?: readonly Schema[]
  readonly default?: unknown
  readonly minimum?: number
  readonly maximum?: number
  readonly minLength?: number
  readonly maxLength?: number
  readonly pattern?: string
  readonly items?: Schema
  readonly minItems?: number
  readonly maxItems?: number
  readonly uniqueItems?: boolean
  readonly properties?: Properties
  readonly required?: readonly string[]
  readonly patternProperties?: Properties
  readonly additionalProperties?: false | Schema
  readonly minProperties?: number
  readonly maxProperties?: number
}

export type Properties = Readonly<Record<string, Schema>>

/** The type of the values that a schema admits. */
export type Static<S extends Schema> = S extends Schema<infer T> ? T : never

/** What is wrong, and where. */
export interface SchemaError {
  /** the JSON Schema keyword that is not met */
  keyword: string
  /** of the value that is wrong: `/sites/0/name`; empty for the whole document */
  instancePath: string
  message: string
  /** keys that are not allowed, for the keyword additionalProperties */
  additionalProperties?: string[]
}

declare const VALUE: unique symbol
const OPTIONAL = Symbol('optional')

type Optional<T> = Schema<T> & { readonly [OPTIONAL]: true }
type Bounds = Pick<Schema, 'minimum' | 'maximum' | 'default'>
type OptionalKeys<P extends Properties> = {
  [K in keyof P]: P[K] extends { readonly [OPTIONAL]: true } ? K : never
}[keyof P]
type ObjectOf<P extends Properties> = { [K in keyof Pick<P, OptionalKeys<P>>]?: Static<P[K]> } & {
  [K in Exclude<keyof P, OptionalKeys<P>>]: Static<P[K]>
} extends infer O
  ? { [K in keyof O]: O[K] }
  : never

/** Makes schemas. `default` is filled in by `Default`. Lengths of texts count UTF-16 units. */
export const Type = {
  String: (options: Pick<Schema, 'minLength' | 'maxLength' | 'pattern' | 'default'> = {}): Schema<string> => ({
    type: 'string',
    ...options,
  }),
  Integer: (options: Bounds = {}): Schema<number> => ({ type: 'integer', ...options }),
  Number: (options: Bounds = {}): Schema<number> => ({ type: 'number', ...options }),
  Boolean: (): Schema<boolean> => ({ type: 'boolean' }),
  Null: (): Schema<null> => ({ type: 'null' }),
  Literal: <const T extends string | number | boolean>(value: T): Schema<T> => ({ const: value }),
  Union: <const S extends readonly Schema[]>(schemas: S): Schema<Static<S[number]>> => ({ anyOf: schemas }),
  Optional: <T>(schema: Schema<T>): Optional<T> => ({ ...schema, [OPTIONAL]: true }),
  Array: <T>(
    items: Schema<T>,
    options: Pick<Schema, 'minItems' | 'maxItems' | 'uniqueItems' | 'default'> = {},
  ): Schema<T[]> => ({ type: 'array', items, ...options }),
  Object: <const P extends Properties>(
    properties: P,
    options: Pick<Schema, 'additionalProperties' | 'patternProperties' | 'default'> = {},
  ): Schema<ObjectOf<P>> => ({
    type: 'object',
    properties,
    required: Object.keys(properties).filter((key) => properties[key]![OPTIONAL] !== true),
    ...options,
  }),
  /** Any keys, or those that match the pattern of `key` and no others. */
  Record: <T>(
    { pattern }: Schema<string>,
    value: Schema<T>,
    options: Pick<Schema, 'minProperties' | 'maxProperties'> = {},
  ): Schema<Record<string, T>> => ({
    type: 'object',
    ...(pattern === undefined
      ? { additionalProperties: value }
      : { patternProperties: { [pattern]: value }, additionalProperties: false as const }),
    ...options,
  }),
}

const MAX_ERRORS = 1000

/** @param value  parsed JSON or YAML */
export function Check<S extends Schema>(schema: S, value: unknown): value is Static<S> {
  return faults(schema, value, '').next().done === true
}

/** What is wrong with `value`, the first thousand faults; empty when `Check` holds. */
export function Errors(schema: Schema, value: unknown): SchemaError[] {
  const errors: SchemaError[] = []
  for (const error of faults(schema, value, '')) {
    if (errors.push(error) === MAX_ERRORS) break
  }
  return errors
}

/** `value` with defaults where nothing is; parts of it are shared. */
export function Default(schema: Schema, value: unknown): unknown {
  const given = value === undefined && schema.default !== undefined ? structuredClone(schema.default) : value
  if (schema.items !== undefined && Array.isArray(given)) return given.map((item) => Default(schema.items!, item))
  if (schema.properties === undefined || !isObject(given)) return given
  const filled = { ...given }
  for (const [key, property] of Object.entries(schema.properties)) {
    const inside = Default(property, Object.hasOwn(given, key) ? given[key] : undefined)
    if (inside !== undefined) filled[key] = inside
  }
  return filled
}

type Faults = Generator<SchemaError, undefined>

function* faults(schema: Schema, value: unknown, at: string): Faults {
  if (schema.const !== undefined) {
    if (value !== schema.const) yield fault('const', at, `must be ${JSON.stringify(schema.const)}`)
  } else if (schema.anyOf !== undefined) {
    yield* unionFaults(schema.anyOf, value, at)
  } else if (!isOfType(schema.type!, value)) {
    yield fault('type', at, `must be ${schema.type}`)
  } else if (typeof value === 'string') yield* stringFaults(schema, value, at)
  else if (typeof value === 'number') yield* numberFaults(schema, value, at)
  else if (Array.isArray(value)) yield* arrayFaults(schema, value, at)
  else if (isObject(value)) yield* objectFaults(schema, value, at)
}

function isOfType(type: NonNullable<Schema['type']>, value: unknown): boolean {
  if (type === 'object') return isObject(value)
  if (type === 'array') return Array.isArray(value)
  if (type === 'null') return value === null
  if (type === 'integer') return Number.isInteger(value)
  if (type === 'number') return Number.isFinite(value)
  return typeof value === type
}

function* unionFaults(schemas: readonly Schema[], value: unknown, at: string): Faults {
  if (schemas.some((schema) => Check(schema, value))) return
  const sameType = schemas.filter((schema) => schema.type !== undefined && isOfType(schema.type, value))
  if (sameType.length === 1) yield* faults(sameType[0]!, value, at)
  else
    yield fault('anyOf', at, `must be one of ${schemas.map((one) => JSON.stringify(one.const ?? one.type)).join(', ')}`)
}

function* stringFaults({ minLength = 0, maxLength = Infinity, pattern }: Schema, value: string, at: string): Faults {
  if (value.length < minLength) yield fault('minLength', at, `must not have fewer than ${minLength} characters`)
  if (value.length > maxLength) yield fault('maxLength', at, `must not have more than ${maxLength} characters`)
  else if (pattern !== undefined && !matches(pattern, value)) yield fault('pattern', at, `must match "${pattern}"`)
}

function* numberFaults({ minimum = -Infinity, maximum = Infinity }: Schema, value: number, at: string): Faults {
  if (value < minimum) yield fault('minimum', at, `must be at least ${minimum}`)
  if (value > maximum) yield fault('maximum', at, `must be at most ${maximum}`)
}

function* arrayFaults(schema: Schema, value: unknown[], at: string): Faults {
  const { items, minItems = 0, maxItems = Infinity, uniqueItems = false } = schema
  if (value.length < minItems) yield fault('minItems', at, `must not have fewer than ${minItems} items`)
  if (value.length > maxItems) {
    yield fault('maxItems', at, `must not have more than ${maxItems} items`)
    return
  }
  if (uniqueItems && new Set(value.map((item) => JSON.stringify(item))).size < value.length) {
    yield fault('uniqueItems', at, 'must not have an item twice')
  }
  for (const [index, item] of value.entries()) yield* faults(items!, item, `${at}/${index}`)
}

function* objectFaults(schema: Schema, value: Record<string, unknown>, at: string): Faults {
  const { properties = {}, required = [], minProperties = 0, maxProperties = Infinity } = schema
  const keys = Object.keys(value)
  if (keys.length < minProperties) yield fault('minProperties', at, `must not have fewer than ${minProperties} keys`)
  if (keys.length > maxProperties) {
    yield fault('maxProperties', at, `must not have more than ${maxProperties} keys`)
    return
  }
  const lacking = required.filter((key) => !Object.hasOwn(value, key))
  if (lacking.length > 0) yield fault('required', at, `must have ${lacking.join(', ')}`)
  const unknown: string[] = []
  for (const key of keys) {
    const inside = Object.hasOwn(properties, key) ? properties[key] : schemaOfKey(schema, key)
    if (inside === false) unknown.push(key)
    else if (inside !== undefined) yield* faults(inside, value[key], `${at}/${key}`)
  }
  if (unknown.length > 0) {
    yield { ...fault('additionalProperties', at, 'must not have additional properties'), additionalProperties: unknown }
  }
}

function schemaOfKey(
  { patternProperties = {}, additionalProperties }: Schema,
  key: string,
): Schema | false | undefined {
  const pattern = Object.keys(patternProperties).find((one) => matches(one, key))
  return pattern === undefined ? additionalProperties : patternProperties[pattern]
}

const patterns = new Map<string, RegExp>()

function matches(pattern: string, text: string): boolean {
  const known = patterns.get(pattern) ?? new RegExp(pattern, 'u')
  patterns.set(pattern, known)
  return known.test(text)
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function fault(keyword: string, instancePath: string, message: string): SchemaError {
  return { keyword, instancePath, message }
}
