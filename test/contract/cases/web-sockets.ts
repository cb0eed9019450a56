import { expect } from 'vitest'
import { ask, askEcho, fieldOf, nextId } from '../suite.ts'
import type { Case } from '../suite.ts'

const host = 'shop.example'

export const webSockets: Case[] = [
  {
    name: 'joins client and origin after a token in the query was verified',
    async check({ target, tokens }) {
      const token = await tokens.sign('HS256')
      const socket = await target.connectWebSocket({
        host,
        target: `/ws?token=${token}`,
        headers: [['X-User-Id', 'forged']],
      })
      expect(socket.status).toBe(101)
      const greeting = JSON.parse(String(await socket.next())) as { headers: string[]; target: string }
      expect(fieldOf(greeting.headers, 'x-user-id')).toBe('mira')
      expect(greeting.target).toBe(`/ws?token=${token}`)
      socket.send('text 가')
      expect(await socket.next()).toBe('text 가')
      socket.send(new Uint8Array([0, 255, 1]))
      expect(Buffer.from((await socket.next()) as Uint8Array)).toEqual(Buffer.from([0, 255, 1]))
      socket.send('x'.repeat(200_000))
      expect((await socket.next()).length).toBe(200_000)
      socket.close(1000)
      expect(await socket.closed).toBe(1000)
    },
  },
  {
    name: 'refuses a WebSocket without a good token, before the origin hears of it',
    async check({ target, tokens }) {
      expect((await target.connectWebSocket({ host, target: '/ws' })).status).toBe(401)
      const expired = await tokens.sign('HS256', { exp: 1 })
      expect((await target.connectWebSocket({ host, target: `/ws?token=${expired}` })).status).toBe(401)
    },
  },
  {
    name: 'passes on the protocol that the origin chooses',
    async check({ target }) {
      const socket = await target.connectWebSocket({
        host,
        target: '/ws-open/ws',
        headers: [['Sec-WebSocket-Protocol', 'first, second']],
      })
      expect([socket.status, socket.protocol]).toEqual([101, 'first'])
      socket.close()
      await socket.closed
    },
  },
  {
    name: 'passes on that the origin refuses',
    async check({ target }) {
      expect((await target.connectWebSocket({ host, target: '/ws-open/other' })).status).toBe(403)
    },
  },
  {
    name: 'answers 502 when the origin of a WebSocket is down',
    async check({ target }) {
      expect((await target.connectWebSocket({ host, target: '/ws-dead' })).status).toBe(502)
    },
  },
  {
    name: 'tells the origin when the client closes',
    async check({ target, origin }) {
      const id = nextId()
      const socket = await target.connectWebSocket({ host, target: `/ws-open/ws?id=${id}` })
      await socket.next()
      socket.close(1000)
      await origin.moment(id).reached
    },
  },
  {
    name: 'lets no WebSocket through where the row does not',
    async check({ target }) {
      expect((await target.connectWebSocket({ host, target: '/ws-closed' })).status).toBe(200)
    },
  },
  {
    name: 'serves rows for WebSockets to plain requests too',
    async check(world) {
      expect((await askEcho(world, { host, target: '/ws-open/echo' })).target).toBe('/echo')
      expect((await ask(world, { host, target: '/ws' })).status).toBe(401)
    },
  },
]
