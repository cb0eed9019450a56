import { readFieldName } from '../identity.ts'

/** What a stored answer was chosen by: names of request fields and what they said (RFC 9111 §4.1). */
export type Variant = [name: string, value: string | null][]

/**
 * The names that an answer varies by, sorted; undefined when nobody else may get it: it varies by everything, by who
 * asks, or by what is no name.
 */
export function readVary(vary: string | undefined, always: readonly string[]): string[] | undefined {
  const names = (vary ?? '')
    .toLowerCase()
    .split(',')
    .map((name) => name.trim())
    .filter((name) => name !== '')
  if (names.length > namesMax || names.some((name) => !/^[!#$%&'+.^_`|~0-9a-z-]+$/.test(name) || isPersonal(name)))
    return undefined
  return [...new Set([...names, ...always])].sort()
}

const namesMax = 16

/** Fields that tell clients apart: an answer that varies by one of them is for one of them. */
export const isPersonal = (name: string): boolean => personal.has(name) || name.startsWith('x-user-')

const personal = new Set([
  'authorization',
  'cookie',
  'proxy-authorization',
  'set-cookie',
  'x-forwarded-for',
  'x-real-ip',
  'x-request-id',
])

/** What the request says in those fields; `sent` is flat, as the upstream got it. */
export const toVariant = (names: readonly string[], sent: readonly string[]): Variant =>
  names.map((name) => [name, readNormal(name, sent)])

export const matchesVariant = (variant: Variant, sent: readonly string[]): boolean =>
  variant.every(([name, value]) => readNormal(name, sent) === value)

/** Several lines are one, and space around commas says nothing; null: not there. */
function readNormal(name: string, sent: readonly string[]): string | null {
  let value: string | null = null
  for (let i = 0; i < sent.length; i += 2)
    if (readFieldName(sent[i] ?? '').name === name)
      value = value === null ? (sent[i + 1] ?? '') : `${value},${sent[i + 1]}`
  if (value === null) return null
  return name === 'accept-encoding' ? toCodings(value) : value.replace(/[ \t]*,[ \t]*/g, ',').trim()
}

/** Browsers write the same codings in many ways; which of them are taken is all that counts. */
function toCodings(value: string): string {
  const members = value.toLowerCase().replace(/[ \t]/g, '').split(',')
  const taken = members.filter((member) => !/;q=0(\.0*)?$/.test(member)).map((member) => member.replace(/;.*/, ''))
  const refused = members.filter((member) => /^(identity|\*);q=0(\.0*)?$/.test(member))
  return [...new Set([...taken, ...refused])]
    .filter((member) => member !== '')
    .sort()
    .join(',')
}
