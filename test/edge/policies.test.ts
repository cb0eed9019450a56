import { describe, expect, it } from 'vitest'
import { edgeField, signEdge } from '#edge/edge-signature.ts'
import type { Limiter } from '#edge/runtime.ts'
import type { Limit, Route } from '#edge/table.ts'
import { createDecisions, fieldsOf, secret, signToken, start, toTable } from '../support/decisions.ts'
import type { Decisions } from '../support/decisions.ts'

const hello = { path: '/*', respond: { status: 200 } }
const withRow = (row: Partial<Route>): Promise<Decisions> => createDecisions(toTable([{ ...hello, ...row }]))

async function statusOf(decisions: Decisions, asked = {}): Promise<number> {
  const plan = await decisions.ask(asked)
  return plan.kind === 'answer' ? plan.status : 200
}

describe('policies', () => {
  it('run in one order: edge, https, cors, address, size, token, subject', async () => {
    const limit: Limit[] = [
      { by: 'subject', requests: 5, per: '1 m' },
      { by: 'address', requests: 5, per: '1 m' },
    ]
    const decisions = await createDecisions(
      toTable([{ ...hello, limit, auth: { jwt: 'access' } }], {
        https: true,
        cors: { origins: '*' },
        trustedEdges: { secret },
      }),
      { isEdge: true },
    )
    const headers = { authorization: `Bearer ${await signToken()}` }
    expect(await decisions.verdictsOf({ headers })).toEqual([
      'trusted-edges pass',
      'https pass',
      'cors pass',
      'limit pass',
      'body-size pass',
      'auth pass',
      'limit pass',
    ])
  })

  it('stop at the first that does not pass', async () => {
    const limit: Limit = { by: 'address', requests: 1, per: '1 m' }
    const decisions = await withRow({ limit, auth: { jwt: 'access' } })
    expect(await decisions.verdictsOf()).toEqual(['limit pass', 'body-size pass', 'auth refuse'])
    expect(await decisions.verdictsOf()).toEqual(['limit refuse'])
  })
})

describe('https', () => {
  const hsts = 'strict-transport-security'

  it('redirects what comes in the clear to the same URL, without HSTS', async () => {
    const decisions = await createDecisions(toTable([hello], { https: true }))
    const plan = await decisions.ask({ url: 'http://shop.example:8080/a%20b?c=d&e' })
    expect(fieldsOf(plan)).toMatchObject({ location: 'https://shop.example/a%20b?c=d&e' })
    expect(fieldsOf(plan)).not.toHaveProperty(hsts)
    expect(plan).toMatchObject({ status: 308 })
  })

  it('tells browsers to stay, over https only', async () => {
    const site = { https: { hsts: { maxAgeSeconds: 60, includeSubDomains: true, preload: true } } }
    const decisions = await createDecisions(
      toTable([hello, { path: '/open', https: false, respond: { status: 200 } }], site),
    )
    expect(fieldsOf(await decisions.ask())).toMatchObject({ [hsts]: 'max-age=60; includeSubDomains; preload' })
    const open = await decisions.ask({ url: 'http://shop.example/open' })
    expect(open).toMatchObject({ status: 200 })
    expect(fieldsOf(open)).not.toHaveProperty(hsts)
  })

  it('may redirect without HSTS, or say HSTS without redirecting', async () => {
    const redirecting = await createDecisions(toTable([hello], { https: { hsts: false } }))
    expect(await statusOf(redirecting, { url: 'http://shop.example/' })).toBe(308)
    expect(fieldsOf(await redirecting.ask())).not.toHaveProperty(hsts)
    const saying = await createDecisions(toTable([hello], { https: { redirect: false } }))
    expect(await statusOf(saying, { url: 'http://shop.example/' })).toBe(200)
    expect(fieldsOf(await saying.ask())).toHaveProperty(hsts, 'max-age=63072000')
  })

  it('leaves .localhost twins alone', async () => {
    const decisions = await createDecisions(toTable([hello], { https: true }))
    expect(await statusOf(decisions, { url: 'http://shop.localhost:8080/' })).toBe(200)
  })
})

