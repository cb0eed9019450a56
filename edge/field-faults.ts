import { deadlineField, identityFields, readFieldName } from './identity.ts'
import type { FieldKind } from './identity.ts'
import type { HeadersPreset, Limit, Route } from './table.ts'

export interface FieldFault {
  at: string
  problem: string
  fix: string
}

/** What a row asks of fields that cannot be had or must not be touched. */
export function findFieldFaults(route: Route): FieldFault[] {
  return [
    ...(route.methods ?? []).flatMap(findMethodFault),
    ...Object.keys(route.matchHeaders ?? {}).flatMap((name) => findUnseenField(name, 'matchHeaders')),
    ...limitsOf(route).flatMap(({ by }) =>
      typeof by === 'object' ? findUnseenField(by.header, 'limit.by.header') : [],
    ),
    ...Object.keys(route.requestHeaders?.set ?? {}).flatMap(findRequestFieldFault),
    ...findAnswerFieldFaults(route.responseHeaders?.set, 'responseHeaders.set'),
    ...findAnswerFieldFaults(route.headers, 'headers'),
  ]
}

/** Fields of an answer that frame it or that only the gateway says. */
export function findAnswerFieldFaults(
  fields: Record<string, string> | HeadersPreset | undefined,
  at: string,
): FieldFault[] {
  if (typeof fields !== 'object') return []
  const names = Object.keys(fields).filter((name) => answerFieldsOfOurs.has(name.toLowerCase()))
  return names.map((name) => ({ at, problem: `sets '${name}', which the gateway sets itself`, fix: 'drop it' }))
}

const answerFieldsOfOurs = new Set([
  'connection',
  'content-length',
  'date',
  'keep-alive',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
  'x-request-id',
])

const limitsOf = ({ limit }: Route): Limit[] => [limit ?? []].flat()

function findMethodFault(method: string): FieldFault[] {
  const at = 'methods'
  if (method === 'ALL')
    return [{ at, problem: "has 'ALL', which is no method", fix: "leave 'methods' out to mean all" }]
  if (method !== 'TRACE' && method !== 'CONNECT') return []
  return [{ at, problem: `has ${method}, which is never served`, fix: 'drop it' }]
}

/** Rows and limits see the client's own fields only: what frames a request or names the client is read before them. */
export function findUnseenField(name: string, at: string): FieldFault[] {
  if (visible.has(readFieldName(name).kind)) return []
  return [
    { at, problem: `names '${name}', which is not passed on, so no request has it here`, fix: 'name another field' },
  ]
}

const visible: ReadonlySet<FieldKind> = new Set(['forward', 'authorization', 'cookie'])

function findRequestFieldFault(name: string): FieldFault[] {
  const field = name.toLowerCase()
  const { kind } = readFieldName(name)
  const isOurs =
    requestFieldsOfOurs.has(field) || field.startsWith('x-daemun-') || (kind !== 'drop' && !visible.has(kind))
  if (!isOurs) return []
  return [{ at: 'requestHeaders.set', problem: `sets '${name}', which the gateway sets itself`, fix: 'drop it' }]
}

const requestFieldsOfOurs = new Set<string>([
  ...Object.values(identityFields),
  deadlineField,
  'keep-alive',
  'proxy-connection',
  'te',
  'trailer',
  'x-forwarded-for',
  'x-forwarded-host',
  'x-forwarded-proto',
  'x-real-ip',
  'x-request-id',
])
