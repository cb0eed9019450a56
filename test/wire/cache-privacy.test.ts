import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import * as fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startTestGateway } from '../support/gateway.ts'
import type { TestGateway } from '../support/gateway.ts'
import { get } from '../support/get.ts'

/** What one request brings, and how the origin answers it if it is asked. */
interface Step {
  who: Record<string, string>
  wants: Record<string, string>
  answer: Record<string, string>
  status: number
  /** Sent without waiting for the one before. */
  atOnce: boolean
}

/** The fields of an answer, until a 304 has brought it up to date (RFC 9111 §3.2); ticks of `clock`. */
interface Said {
  fields: Record<string, string>
  until: number
}

/** Who asks as far as the origin can tell; and the fields that each of its answers had, by their number. */
const toOwner = (fields: Record<string, unknown>): string =>
  `${String(fields['authorization'] ?? '')}|${String(fields['cookie'] ?? '')}`
const answers: { target: string; owner: string; said: Said[] }[] = []
let clock = 0
const steps = new Map<string, Step>()

/** Answers for whoever asks, and says for whom in the body. */
const origin = createServer((request, response) => {
  const step = steps.get(String(request.headers['x-step'])) as Step
  const owner = toOwner(request.headers)
  const etag = `"${Buffer.from(owner).toString('base64')}"`
  const fields = { ...step.answer, ...('ETag' in step.answer && { ETag: etag }) }
  const target = request.url ?? ''
  if (request.headers['if-none-match'] === etag && 'ETag' in fields) {
    for (const { said } of answers.filter((one) => one.target === target && one.owner === owner)) {
      const last = said.at(-1) as Said
      last.until = ++clock
      said.push({ fields: { ...last.fields, ...step.answer }, until: Infinity })
    }
    return response.writeHead(304, fields).end()
  }
  const answer = answers.push({ target, owner, said: [{ fields: step.answer, until: Infinity }] }) - 1
  const body = JSON.stringify({ owner, answer })
  return response.writeHead(step.status, { ...fields, 'Content-Length': body.length }).end(body)
})
let gateway: TestGateway
let made = 0

beforeAll(async () => {
  origin.listen(0, '127.0.0.1')
  await once(origin, 'listening')
  const { port } = origin.address() as AddressInfo
  gateway = await startTestGateway({
    name: 'shop',
    upstreams: { app: { servers: [`http://127.0.0.1:${port}`] } },
    sites: [
      {
        hosts: ['shop.example'],
        routes: [
          { path: '/plain/*', cache: 'shared', proxy: { to: 'app' } },
          {
            path: '/eager/*',
            cache: { shared: { freshMs: 60_000, staleWhileRevalidateMs: 60_000, staleIfErrorMs: 60_000 } },
            proxy: { to: 'app' },
          },
        ],
      },
    ],
  })
})

afterAll(async () => {
  origin.closeAllConnections()
  origin.close()
  await gateway.stop()
})

/** There once in `times`. */
const rarely = <T>(value: fc.Arbitrary<T>, times: number): fc.Arbitrary<T | undefined> =>
  fc.oneof({ arbitrary: fc.constant(undefined), weight: times - 1 }, { arbitrary: value, weight: 1 })
const pick = (...values: string[]): fc.Arbitrary<string> => fc.constantFrom(...values)
const toFields = (fields: Record<string, string | undefined>): Record<string, string> =>
  Object.fromEntries(Object.entries(fields).filter((entry): entry is [string, string] => entry[1] !== undefined))

const control = fc
  .uniqueArray(
    pick(
      'max-age=60',
      's-maxage=60',
      'public',
      'private',
      'private="x-user"',
      'no-store',
      'no-cache',
      'must-revalidate',
      'stale-while-revalidate=60',
      'stale-if-error=60',
      'MAX-AGE=0',
    ),
    { minLength: 1, maxLength: 4 },
  )
  .map((directives) => directives.join(', '))

