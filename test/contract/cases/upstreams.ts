import { expect } from 'vitest'
import { ask, askEcho } from '../suite.ts'
import type { Case } from '../suite.ts'

const host = 'shop.example'
const deadline = 'x-envoy-expected-rq-timeout-ms'

export const upstreams: Case[] = [
  {
    name: 'asks another server when one cannot be reached',
    async check(world) {
      for (let i = 0; i < 6; i++) expect((await ask(world, { host, target: '/half/a' })).status).toBe(200)
    },
  },
  {
    name: 'sends no POST to another server',
    async check(world) {
      const answer = await ask(world, { host, target: '/first-dead/a', method: 'POST', body: 'x' })
      expect([answer.status, answer.json()['limit'], answer.json()['value']]).toEqual([502, 'attempts', 1])
    },
  },
  {
    name: 'tells the upstream how long it has, which nobody can lengthen',
    async check(world) {
      const echo = await askEcho(world, { host, target: '/in-time/a', headers: [[deadline, '60000']] })
      expect(Number(echo.field(deadline))).toBeGreaterThan(1_000)
      expect(Number(echo.field(deadline))).toBeLessThanOrEqual(5_000)
    },
  },
  {
    name: 'ends a request at its deadline, with the bound',
    async check(world) {
      const answer = await ask(world, { host, target: '/late' })
      expect(answer.status).toBe(504)
      expect(answer.json()).toMatchObject({ code: 'upstream_timeout', limit: 'timeoutMs', value: 250 })
    },
  },
]