describe('a limit', () => {
  const limit: Limit = { by: 'address', requests: 2, per: '1 m' }

  it('says how much is left, and when to come again', async () => {
    const decisions = await withRow({ limit })
    const answers = [await decisions.ask(), await decisions.ask(), await decisions.ask()].map(fieldsOf)
    expect(answers.map((fields) => fields['ratelimit'])).toEqual([
      '"address";r=1;t=60',
      '"address";r=0;t=60',
      '"address";r=0;t=60',
    ])
    expect(answers[0]).toMatchObject({ 'ratelimit-policy': '"address";q=2;w=60' })
    expect(answers[0]).not.toHaveProperty('retry-after')
    expect(answers[2]).toMatchObject({ 'retry-after': '60' })
  })

  it('names itself in the error', async () => {
    const decisions = await withRow({ limit: { ...limit, requests: 1, burst: 0 } })
    await decisions.ask()
    const plan = await decisions.ask()
    expect(JSON.parse(plan.kind === 'answer' ? plan.body : '')).toMatchObject({
      code: 'rate_limited',
      requestId: 'request-1',
      route: 'shop /*',
      limit: 'address 1/1 m burst 0',
      value: 1,
    })
  })

  it('counts one IPv6 network, every spelling of an address, and each IPv4 address', async () => {
    const decisions = await withRow({ limit })
    const peers = [
      '2001:db8:1:2::1',
      '2001:DB8:1:2:ffff::9',
      '2001:db8:1:2::3',
      '2001:db8:1:3::1',
      '::ffff:192.0.2.1',
      '192.0.2.1',
      '192.0.2.1',
      '192.0.2.2',
    ]
    const statuses: number[] = []
    for (const peer of peers) statuses.push(await statusOf(decisions, { peer }))
    expect(statuses).toEqual([200, 200, 429, 200, 200, 200, 429, 200])
  })

  it('is not deceived by X-Forwarded-For', async () => {
    const decisions = await withRow({ limit })
    const statuses: number[] = []
    for (const forged of ['1.1.1.1', '2.2.2.2', '3.3.3.3'])
      statuses.push(await statusOf(decisions, { headers: { 'X-Forwarded-For': forged, 'X-Real-IP': forged } }))
    expect(statuses).toEqual([200, 200, 429])
  })

  it('by subject counts each subject, wherever it asks from', async () => {
    const decisions = await withRow({ auth: { jwt: 'access' }, limit: { ...limit, by: 'subject' } })
    const ask = async (sub: string, peer: string, n: number): Promise<number> =>
      statusOf(decisions, { peer, headers: { authorization: `Bearer ${await signToken({ sub, n })}` } })
    expect([
      await ask('ada', '192.0.2.1', 1),
      await ask('ada', '192.0.2.2', 2),
      await ask('ada', '192.0.2.3', 3),
    ]).toEqual([200, 200, 429])
    expect(await ask('bob', '192.0.2.1', 4)).toBe(200)
  })

  it('by subject counts by address whoever has none', async () => {
    const decisions = await withRow({ auth: { jwt: 'access', optional: true }, limit: { ...limit, by: 'subject' } })
    const headers = { authorization: `Bearer ${await signToken({ sub: undefined })}` }
    const peers = ['192.0.2.1', '192.0.2.1', '192.0.2.1', '192.0.2.2']
    for (const asked of [{}, { headers }]) {
      const fresh =
        asked === headers
          ? decisions
          : await withRow({ auth: { jwt: 'access', optional: true }, limit: { ...limit, by: 'subject' } })
      const statuses: number[] = []
      for (const peer of peers) statuses.push(await statusOf(fresh, { ...asked, peer }))
      expect(statuses).toEqual([200, 200, 429, 200])
    }
  })

  it('by a field counts its values, and by address whoever sends none', async () => {
    const decisions = await withRow({ limit: { ...limit, by: { header: 'X-Api-Key' } } })
    const ask = (key: string | undefined, peer: string): Promise<number> =>
      statusOf(decisions, { peer, headers: key === undefined ? {} : { 'x-api-key': key } })
    const asked: [string | undefined, string][] = [
      ['a', '192.0.2.1'],
      ['a', '192.0.2.2'],
      ['a', '192.0.2.3'],
      ['b', '192.0.2.1'],
      [undefined, '192.0.2.1'],
      [undefined, '192.0.2.1'],
      [undefined, '192.0.2.1'],
    ]
    const statuses: number[] = []
    for (const [key, peer] of asked) statuses.push(await ask(key, peer))
    expect(statuses).toEqual([200, 200, 429, 200, 200, 200, 429])
  })

  it('cannot take the count of an address from a value that looks like one', async () => {
    const decisions = await withRow({ limit: { ...limit, requests: 1, by: { header: 'x-api-key' } } })
    expect(await statusOf(decisions, { peer: '192.0.2.9', headers: { 'x-api-key': 'a:192.0.2.1' } })).toBe(200)
    expect(await statusOf(decisions, { peer: '192.0.2.1' })).toBe(200)
  })

  it('is one of several, which must all allow a request; those behind a refusal do not count it', async () => {
    const several: Limit[] = [
      { by: 'address', requests: 1, per: '1 s' },
      { by: { header: 'x-api-key' }, requests: 2, per: '1 h' },
    ]
    const decisions = await withRow({ limit: several })
    const ask = (peer: string): Promise<number> => statusOf(decisions, { peer, headers: { 'x-api-key': 'k' } })
    expect([await ask('192.0.2.1'), await ask('192.0.2.1'), await ask('192.0.2.1')]).toEqual([200, 429, 429])
    expect([await ask('192.0.2.2'), await ask('192.0.2.3')]).toEqual([200, 429])
  })

  it('that cannot be counted answers 503 when it says closed', async () => {
    const limiter: Limiter = { take: () => Promise.resolve({ outcome: 'down', remaining: 0, resetAt: 0 }) }
    const decisions = await createDecisions(toTable([{ ...hello, limit: { ...limit, whenDown: 'closed' } }]), {
      limiter,
    })
    const plan = await decisions.ask()
    expect(plan).toMatchObject({ status: 503, refusal: { code: 'limiter_unavailable' } })
    expect(fieldsOf(plan)).toMatchObject({ 'retry-after': '1' })
  })
})

