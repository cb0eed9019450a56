/**
 * Checks that data has the shape a table must have. Every fault is reported, each with the place and how to mend it;
 * checking goes on behind a fault as far as that makes sense.
 */
export type Report = (at: string, problem: string, fix: string) => void
export type Check = (value: unknown, at: string, report: Report) => void

export interface ObjectShape {
  required?: Record<string, Check>
  optional?: Record<string, Check>
}

/** An object with these keys and no others. */
export function object({ required = {}, optional = {} }: ObjectShape): Check {
  const known = [...Object.keys(required), ...Object.keys(optional)]
  return (value, at, report) => {
    if (!isRecord(value)) return report(at, `is ${describe(value)}`, `make it an object with ${list(known)}`)
    for (const key of Object.keys(value))
      if (!known.includes(key)) report(at, `has an unknown key '${key}'`, suggest(key, known))
    for (const [key, check] of Object.entries(required)) {
      if (value[key] === undefined) report(at, `has no '${key}'`, `add '${key}'`)
      else check(value[key], join(at, key), report)
    }
    for (const [key, check] of Object.entries(optional))
      if (value[key] !== undefined) check(value[key], join(at, key), report)
  }
}

/** An object whose keys are names of the writer's choice. */
export function record(check: Check, { name = /^[^\s]+$/, what = 'a name' } = {}): Check {
  return (value, at, report) => {
    if (!isRecord(value)) return report(at, `is ${describe(value)}`, 'make it an object')
    for (const [key, entry] of Object.entries(value)) {
      if (!name.test(key)) report(at, `has the key '${key}', which is not ${what}`, `rename it`)
      check(entry, join(at, key), report)
    }
  }
}

export function array(check: Check, { min = 0 } = {}): Check {
  return (value, at, report) => {
    if (!Array.isArray(value)) return report(at, `is ${describe(value)}`, 'make it a list: […]')
    if (value.length < min) report(at, 'is empty', `give at least ${min}`)
    for (const [index, entry] of value.entries()) check(entry, `${at}[${index}]`, report)
  }
}

/** Text that matches; `what` completes "must be …". */
export function text(pattern: RegExp | ((value: string) => boolean) = /[^]/, what = 'text'): Check {
  const matches = pattern instanceof RegExp ? (value: string) => pattern.test(value) : pattern
  return (value, at, report) => {
    if (typeof value !== 'string') return report(at, `is ${describe(value)}`, `write ${what}`)
    if (!matches(value)) report(at, `is '${value.slice(0, 80)}'`, `write ${what}`)
  }
}

export function integer({ min, max }: { min: number; max: number }): Check {
  return (value, at, report) => {
    if (!Number.isSafeInteger(value))
      return report(at, `is ${describe(value)}`, `write a whole number from ${min} to ${max}`)
    if ((value as number) < min || (value as number) > max)
      report(at, `is ${String(value)}`, `write a whole number from ${min} to ${max}`)
  }
}

/** One of these values. */
export function oneOf(...values: readonly (string | number | boolean)[]): Check {
  return (value, at, report) => {
    if (values.includes(value as never)) return
    const texts = values.map(String)
    const fix = isText(value) && values.some(isText) ? suggest(value, texts) : `write ${list(texts, 'or')}`
    report(at, `is ${describe(value)}`, fix)
  }
}

/** The check whose test the value passes; the last one when none does. */
export function either(...choices: [(value: unknown) => boolean, Check][]): Check {
  return (value, at, report) => {
    const chosen = choices.find(([applies]) => applies(value)) ?? choices.at(-1)
    chosen?.[1](value, at, report)
  }
}

/** One such value, or a list of at least one. */
export const oneOrMore = (check: Check): Check => either([Array.isArray, array(check, { min: 1 })], [() => true, check])

/** A plain object: a Map, a Date or an instance of a class is no data. */
export function isRecord(value: unknown): value is Record<string, unknown> {
  if (typeof value !== 'object' || value === null) return false
  const prototype: unknown = Object.getPrototypeOf(value)
  return prototype === Object.prototype || prototype === null
}
export const isText = (value: unknown): value is string => typeof value === 'string'
export const isBoolean = (value: unknown): value is boolean => typeof value === 'boolean'

/** "did you mean 'proxy'?" when one is close, otherwise what is known. */
export function suggest(word: string, known: readonly string[]): string {
  const near = findNear(word, known)
  return near === undefined ? `known: ${known.join(', ')}` : `did you mean '${near}'?`
}

/** The known word that was probably meant. */
export function findNear(word: string, known: readonly string[]): string | undefined {
  const near = known
    .map((candidate) => ({ candidate, distance: editDistance(word.toLowerCase(), candidate.toLowerCase()) }))
    .sort((a, b) => a.distance - b.distance)[0]
  return near && near.distance <= Math.max(1, Math.floor(near.candidate.length / 3)) ? near.candidate : undefined
}

function join(at: string, key: string): string {
  return at === '' ? key : `${at}.${key}`
}

function describe(value: unknown): string {
  if (typeof value === 'string') return `'${value.slice(0, 80)}'`
  if (Array.isArray(value)) return 'a list'
  if (value === null || value === undefined || typeof value === 'number' || typeof value === 'boolean')
    return String(value)
  return isRecord(value) ? 'an object' : `a ${typeof value === 'object' ? value.constructor.name : typeof value}`
}

const list = (words: readonly string[], last = 'and'): string =>
  words.length < 2 ? words.join('') : `${words.slice(0, -1).join(', ')} ${last} ${words.at(-1)}`

/** Levenshtein's distance in which two letters that changed places are one mistake; three rows at a time. */
function editDistance(a: string, b: string): number {
  let before: number[] = []
  let previous = Array.from({ length: b.length + 1 }, (_, index) => index)
  for (let i = 1; i <= a.length; i++) {
    const current = [i]
    for (let j = 1; j <= b.length; j++) {
      const swapped = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]
      current[j] = Math.min(
        (previous[j] ?? 0) + 1,
        (current[j - 1] ?? 0) + 1,
        (previous[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1),
        swapped ? (before[j - 2] ?? 0) + 1 : Number.POSITIVE_INFINITY,
      )
    }
    before = previous
    previous = current
  }
  return previous[b.length] ?? 0
}
