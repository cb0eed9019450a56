import type { z } from 'zod'
import type { Fault } from './error.ts'

type Issue = z.core.$ZodIssue
type Description = { type: string; msg: string }

const locationOf: Record<string, string> = {
  json: 'body',
  form: 'body',
  param: 'path',
  query: 'query',
  header: 'header',
}

/**
 * Turns what zod found into the list FastAPI would have answered with. `target` is where the value came from in
 * Hono's words. A value is echoed only when it is a short scalar and not a password.
 */
export function toFaults(target: string, issues: readonly Issue[], value: unknown): Fault[] {
  return issues.map((issue) => toFault(locationOf[target] ?? target, issue, value))
}

function toFault(location: string, issue: Issue, value: unknown): Fault {
  const path = issue.path.map((key) => (typeof key === 'symbol' ? String(key) : key))
  const input = at(value, path)
  const { type, msg } = describe(issue, input)
  return { type, loc: [location, ...path], msg, ...echo(path, input) }
}

function at(value: unknown, path: readonly (string | number)[]): unknown {
  return path.reduce<unknown>((inner, key) => (isRecord(inner) ? inner[key] : undefined), value)
}

function isRecord(value: unknown): value is Record<string | number, unknown> {
  return typeof value === 'object' && value !== null
}

function describe(issue: Issue, input: unknown): Description {
  if (input === undefined && issue.code === 'invalid_type') return { type: 'missing', msg: 'Field required' }
  switch (issue.code) {
    case 'invalid_type':
      return wrongType(issue.expected, input)
    case 'too_big':
      return tooBig(issue)
    case 'too_small':
      return tooSmall(issue)
    case 'invalid_format':
      return { type: formatTypes[issue.format] ?? 'value_error', msg: formatMessages[issue.format] ?? issue.message }
    case 'custom':
      return { type: String(issue.params?.type ?? 'value_error'), msg: issue.message }
    default:
      return { type: 'value_error', msg: issue.message }
  }
}

const wrongTypes: Record<string, Description> = {
  string: { type: 'string_type', msg: 'Input should be a valid string' },
  int: { type: 'int_type', msg: 'Input should be a valid integer' },
  number: { type: 'float_type', msg: 'Input should be a valid number' },
  boolean: { type: 'bool_type', msg: 'Input should be a valid boolean' },
  array: { type: 'list_type', msg: 'Input should be a valid list' },
  object: { type: 'model_attributes_type', msg: 'Input should be a valid dictionary or object to extract fields from' },
}

function wrongType(expected: string, input: unknown): Description {
  if (expected === 'int' && typeof input === 'number')
    return { type: 'int_from_float', msg: 'Input should be a valid integer, got a number with a fractional part' }
  if (expected === 'number' && typeof input === 'string')
    return { type: 'int_parsing', msg: 'Input should be a valid integer, unable to parse string as an integer' }
  return wrongTypes[expected] ?? { type: `${expected}_type`, msg: `Input should be a valid ${expected}` }
}

const formatTypes: Record<string, string> = { uuid: 'uuid_parsing', guid: 'uuid_parsing', email: 'value_error' }
const formatMessages: Record<string, string> = {
  uuid: 'Input should be a valid UUID',
  guid: 'Input should be a valid UUID',
  email: 'value is not a valid email address',
}

function tooBig({ origin, maximum }: { origin: string; maximum: number | bigint }): Description {
  if (origin === 'string') return { type: 'string_too_long', msg: `String should have at most ${maximum} characters` }
  if (origin === 'array') return { type: 'too_long', msg: `List should have at most ${maximum} items after validation` }
  return { type: 'less_than_equal', msg: `Input should be less than or equal to ${maximum}` }
}

function tooSmall({ origin, minimum }: { origin: string; minimum: number | bigint }): Description {
  if (origin === 'string') return { type: 'string_too_short', msg: `String should have at least ${minimum} characters` }
  if (origin === 'array')
    return { type: 'too_short', msg: `List should have at least ${minimum} item after validation` }
  return { type: 'greater_than_equal', msg: `Input should be greater than or equal to ${minimum}` }
}

const echoCharactersMax = 200

function echo(path: readonly (string | number)[], input: unknown): Pick<Fault, 'input'> {
  if (path.includes('password')) return {}
  if (input === null || typeof input === 'number' || typeof input === 'boolean') return { input }
  return typeof input === 'string' && input.length <= echoCharactersMax ? { input } : {}
}