describe('a body', () => {
  it('that says it is too large is refused, with the bound and its value', async () => {
    const decisions = await withRow({ bodyBytesMax: 10 })
    const ask = (length: string) => decisions.ask({ method: 'POST', headers: { 'content-length': length } })
    expect(await ask('10')).toMatchObject({ status: 200 })
    const plan = await ask('11')
    expect(plan).toMatchObject({ status: 413 })
    expect(JSON.parse(plan.kind === 'answer' ? plan.body : '')).toMatchObject({
      limit: 'bodyBytesMax',
      value: 10,
      route: 'shop /*',
    })
  })

  it('may be up to 1 MiB when the row says nothing', async () => {
    const decisions = await withRow({})
    expect(await statusOf(decisions, { method: 'POST', headers: { 'content-length': '1048576' } })).toBe(200)
    expect(await statusOf(decisions, { method: 'POST', headers: { 'content-length': '1048577' } })).toBe(413)
  })
})

describe('auth', () => {
  const row = { auth: { jwt: 'access' } }
  const bearer = (token: string): object => ({ headers: { authorization: `Bearer ${token}` } })

  it('challenges who brings no token, and says why a token is refused (RFC 6750)', async () => {
    const decisions = await withRow(row)
    const without = await decisions.ask()
    expect(without).toMatchObject({ status: 401 })
    expect(fieldsOf(without)['www-authenticate']).toBe('Bearer')
    const bad = await decisions.ask(bearer('a.b.c'))
    expect(bad).toMatchObject({ status: 401 })
    expect(fieldsOf(bad)['www-authenticate']).toBe(
      'Bearer error="invalid_token", error_description="the token is malformed"',
    )
    expect(fieldsOf(bad)['cache-control']).toBe('no-store')
  })

  it.each([
    ['Bearer', 200],
    ['bearer', 200],
    ['BEARER', 200],
    ['Token', 401],
    ['Basic', 401],
    ['', 401],
  ])('takes the scheme %s: %i', async (scheme, status) => {
    const decisions = await withRow(row)
    expect(await statusOf(decisions, { headers: { authorization: `${scheme} ${await signToken()}` } })).toBe(status)
  })

  it('takes a token only from where the row says', async () => {
    const token = await signToken()
    const places = {
      bearer: { headers: { authorization: `Bearer ${token}` } },
      cookie: { headers: { cookie: `other=1; access=${token}` } },
      query: { url: `https://shop.example/?a=1&token=${token}` },
    }
    const statuses = async (from: NonNullable<Route['auth']>['from']): Promise<number[]> => {
      const decisions = await withRow({ auth: { jwt: 'access', from } })
      return Promise.all(Object.values(places).map((asked) => statusOf(decisions, asked)))
    }
    expect(await statuses(undefined)).toEqual([200, 401, 401])
    expect(await statuses('bearer')).toEqual([200, 401, 401])
    expect(await statuses({ cookie: 'access' })).toEqual([401, 200, 401])
    expect(await statuses({ query: 'token' })).toEqual([401, 401, 200])
    expect(await statuses([{ cookie: 'access' }, { query: 'token' }, 'bearer'])).toEqual([200, 200, 200])
    expect(await statuses({ cookie: 'acces' })).toEqual([401, 401, 401])
    expect(await statuses({ cookie: 'ccess' })).toEqual([401, 401, 401])
  })

  it('takes the first of two tokens in one place, and the first place that has one', async () => {
    const decisions = await withRow({ auth: { jwt: 'access', from: [{ query: 'token' }, 'bearer'] } })
    const token = await signToken()
    expect(await statusOf(decisions, { url: `https://shop.example/?token=${token}&token=bad` })).toBe(200)
    expect(await statusOf(decisions, { url: `https://shop.example/?token=bad&token=${token}` })).toBe(401)
    expect(
      await statusOf(decisions, {
        url: 'https://shop.example/?token=bad',
        headers: { authorization: `Bearer ${token}` },
      }),
    ).toBe(401)
    expect(
      await statusOf(decisions, { url: 'https://shop.example/?token=', headers: { authorization: `Bearer ${token}` } }),
    ).toBe(200)
  })

  it('optional lets pass who brings none, and still refuses a bad one', async () => {
    const decisions = await withRow({ auth: { jwt: 'access', optional: true } })
    const anonymous = await decisions.ask()
    expect(anonymous).toMatchObject({ status: 200 })
    expect(anonymous.exchange.identity).toBeUndefined()
    expect((await decisions.ask(bearer(await signToken()))).exchange.identity?.subject).toBe('ada')
    expect(await statusOf(decisions, bearer('a.b.c'))).toBe(401)
    expect(await statusOf(decisions, { headers: { authorization: 'Bearer ' } })).toBe(401)
  })

  it('asks for claims: 403 without them', async () => {
    const decisions = await withRow({ auth: { jwt: 'access', claims: { role: ['admin', 'editor'], type: 'access' } } })
    const ask = async (claims: Record<string, unknown>): Promise<number> =>
      statusOf(decisions, bearer(await signToken(claims)))
    expect(await ask({ role: 'admin', type: 'access' })).toBe(200)
    expect(await ask({ role: ['viewer', 'editor'], type: 'access' })).toBe(200)
    expect(await ask({ role: 'viewer', type: 'access' })).toBe(403)
    expect(await ask({ role: 'admin' })).toBe(403)
    expect(await ask({ role: 'admin', type: 'refresh' })).toBe(403)
    expect(await ask({ role: { admin: true }, type: 'access' })).toBe(403)
  })

  it('answers 503, not 401, when the keys cannot be had', async () => {
    const table = toTable([{ ...hello, ...row }])
    const keys = { access: { jwks: 'https://id.example/keys', algorithms: ['RS256' as const] } }
    const decisions = await createDecisions({ ...table, keys }, { fetchText: () => Promise.reject(new Error('down')) })
    const [, payload, signature] = (await signToken()).split('.')
    const plan = await decisions.ask(bearer(`${btoa('{"alg":"RS256"}')}.${payload}.${signature}`))
    expect(plan).toMatchObject({ status: 503, refusal: { code: 'keys_unavailable' } })
    expect(fieldsOf(plan)).toMatchObject({ 'retry-after': '5' })
    expect(await statusOf(decisions)).toBe(401)
  })

  it('tells the upstream who it is, and nobody else can', async () => {
    const decisions = await createDecisions(
      toTable([{ path: '/*', auth: { jwt: 'access', optional: true }, proxy: { to: 'core' } }]),
    )
    const forged = { 'X-User-Id': 'root', 'x-user-claims': 'e30', 'X-USER-NAME': 'root' }
    const sent = async (headers: Record<string, string>): Promise<string[]> => {
      const plan = await decisions.ask({ headers: { ...forged, ...headers } })
      if (plan.kind !== 'proxy') throw new Error(plan.kind)
      return plan.headers.flatMap((text, index) =>
        index % 2 === 0 && /^x-user/i.test(text) ? [`${text}: ${plan.headers[index + 1]}`] : [],
      )
    }
    expect(await sent({})).toEqual([])
    expect(await sent({ authorization: `Bearer ${await signToken()}` })).toEqual([
      'x-user-id: ada',
      expect.stringMatching(/^x-user-claims: eyJ/),
    ])
    for (const alias of ['X_User_Id', 'x.user.id', 'X-User_Id'])
      expect(await decisions.ask({ headers: { [alias]: 'root' } })).toMatchObject({ status: 400 })
  })
})

