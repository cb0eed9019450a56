import { expect } from 'vitest'
import { ask, fieldOf, nextId } from '../suite.ts'
import type { Case, ContractRequest, World } from '../suite.ts'
import type { LogLine } from '../logbook.ts'

const host = 'shop.example'

/** What was written of a request that was answered. */
async function askLogged(world: World, request: Omit<ContractRequest, 'host'>): Promise<LogLine> {
  const { headers, body } = await world.target.fetch({ host, ...request })
  try {
    for await (const chunk of body) void chunk
  } catch {
    // The log says why.
  }
  const id = fieldOf(headers, 'x-request-id')
  return findLine(world, (line) => line['id'] === id)
}

/** Of each request there is one line. */
async function findLine({ target: { logbook } }: World, matches: (line: LogLine) => boolean): Promise<LogLine> {
  const line = await logbook?.find(matches)
  expect(logbook?.count(matches)).toBe(1)
  return line ?? {}
}

export const logs: Case[] = [
  {
    name: 'has a line of an answer that was passed on',
    async check(world) {
      const line = await askLogged(world, { target: '/wire/large', from: '203.0.113.5' })
      expect(line).toMatchObject({
        client: '203.0.113.5',
        method: 'GET',
        scheme: 'http',
        host,
        path: '/wire/large',
        status: 200,
        bytes: 5_000_000,
      })
      expect(line).toMatchObject({
        table: 'shop',
        route: 'shop /wire/*',
        upstream: 'shop/origin',
        server: world.origin.url,
      })
      expect(line['upstreamMs']).toBeGreaterThanOrEqual(0)
      expect(line['end']).toBeUndefined()
    },
  },
  {
    name: 'has a line of what the gateway answered itself',
    async check(world) {
      expect(await askLogged(world, { target: '/tea' })).toMatchObject({ status: 418, bytes: 10, route: 'shop /tea' })
      expect(await askLogged(world, { target: '/rowing' })).toMatchObject({ status: 404, error: 'not_found' })
      expect(await askLogged(world, { target: '/row//x' })).toMatchObject({ status: 400, error: 'ambiguous_path' })
    },
  },
  {
    name: 'has a line of what an upstream failed to answer',
    async check(world) {
      expect(await askLogged(world, { target: '/dead' })).toMatchObject({
        status: 502,
        error: 'upstream_unreachable',
        limit: 'attempts',
      })
      expect(await askLogged(world, { target: '/wire/silent' })).toMatchObject({
        status: 504,
        error: 'upstream_timeout',
      })
    },
  },
  {
    name: 'says of an answer that broke off why it did',
    async check(world) {
      expect(await askLogged(world, { target: '/wire/cut-chunked' })).toMatchObject({
        status: 200,
        bytes: 10,
        end: 'upstream_cut',
      })
      expect(await askLogged(world, { target: '/wire/stall' })).toMatchObject({ status: 200, bytes: 6, end: 'stalled' })
    },
  },
  {
    name: 'has a line of a client that left',
    async check(world) {
      const { target, origin } = world
      for (const path of ['/wire/held', '/wire/stream']) {
        const id = nextId()
        const leaving = new AbortController()
        const asked = target.fetch({ host, target: `${path}?id=${id}`, signal: leaving.signal }).catch(() => undefined)
        if (path === '/wire/held') await origin.moment(id).reached
        else await asked
        leaving.abort()
        expect(await findLine(world, (line) => line['query'] === `?id=${id}`)).toMatchObject({
          status: path === '/wire/held' ? 0 : 200,
          end: 'client_gone',
        })
      }
    },
  },
  {
    name: 'names the trace that a request is part of',
    async check(world) {
      const traceparent = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01'
      const line = await askLogged(world, { target: '/tea', headers: [['traceparent', traceparent]] })
      expect(line['trace']).toBe('4bf92f3577b34da6a3ce929d0e0e4736')
      expect((await askLogged(world, { target: '/tea' }))['trace']).toBeUndefined()
    },
  },
  {
    name: 'tells no secrets of a query',
    async check(world) {
      const token = await world.tokens.sign('HS256')
      const query = '?token=[redacted]&a=1'
      await ask(world, { host, target: `/auth/query?token=${token}&a=1` })
      expect(await findLine(world, (line) => line['query'] === query)).toMatchObject({ subject: 'mira', status: 200 })
    },
  },
  {
    name: 'has a line of a WebSocket',
    async check(world) {
      const id = nextId()
      const socket = await world.target.connectWebSocket({ host, target: `/ws-open/ws?id=${id}` })
      await socket.next()
      socket.close(1000)
      expect(await findLine(world, (line) => line['query'] === `?id=${id}`)).toMatchObject({
        status: 101,
        route: 'shop /ws-open/*',
      })
    },
  },
]
