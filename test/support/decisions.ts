import { SignJWT } from 'jose'
import { compileTables } from '#edge/compile.ts'
import { decide } from '#edge/gateway.ts'
import type { Trace } from '#edge/gateway.ts'
import { createLocalLimiter } from '#edge/local-limiter.ts'
import { createNodeFacts } from '#edge/node/runtime.ts'
import type { Plan } from '#edge/plan.ts'
import type { Facts } from '#edge/runtime.ts'
import type { Route, Site, Table } from '#edge/table.ts'

export const start = Date.UTC(2026, 0, 1)
export const secret = 'g0VN7Xl2kq9Lw4TzYb8EhRs1MfUcJp6D'

export interface Asked {
  method?: string
  url?: string
  headers?: Record<string, string>
  peer?: string
}

export interface Decisions {
  facts: Facts
  world: { now: number }
  ask(asked?: Asked): Promise<Plan>
  /** What each policy said, in order: 'limit pass', 'auth refuse'. */
  verdictsOf(asked?: Asked): Promise<string[]>
}

/** A table of one site, with an upstream 'core' and a key 'access'. */
export const toTable = (routes: Route[], site: Partial<Site> = {}): Table => ({
  name: 'shop',
  upstreams: { core: { servers: ['http://127.0.0.1:8100'] } },
  keys: { access: { secret, algorithms: ['HS256'] } },
  sites: [{ hosts: ['shop.example'], ...site, routes }],
})

/** What the gateway would do with requests, at a time that a test moves. */
export async function createDecisions(table: Table, overrides: Partial<Facts> = {}): Promise<Decisions> {
  const compiled = await compileTables([{ table }], { environment: {}, development: true })
  const world = { now: start }
  const limiter = createLocalLimiter({ now: () => world.now })
  const facts: Facts = {
    ...createNodeFacts({ limiter, trustedHops: [] }),
    now: () => world.now,
    monotonic: () => world.now - start,
    randomId: () => 'request-1',
    ...overrides,
  }

  async function decideOn(asked: Asked, trace?: Trace): Promise<Plan> {
    const { method = 'GET', url = 'https://shop.example/', headers = {}, peer = '203.0.113.9' } = asked
    const [, scheme, host = '', target = ''] = /^(https?):\/\/([^/]+)(.*)$/.exec(url) ?? []
    const fields = ['Host', host, ...Object.entries(headers).flat()]
    return decide(
      compiled,
      { method, target, version: '1.1', headers: fields, peer, secure: scheme === 'https' },
      facts,
      trace,
    )
  }

  return {
    facts,
    world,
    ask: (asked = {}) => decideOn(asked),
    verdictsOf: async (asked = {}) => {
      const trace: Trace = { candidates: [], verdicts: [] }
      await decideOn(asked, trace)
      return trace.verdicts.map(({ policy, verdict }) => `${policy.name} ${verdict.outcome}`)
    },
  }
}

/** A token that the key 'access' signs. */
export const signToken = (claims: Record<string, unknown> = {}): Promise<string> =>
  new SignJWT({ sub: 'ada', ...claims })
    .setProtectedHeader({ alg: 'HS256' })
    .setExpirationTime(start / 1_000 + 3_600)
    .sign(new TextEncoder().encode(secret))

/** The fields of an answer that the gateway itself gives, names in lower case. */
export function fieldsOf(plan: Plan): Record<string, string> {
  if (plan.kind !== 'answer') throw new Error(`${plan.kind} is no answer`)
  return Object.fromEntries(
    Array.from({ length: plan.headers.length / 2 }, (_, index) => [
      (plan.headers[index * 2] ?? '').toLowerCase(),
      plan.headers[index * 2 + 1] ?? '',
    ]),
  )
}
