import { once } from 'node:events'
import { createServer } from 'node:http'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { gzipSync } from 'node:zlib'
import { WebSocketServer } from 'ws'

/** An origin that tells what it was asked, and misbehaves when asked to. */
export interface Origin {
  /** 'http://127.0.0.1:…' */
  url: string
  /** The moment `id` (the query's) was reached: by the origin itself or by a test. */
  moment(id: string): Moment
  /** What its /jwks.json says. */
  keySet: unknown
  /** How often /jwks.json was asked for. */
  keySetAsked: number
  close(): Promise<void>
}

interface Moment {
  reached: Promise<void>
  reach(): void
}

export interface OriginRequest {
  method: string
  target: string
  /** Flat, as received. */
  headers: string[]
  body: Uint8Array
}

export interface OriginAnswer {
  status: number
  /** Flat. */
  headers: string[]
  body: string | Uint8Array
}

/** What /echo… answers. */
export interface Echo {
  method: string
  target: string
  headers: string[]
  body: string
  bytes: number
}

/** Answers that need no connection: a function, so that it can stand in for an origin in memory too. */
export function answerAsOrigin(request: OriginRequest): OriginAnswer | undefined {
  const path = request.target.replace(/\?.*$/, '')
  const known = answers[path]
  if (known) return known
  if (path.startsWith('/cache/')) return answerInTurn(request)
  const status = /^\/status\/(\d{3})$/.exec(path)
  if (status) return { status: Number(status[1]), headers: ['Content-Type', 'text/plain'], body: 'as asked' }
  if (!/^\/(echo|auth|limit|edits|body)(\/|$)/.test(path) && path !== '/') return undefined
  const echo: Echo = {
    method: request.method,
    target: request.target,
    headers: request.headers,
    body: new TextDecoder().decode(request.body.subarray(0, 1_024)),
    bytes: request.body.length,
  }
  return { status: 200, headers: ['Content-Type', 'application/json', 'X-Origin', 'echo'], body: JSON.stringify(echo) }
}

/** What the query's `answers` says (`toAnswers`): the first time the first, then the next, the last again and again. */
function answerInTurn({ target, headers, method }: OriginRequest): OriginAnswer {
  const said = new URL(target, 'http://origin').searchParams.get('answers') ?? ''
  const turn = turns.get(target) ?? 0
  if (method === 'GET') turns.set(target, turn + 1)
  const list = JSON.parse(Buffer.from(said, 'base64url').toString()) as {
    status?: number
    fields: Fields
    body?: string
  }[]
  const { status = 200, fields, body = `answer ${turn + 1}` } = list[Math.min(turn, list.length - 1)] ?? { fields: {} }
  const asked = headers.findIndex((name, index) => index % 2 === 0 && name.toLowerCase() === 'if-none-match')
  const isKnown = asked !== -1 && headers[asked + 1] === fields['ETag']
  return isKnown ? { status: 304, headers: toFlat(fields), body: '' } : { status, headers: toFlat(fields), body }
}

type Fields = Record<string, string>
const turns = new Map<string, number>()

/** The query that has the origin answer so below /cache/. */
export const toAnswers = (...list: { status?: number; fields: Fields; body?: string }[]): string =>
  `answers=${Buffer.from(JSON.stringify(list)).toString('base64url')}`

const toFlat = (fields: Record<string, string>): string[] => Object.entries(fields).flat()

export const gzipped = gzipSync('a text that was encoded by the origin')

const answers: Record<string, OriginAnswer> = {
  '/answers/cookies': {
    status: 200,
    headers: ['Set-Cookie', 'a=1; Path=/', 'Set-Cookie', 'b=2; Expires=Thu, 01 Jan 2099 00:00:00 GMT'],
    body: 'two cookies',
  },
  '/answers/hop-by-hop': {
    status: 200,
    headers: toFlat({
      Connection: 'X-Named',
      'X-Named': 'for this hop',
      'Keep-Alive': 'timeout=5',
      'Proxy-Authenticate': 'Basic',
      TE: 'trailers',
      'X-Kept': 'for the client',
      'X-Request-Id': "the origin's own",
    }),
    body: 'hop',
  },
  '/answers/secured': {
    status: 200,
    headers: ['X-Frame-Options', 'ALLOWALL', 'X-Powered-By', 'origin'],
    body: 'own words',
  },
  '/answers/cached': {
    status: 200,
    headers: ['Cache-Control', 'public, max-age=9', 'Expires', 'Thu, 01 Jan 2099 00:00:00 GMT'],
    body: 'c',
  },
  '/answers/cached-error': { status: 404, headers: ['Cache-Control', 'max-age=1'], body: 'not here' },
  '/answers/cors': {
    status: 200,
    headers: toFlat({
      'Access-Control-Allow-Origin': "the upstream's own",
      'access-control-allow-credentials': 'false',
      'Access-Control-Allow-Methods': 'PATCH',
      'Access-Control-Expose-Headers': 'X-Secret',
      Vary: 'Origin',
    }),
    body: 'c',
  },
  '/answers/moved': { status: 302, headers: ['Location', 'http://elsewhere.example/'], body: '' },
  '/answers/unmodified': { status: 304, headers: ['ETag', '"1"'], body: '' },
  '/answers/empty': { status: 204, headers: [], body: '' },
  '/answers/bytes': { status: 200, headers: ['X-Name', Buffer.from('가 café').toString('latin1')], body: 'b' },
  '/answers/edge': { status: 200, headers: ['X-Daemun-Edge', 'time=1'], body: 'e' },
  '/answers/gzip': {
    status: 200,
    headers: ['Content-Type', 'text/plain', 'Content-Encoding', 'gzip', 'ETag', '"z"'],
    body: gzipped,
  },
}

