import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createLocalLimiter } from '#edge/local-limiter.ts'
import { get } from '../support/get.ts'
import { startTestGateway } from '../support/gateway.ts'
import type { TestGateway } from '../support/gateway.ts'
import { ok, startHostileOrigin } from '../support/hostile-origin.ts'
import type { HostileOrigin } from '../support/hostile-origin.ts'

/** A limiter with a fault in it stands for every fault of ours in a request. */
let origin: HostileOrigin
let gateway: TestGateway

beforeAll(async () => {
  origin = await startHostileOrigin(ok)
  const sound = createLocalLimiter({ now: Date.now })
  const limit = { by: 'address' as const, requests: 100, per: '1 m' }
  gateway = await startTestGateway(
    {
      name: 'shop',
      upstreams: { origin: { servers: [origin.url] } },
      sites: [
        {
          hosts: ['shop.example'],
          routes: [
            { path: '/now', limit, proxy: { to: 'origin' } },
            { path: '/later', limit, proxy: { to: 'origin' } },
            { path: '/*', limit, proxy: { to: 'origin' } },
          ],
        },
      ],
    },
    {
      limiter: {
        take(rule, key) {
          if (rule.id.includes('/now#')) throw new Error('planted fault')
          if (rule.id.includes('/later#')) return Promise.reject(new Error('planted fault'))
          return sound.take(rule, key)
        },
      },
    },
  )
})
afterAll(async () => {
  await gateway.stop()
  await origin.close()
})

const ask = (path: string) => get(gateway.port, `http://shop.example${path}`)

describe('a fault of our own in a request', () => {
  it.each(['/now', '/later'])(
    'costs the request that meets it 500, and says nothing of itself to the client (%s)',
    async (path) => {
      const before = origin.requests.length
      const [bad, good] = await Promise.all([ask(path), ask('/else')])
      expect([bad.status, good.status]).toEqual([500, 200])
      expect(JSON.parse(bad.body.toString())).toMatchObject({
        code: 'internal',
        requestId: bad.headers['x-request-id'],
      })
      expect(bad.body.toString()).not.toMatch(/planted|limiter|\.ts/)
      expect(origin.requests).toHaveLength(before + 1)
      expect(gateway.output()).toContain(
        `internal error, request ${String(bad.headers['x-request-id'])}: Error: planted fault\n    at `,
      )
      await gateway.settled()
      expect(gateway.log().find(({ id }) => id === bad.headers['x-request-id'])).toMatchObject({
        status: 500,
        error: 'internal',
      })
      expect((await ask('/else')).status).toBe(200)
    },
  )
})