const step: fc.Arbitrary<Step> = fc.record({
  who: fc
    .record({ Authorization: rarely(pick('Bearer ada', 'Bearer bob'), 2), Cookie: rarely(pick('id=ada', 'id=bob'), 2) })
    .map(toFields),
  wants: fc
    .record({
      'Cache-Control': rarely(
        pick('no-cache', 'max-age=0', 'max-stale', 'only-if-cached', 'no-store', 'min-fresh=70'),
        5,
      ),
      'If-None-Match': rarely(pick('"x"', '*'), 8),
      'Accept-Language': rarely(pick('ko', 'en'), 3),
      Range: rarely(pick('bytes=0-'), 8),
    })
    .map(toFields),
  answer: fc
    .record({
      'Cache-Control': fc.option(control, { nil: undefined }),
      'CDN-Cache-Control': rarely(control, 8),
      Vary: rarely(pick('Cookie', 'Authorization', '*', 'Accept-Language', 'accept, cookie'), 4),
      'Set-Cookie': rarely(pick('id=new'), 6),
      ETag: rarely(pick('by owner'), 2),
      Age: rarely(pick('0', '90'), 3),
      Expires: rarely(pick('0', 'Thu, 01 Jan 2099 00:00:00 GMT'), 4),
    })
    .map(toFields),
  status: fc.constantFrom(200, 200, 200, 404, 301, 500, 503),
  atOnce: fc.boolean(),
})

/** Whether an answer says of itself that somebody else may get it too. Read by other means than the cache does. */
function isForAll(fields: Record<string, string>): boolean {
  const said = (fields['CDN-Cache-Control'] ?? fields['Cache-Control'] ?? '').toLowerCase()
  if (/private|no-store/.test(said) || 'Set-Cookie' in fields) return false
  if (/\*|cookie|authorization/i.test(fields['Vary'] ?? '')) return false
  return /public|s-maxage/.test(said)
}

/** A 304 may say that what was kept for one client is for all. */
const madePublicByValidation: Step[] = [
  { who: {}, wants: {}, answer: { ETag: 'by owner' }, status: 200, atOnce: false },
  {
    who: {},
    wants: { 'Cache-Control': 'no-cache' },
    answer: { 'Cache-Control': 'public', ETag: 'by owner', Expires: '0' },
    status: 200,
    atOnce: false,
  },
  {
    who: { Authorization: 'Bearer ada' },
    wants: { 'Cache-Control': 'max-stale' },
    answer: { ETag: 'by owner' },
    status: 200,
    atOnce: false,
  },
]

describe('the cache', () => {
  it('gives nobody an answer that was made for somebody else, unless it says that it is for all', async () => {
    const seen = { shared: 0, kept: 0 }

    async function check(url: string, one: Step): Promise<void> {
      const id = `${made++}`
      steps.set(id, one)
      const startedAt = ++clock
      const { body, headers } = await get(gateway.port, url, { ...one.who, ...one.wants, 'X-Step': id })
      const text = body.toString()
      if (!text.startsWith('{"owner"')) return
      const { owner, answer } = JSON.parse(text) as { owner: string; answer: number }
      if (/hit|collapsed|fwd-status/.test(String(headers['cache-status']))) seen.kept++
      const { Authorization: authorization, Cookie: cookie } = one.who
      if (owner === toOwner({ authorization, cookie })) return
      seen.shared++
      const said = (answers[answer]?.said ?? []).filter(({ until }) => until > startedAt)
      const forAll = said.some(({ fields }) => isForAll(fields))
      expect({ madeFor: owner, givenTo: one.who, said, forAll }).toMatchObject({ forAll: true })
    }

    await fc.assert(
      fc.asyncProperty(
        pick('plain', 'eager'),
        fc.array(step, { minLength: 2, maxLength: 8 }),
        async (row, sequence) => {
          const url = `http://shop.example/${row}/${made++}`
          const asked: Promise<void>[] = []
          for (const one of sequence) {
            asked.push(check(url, one))
            if (!one.atOnce) await asked.at(-1)
          }
          await Promise.all(asked)
        },
      ),
      { numRuns: 400, examples: [['eager', madePublicByValidation]] },
    )
    // Otherwise nothing was tried.
    expect(seen.shared).toBeGreaterThan(20)
    expect(seen.kept).toBeGreaterThan(100)
  }, 60_000)
})