export async function startOrigin(): Promise<Origin> {
  const moments = new Map<string, Moment>()
  const moment = (id: string): Moment => {
    const known = moments.get(id) ?? createMoment()
    moments.set(id, known)
    return known
  }
  const server = createServer((request, response) => void serve(request, response).catch(() => response.destroy()))
  const sockets = new WebSocketServer({ noServer: true, handleProtocols: (offered) => [...offered][0] ?? false })

  async function serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { pathname, searchParams } = new URL(request.url ?? '', 'http://origin')
    const onWire = wired[pathname]
    if (onWire) return void onWire({ request, response, moment, id: searchParams.get('id') ?? '' })
    if (pathname === '/jwks.json') {
      origin.keySetAsked++
      return void response.end(JSON.stringify(origin.keySet))
    }
    const chunks: Uint8Array[] = []
    for await (const chunk of request) chunks.push(chunk as Uint8Array)
    const answer = answerAsOrigin({
      method: request.method ?? '',
      target: request.url ?? '',
      headers: request.rawHeaders,
      body: Buffer.concat(chunks),
    })
    const { status, headers, body } = answer ?? { status: 404, headers: [], body: 'the origin does not know this' }
    const hasBody = status !== 204 && status !== 304
    response.writeHead(status, hasBody ? [...headers, 'Content-Length', String(Buffer.byteLength(body))] : headers)
    // As bytes: a text would be joined with the head and both encoded as UTF-8.
    response.end(hasBody && request.method !== 'HEAD' ? Buffer.from(body) : undefined)
  }

  server.on('upgrade', (request, socket, head) => {
    socket.on('error', () => {})
    const { pathname, searchParams } = new URL(request.url ?? '', 'http://origin')
    if (pathname !== '/ws')
      return void socket.end('HTTP/1.1 403 Forbidden\r\nContent-Length: 7\r\nX-Origin: no\r\n\r\nnot you')
    sockets.handleUpgrade(request, socket, head, (joined) => {
      joined.on('error', () => {})
      joined.on('message', (data, binary) => joined.send(data, { binary }))
      joined.once('close', () => moment(searchParams.get('id') ?? '').reach())
      joined.send(JSON.stringify({ headers: request.rawHeaders, target: request.url }))
    })
  })

  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const origin: Origin = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    moment,
    keySet: { keys: [] },
    keySetAsked: 0,
    async close() {
      const closed = once(server, 'close')
      for (const joined of sockets.clients) joined.terminate()
      server.close()
      server.closeAllConnections()
      await closed
    },
  }
  return origin
}

interface Wire {
  request: IncomingMessage
  response: ServerResponse
  moment(id: string): Moment
  id: string
}

/** What only a connection can do. */
const wired: Record<string, (wire: Wire) => void> = {
  /** The first chunk now, the last when the test says so. */
  '/wire/stream': ({ response, moment, id }) => {
    response.write('first\n')
    response.once('close', () => response.writableFinished || moment(`${id} left`).reach())
    void moment(id).reached.then(() => response.end('last\n'))
  },
  '/wire/events': ({ response, moment, id }) => {
    response.writeHead(200, { 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-cache' })
    response.write('data: 1\n\n')
    void moment(id).reached.then(() => response.end('data: 2\n\n'))
  },
  /** Says when the first chunk has come, answers when all have. */
  '/wire/upload': ({ request, response, moment, id }) => {
    let bytes = 0
    request.on('data', (chunk: Buffer) => {
      bytes += chunk.length
      moment(id).reach()
    })
    request.once('end', () =>
      response.end(JSON.stringify({ bytes, length: request.headers['content-length'] ?? null })),
    )
    request.once('error', () => moment(`${id} broken off`).reach())
  },
  '/wire/silent': () => {},
  '/wire/held': ({ response, moment, id }) => {
    moment(id).reach()
    response.once('close', () => moment(`${id} left`).reach())
  },
  '/wire/stall': ({ response }) => void response.write('first\n'),
  '/wire/cut': ({ response }) => {
    response.writeHead(200, { 'Content-Length': '1000' })
    response.write('ten bytes.', () => response.destroy())
  },
  '/wire/cut-chunked': ({ response }) => void response.write('ten bytes.', () => response.destroy()),
  '/wire/reset': ({ response }) => void response.destroy(),
  '/wire/garbage': ({ response }) => void response.socket?.end('this is not HTTP\r\n\r\n'),
  '/wire/large': ({ response }) => void response.end(Buffer.alloc(5_000_000, 'x')),
}

function createMoment(): Moment {
  const { promise, resolve } = Promise.withResolvers<void>()
  return { reached: promise, reach: resolve }
}
