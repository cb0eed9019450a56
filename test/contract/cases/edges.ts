import { expect } from 'vitest'
import { readAddress } from '#edge/address.ts'
import type { Address } from '#edge/address.ts'
import { signEdge } from '#edge/edge-signature.ts'
import { ask, askEcho } from '../suite.ts'
import type { Answer, Case, World } from '../suite.ts'

const client = '198.51.100.7'

interface Signed {
  method?: string
  authority?: string
  path?: string
  query?: string
  scheme?: 'http' | 'https'
  client?: string
  secret?: string
  now?: number
}

/** The field as the edge would send it. */
function sign({ tokens }: World, signed: Signed = {}): Promise<string> {
  const { method = 'GET', authority = 'behind.example', path = '/echo/x', query = '?q=1', scheme = 'https' } = signed
  const address = readAddress(signed.client ?? client) as Address
  return signEdge(
    signed.secret ?? tokens.edgeSecret,
    { method, authority, path, query, scheme, client: address },
    signed.now ?? Date.now(),
  )
}

const knock = (world: World, signature: string, host = 'behind.example'): Promise<Answer> =>
  ask(world, { host, target: '/echo/x?q=1', headers: [['X-Daemun-Edge', signature]] })

async function checkRefused(answer: Answer): Promise<void> {
  expect([answer.status, answer.json()['code']]).toEqual([403, 'edge_required'])
}

const bad: { name: string; signed: Signed }[] = [
  { name: 'with another secret', signed: { secret: 'another secret, of more than 32 bytes' } },
  { name: 'over another path', signed: { path: '/echo/y' } },
  { name: 'over another query', signed: { query: '?q=2' } },
  { name: 'over another method', signed: { method: 'POST' } },
  { name: 'over another host', signed: { authority: 'beside.example' } },
]

export const edges: Case[] = [
  {
    name: 'serves what its edge has signed, and believes what it says of the client',
    async check(world) {
      const headers: [string, string][] = [
        ['x-daemun-edge', await sign(world)],
        ['X-Forwarded-For', '192.0.2.66'],
      ]
      const echo = await askEcho(world, { host: 'behind.example', target: '/echo/x?q=1', headers })
      expect([echo.field('x-forwarded-for'), echo.field('x-forwarded-proto')]).toEqual([client, 'https'])
      expect(echo.field('x-daemun-edge')).toBeUndefined()
    },
  },
  {
    name: 'refuses what is not signed',
    async check(world) {
      await checkRefused(await ask(world, { host: 'behind.example', target: '/echo/x', secure: true }))
      await checkRefused(await knock(world, ''))
      await checkRefused(await knock(world, (await sign(world)).replace(/signature=./, 'signature=g')))
    },
  },
  ...bad.map(({ name, signed }): Case => ({
    name: `refuses a signature ${name}`,
    check: async (world) => checkRefused(await knock(world, await sign(world, signed))),
  })),
  {
    name: 'refuses a signature whose client, scheme or time was changed',
    async check(world) {
      const signature = await sign(world)
      await checkRefused(await knock(world, signature.replace(client, '192.0.2.66')))
      await checkRefused(await knock(world, signature.replace('scheme=https', 'scheme=http')))
      await checkRefused(await knock(world, signature.replace(/time=\d+/, `time=${Date.now() + 1}`)))
    },
  },
  {
    name: 'refuses a signature that is 61 s old or early',
    async check(world) {
      await checkRefused(await knock(world, await sign(world, { now: Date.now() - 61_000 })))
      await checkRefused(await knock(world, await sign(world, { now: Date.now() + 61_000 })))
      expect((await knock(world, await sign(world, { now: Date.now() - 50_000 }))).status).toBe(200)
    },
  },
  {
    name: 'refuses a signature that is replayed on another host',
    async check(world) {
      const signature = await sign(world)
      expect((await knock(world, signature)).status).toBe(200)
      await checkRefused(await knock(world, signature, 'beside.example'))
    },
  },
]