describe('a trusted edge', () => {
  const behind = (): Promise<Decisions> =>
    createDecisions(
      toTable([{ ...hello, limit: { by: 'address', requests: 1, per: '1 m' } }], {
        https: true,
        trustedEdges: { secret },
      }),
    )

  /** The field that an edge would send with what it was asked. */
  async function signed(
    asked: { method?: string; url?: string; peer?: string },
    edgeSecret = secret,
    at = start,
  ): Promise<string> {
    const edge = await createDecisions(toTable([hello]))
    const { exchange } = await edge.ask(asked)
    return signEdge(edgeSecret, exchange, at)
  }

  it('is believed: client and scheme are those that it signed', async () => {
    const decisions = await behind()
    const asked = { url: 'https://shop.example/a?b=c', peer: '198.51.100.4' }
    const plan = await decisions.ask({
      url: 'http://shop.example/a?b=c',
      peer: '10.0.0.1',
      headers: { [edgeField]: await signed(asked) },
    })
    expect(plan).toMatchObject({ status: 200 })
    expect([plan.exchange.client.text, plan.exchange.scheme]).toEqual(['198.51.100.4', 'https'])
  })

  it.each([
    ['without a signature', async () => ''],
    ['signed with another secret', async () => signed({}, secret.toLowerCase())],
    ['signed too long ago', async () => signed({}, secret, start - 60_001)],
    ['signed too far ahead', async () => signed({}, secret, start + 60_001)],
    ['signed for another method', async () => signed({ method: 'POST' })],
    ['signed for another path', async () => signed({ url: 'https://shop.example/other' })],
    ['signed for another query', async () => signed({ url: 'https://shop.example/?a' })],
    ['signed for another port', async () => signed({ url: 'https://shop.example:8443/' })],
    ['whose client was changed', async () => (await signed({})).replace(/client=[^;]+/, 'client=127.0.0.1')],
    ['whose scheme was changed', async () => (await signed({})).replace('https', 'http')],
    ['whose time was changed', async () => (await signed({})).replace(/time=\d+/, `time=${start + 1}`)],
    ['signed twice', async () => `${await signed({})}, ${await signed({})}`],
  ])('is missing from a request %s', async (_name, sign) => {
    const field = await sign()
    const plan = await (await behind()).ask({ headers: field === '' ? {} : { [edgeField]: field } })
    expect(plan).toMatchObject({ status: 403, refusal: { code: 'edge_required' } })
  })

  it('may be up to a minute off', async () => {
    for (const at of [start - 60_000, start + 60_000])
      expect(await statusOf(await behind(), { headers: { [edgeField]: await signed({}, secret, at) } })).toBe(200)
  })
})
