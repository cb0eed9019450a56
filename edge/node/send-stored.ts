import { toCompressed } from '../actions/compress.ts'
import { toServerTiming } from '../actions/server-timing.ts'
import { serveStored } from '../cache/serve-stored.ts'
import { refuse } from '../gateway.ts'
import type { ProxyPlan } from '../plan.ts'
import { sendAnswer } from './answer.ts'
import type { CacheStore, Entry } from './cache-store.ts'
import { compressLater } from './compress-later.ts'
import type { Finish, NodeIo } from './exchange-io.ts'

/** Sends a kept answer: all of it, a part, or that the client has it already. One write where it is short. */
export function sendStored(
  plan: ProxyPlan,
  io: NodeIo,
  entry: Entry,
  { store, now, finish }: { store: CacheStore; now: number; finish: Finish },
): void {
  const { exchange } = plan
  const served = serveStored(exchange, plan.response, entry.head, { size: entry.body.length, now })
  if ('code' in served) return sendAnswer(refuse(exchange, served), io, finish, { refusal: served }, plan)
  const { status, range } = served
  let { headers } = served
  let body: Buffer | string = range ? entry.body.subarray(range.start, range.end + 1) : (entry.text ?? entry.body)
  let { length } = body
  if (plan.compress && status === 200) {
    const form = findForm(plan, entry, headers, store)
    headers = form.headers
    if (form.body) body = form.body
    length = body.length
  }
  if (status !== 204 && status !== 304) headers.push('Content-Length', String(length))
  headers.push(...toServerTiming(exchange, performance.now()))
  const { request, response } = io
  const isBodiless = status === 204 || status === 304 || exchange.method === 'HEAD'
  response.once('close', () => {
    const end = response.writableFinished ? 'done' : io.stalled ? 'stalled' : 'client_gone'
    finish(plan, { status, bytes: isBodiless ? 0 : length, end })
  })
  request.resume()
  response.writeHead(status, headers)
  if (isBodiless || length === 0) response.end()
  else if (typeof body === 'string') response.end(body, 'latin1')
  else response.end(body)
}

/** The answer as this client takes it. It is made once, behind those who ask before it is there. */
function findForm(
  { exchange }: ProxyPlan,
  entry: Entry,
  headers: string[],
  store: CacheStore,
): { headers: string[]; body?: Buffer } {
  const { status } = entry.head
  const plain = [...headers, 'Content-Length', String(entry.body.length)]
  const compressed = toCompressed(exchange, status, plain)
  const { coding } = compressed
  if (!coding) return { headers: withoutLength(compressed.headers) }
  const body = entry.forms.get(coding)
  if (body) return { headers: compressed.headers, body }
  if (!entry.forms.has(coding)) {
    entry.forms.set(coding, undefined)
    compressLater(coding, entry.body, (encoded) => store.putForm(entry, coding, encoded))
  }
  return { headers: withoutLength(toCompressed({ ...exchange, method: 'HEAD' }, status, plain).headers) }
}

const withoutLength = (headers: string[]): string[] =>
  headers.filter((_, index) => (headers[index - (index % 2)] ?? '').toLowerCase() !== 'content-length')
