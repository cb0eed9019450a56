import { expect } from 'vitest'
import { ask, nextId } from '../suite.ts'
import type { Answer, Case, ContractRequest, World } from '../suite.ts'

const host = 'shop.example'

async function askTimes(world: World, times: number, request: ContractRequest): Promise<Answer[]> {
  const answers: Answer[] = []
  for (let asked = 0; asked < times; asked++) answers.push(await ask(world, request))
  return answers
}

const statuses = (answers: Answer[]): number[] => answers.map(({ status }) => status)

let subnet = 0
const nextSubnet = (): string => `2001:db8:${(subnet++).toString(16)}:${(process.pid % 65_536).toString(16)}`

export const limits: Case[] = [
  {
    name: 'counts by address; an IPv6 /64 is one client',
    async check(world) {
      const net = nextSubnet()
      const target = '/limit/address'
      expect((await ask(world, { host, target, from: `${net}::1` })).status).toBe(200)
      expect((await ask(world, { host, target, from: `${net}:0:0:0:2` })).status).toBe(200)
      expect((await ask(world, { host, target, from: `${net}:ffff::3` })).status).toBe(429)
      expect((await ask(world, { host, target, from: `${nextSubnet()}::1` })).status).toBe(200)
    },
  },
  {
    name: 'does not believe what a client says of its address',
    async check(world) {
      const from = `${nextSubnet()}::1`
      const claims: [string, string][] = [
        ['X-Real-IP', '192.0.2.1'],
        ['Forwarded', 'for=192.0.2.1'],
        ['True-Client-IP', '192.0.2.1'],
      ]
      expect(statuses(await askTimes(world, 3, { host, target: '/limit/address', from, headers: claims }))).toEqual([
        200, 200, 429,
      ])
    },
  },
  {
    name: 'counts by the value of a field',
    async check(world) {
      const asked = (key: string): ContractRequest => ({ host, target: '/limit/field', headers: [['x-key', key]] })
      const key = nextId()
      expect(statuses(await askTimes(world, 3, asked(key)))).toEqual([200, 200, 429])
      expect((await ask(world, asked(nextId()))).status).toBe(200)
    },
  },
  {
    name: 'counts by the subject of the token, from wherever it comes',
    async check(world) {
      const headersOf = async (sub: string): Promise<[string, string][]> => [
        ['Authorization', `Bearer ${await world.tokens.sign('HS256', { sub, jti: nextId() })}`],
      ]
      const [one, other] = [nextId(), nextId()]
      const answers = []
      for (const from of ['192.0.2.1', '192.0.2.2', '192.0.2.3'])
        answers.push(await ask(world, { host, target: '/limit/subject', from, headers: await headersOf(one) }))
      expect(statuses(answers)).toEqual([200, 200, 429])
      expect((await ask(world, { host, target: '/limit/subject', headers: await headersOf(other) })).status).toBe(200)
    },
  },
  {
    name: 'lets a burst through at once',
    async check(world) {
      const request: ContractRequest = { host, target: '/limit/burst', headers: [['x-key', nextId()]] }
      expect(statuses(await askTimes(world, 6, request))).toEqual([200, 200, 200, 200, 429, 429])
    },
  },
  {
    name: 'asks all limits of a row, each with its fields in the answer',
    async check(world) {
      const request: ContractRequest = {
        host,
        target: '/limit/two',
        headers: [
          ['x-key', nextId()],
          ['x-other', nextId()],
        ],
      }
      const [first, second] = await askTimes(world, 2, request)
      expect(first?.field('ratelimit-policy')).toBe('"x-key";q=1;w=3600, "x-other";q=5;w=3600')
      expect(first?.field('ratelimit')).toMatch(/^"x-key";r=0;t=\d+, "x-other";r=4;t=\d+$/)
      expect([second?.status, second?.field('ratelimit-policy')]).toEqual([429, '"x-key";q=1;w=3600'])
    },
  },
  {
    name: 'says how many are left and when to come back',
    async check(world) {
      const request: ContractRequest = { host, target: '/limit/field', headers: [['x-key', nextId()]] }
      const [first, second, third] = await askTimes(world, 3, request)
      expect(first?.field('ratelimit-policy')).toBe('"x-key";q=2;w=3600')
      expect(first?.field('ratelimit')).toMatch(/^"x-key";r=1;t=\d+$/)
      expect(second?.field('ratelimit')).toMatch(/^"x-key";r=0;t=\d+$/)
      expect(second?.field('retry-after')).toBeUndefined()
      const seconds = Number(third?.field('retry-after'))
      expect(seconds).toBeGreaterThan(0)
      expect(seconds).toBeLessThanOrEqual(7_200)
      expect(third?.field('ratelimit')).toBe(`"x-key";r=0;t=${seconds}`)
      expect(third?.json()).toMatchObject({
        code: 'rate_limited',
        route: 'shop /limit/field',
        limit: 'X-Key 2/1 h',
        value: 2,
      })
    },
  },
  {
    name: 'counts before it looks at tokens',
    async check(world) {
      const request: ContractRequest = { host, target: '/limit/before-auth', headers: [['x-key', nextId()]] }
      expect(statuses(await askTimes(world, 2, request))).toEqual([401, 429])
    },
  },
]
