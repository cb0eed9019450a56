import { createHmac } from 'node:crypto'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { readHomeworkHelperConfig } from '#origin/homework-helper/config.ts'
import { startHomeworkHelper } from '#origin/homework-helper/start.ts'
import { forgetOldAnswers } from '#origin/homework-helper/uploads.ts'
import { addUser } from '#origin/homework-helper/users.ts'
import type { Database } from '#origin/kit/database.ts'
import { createPasswords } from '#origin/kit/passwords.ts'
import { createTokens } from '#origin/kit/tokens.ts'
import type { Body, TestUser } from './client.ts'
import { createClient } from './client.ts'
import type { RunningEngine } from './engines.ts'
import { engines } from './engines.ts'

const secret = 'f3b1c2d4e5a60718293a4b5c6d7e8f90'
const tokens = createTokens({ secret, lifetimeSeconds: 2_592_000 })
const passwordHash = await createPasswords().hash('correct horse')
const start_ts = '2026-01-31T09:00:00Z'
const timestamp = '2026-01-31T09:10:00Z'

const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url')
const sign = (text: string, key = secret, hash = 'sha256') =>
  `${text}.${createHmac(hash, key).update(text).digest('base64url')}`

for (const { name: engineName, missing, open } of engines) {
  describe.skipIf(missing)(`HomeworkHelper on ${engineName}`, () => {
    let engine: RunningEngine
    let database: Database
    let server: Awaited<ReturnType<typeof startHomeworkHelper>>
    let client: ReturnType<typeof createClient>
    let user: TestUser
    let other: TestUser
    const logged: string[] = []

    beforeAll(async () => {
      engine = await open()
      database = engine.connect()
      const config = readHomeworkHelperConfig({ HOMEWORK_HELPER_JWT_SECRET: secret, DATABASE_URL: engine.url })
      const log = (entry: object) => logged.push(JSON.stringify(entry))
      server = await startHomeworkHelper({ config, embedded: engine.embedded, host: '127.0.0.1', port: 0, log })
      client = createClient(server.url)
      other = await client.signUp()
    })
    afterAll(async () => {
      await server.stop()
      await database.close()
      await engine.close()
    })
    beforeEach(async () => {
      user = await makeUser()
    })

    // Around the API: hashing a password for each of these tests would be most of their time.
    async function makeUser(): Promise<TestUser> {
      const username = `user-${crypto.randomUUID().slice(0, 8)}`
      const account = { username, email: `${username}@example.com`, password: 'correct horse' }
      const added = await addUser(database.sql, { ...account, passwordHash })
      const { id } = added!
      return client.signIn({ ...account, id, token: await tokens.issue(String(id)) })
    }

    const postChunked = (path: string, text: string) => {
      const headers = { 'content-type': 'application/json', authorization: `Bearer ${user.token}` }
      const init = { method: 'POST', headers, body: new Blob([text]).stream(), duplex: 'half' }
      return fetch(server.url + path, init)
    }

    const preflight = (origin: string) => {
      const asked = { 'access-control-request-method': 'POST', 'access-control-request-headers': 'authorization' }
      return client.request('OPTIONS', '/api/v1/sessions', undefined, { headers: { origin, ...asked } })
    }

    const register = (username: string, email: string) =>
      client.request('POST', '/api/v1/auth/register', { username, email, password: 'correct horse' })

    const sync = async (cursor = '0', limit = 500) =>
      (await user.get(`/api/v1/sync/${user.id}?limit=${limit}&cursor=${cursor}`)).body

    const addSession = async (owner: TestUser = user, more: object = {}) =>
      (await owner.post('/api/v1/sessions', { game_name: '스타레일', start_ts, ...more })).body

    describe('the server', () => {
      it('says what it is at /', async () => {
        const { status, body } = await client.request('GET', '/')
        expect(status).toBe(200)
        expect(body).toEqual({ message: 'HomeworkHelper API', version: '1.0.0', docs: '/docs', status: 'running' })
      })

      it('is healthy while its database answers', async () => {
        expect(await client.request('GET', '/health')).toMatchObject({
          status: 200,
          body: { status: 'ok', version: '1.0.0' },
        })
      })

      it('describes every operation in OpenAPI 3.1', async () => {
        const { body } = await client.request('GET', '/openapi.json')
        expect(body.openapi).toBe('3.1.0')
        expect(body.info.title).toBe('HomeworkHelper API')
        expect(Object.keys(body.paths)).toEqual(
          expect.arrayContaining([
            '/',
            '/health',
            '/api/v1/auth/register',
            '/api/v1/auth/login',
            '/api/v1/sync/{user_id}',
          ]),
        )
        expect(body.components.schemas.NewEvent.required).toEqual(['session_id', 'event_type', 'timestamp'])
        expect(body.paths['/api/v1/sessions'].post.security).toEqual([{ OAuth2PasswordBearer: [] }])
      })

      it('serves its documentation without a word from elsewhere', async () => {
        const docs = await client.request('GET', '/docs')
        const reference = await client.request('GET', '/redoc')
        for (const page of [docs, reference]) expect(page.body).not.toMatch(/https?:\/\//)
        for (const [, file] of docs.body.matchAll(/(?:src|href)="(.*?)"/g)) {
          expect(await client.request('GET', `/${file}`)).toMatchObject({ status: 200 })
        }
        const { body: description } = await client.request('GET', '/openapi.json')
        for (const path of Object.keys(description.paths)) expect(reference.body).toContain(`<code>${path}</code>`)
      })

      it('answers 404 and 405 in the shape of its other errors', async () => {
        expect(await client.request('GET', '/nowhere')).toMatchObject({ status: 404, body: { detail: 'Not Found' } })
        const { status, body, headers } = await client.request('DELETE', '/api/v1/sessions')
        expect([status, body, headers.get('allow')]).toEqual([405, { detail: 'Method Not Allowed' }, 'POST, GET, HEAD'])
      })

      it('gives a request id back, or makes one', async () => {
        const named = await client.request('GET', '/', undefined, { headers: { 'x-request-id': 'abc-1' } })
        expect(named.headers.get('x-request-id')).toBe('abc-1')
        const odd = await client.request('GET', '/', undefined, { headers: { 'x-request-id': 'a b "c"' } })
        expect(odd.headers.get('x-request-id')).toMatch(/^[\da-f-]{36}$/)
      })

      it('lets the listed web origins in with credentials, and no other', async () => {
        const known = await preflight('http://localhost:3000')
        expect(known.headers.get('access-control-allow-origin')).toBe('http://localhost:3000')
        expect(known.headers.get('access-control-allow-credentials')).toBe('true')
        expect(known.headers.get('access-control-allow-headers')).toBe('authorization')
        expect((await preflight('http://evil.example')).headers.get('access-control-allow-origin')).toBeNull()
      })

      it('refuses a body past its bound, declared or not', async () => {
        const raw = JSON.stringify({ value: 'x'.repeat(1_100_000) })
        expect(await client.request('POST', '/api/v1/events', undefined, { raw, token: user.token })).toMatchObject({
          status: 413,
        })
        const chunked = await postChunked('/api/v1/events', raw)
        expect(chunked.status).toBe(413)
      })

      it('takes a chunked body', async () => {
        const { username, password } = user
        const response = await postChunked('/api/v1/auth/login', JSON.stringify({ username, password }))
        expect(response.status).toBe(200)
      })
    })

    describe('accounts', () => {
      it('are made with 201 and shown without the password', async () => {
        const body = { username: '지민', email: `jimin@example.com`, password: 'correct horse' }
        const answer = await client.request('POST', '/api/v1/auth/register', body)
        expect(answer.status).toBe(201)
        expect(answer.body).toEqual({
          id: expect.any(Number),
          username: '지민',
          email: body.email,
          created_at: expect.stringMatching(/Z$/),
        })
      })

      it('are refused with 409 when the name or the address is taken, in any case', async () => {
        const name = user.username.toUpperCase()
        expect(await register(name, 'new@example.com')).toMatchObject({
          status: 409,
          body: { detail: 'Username already registered' },
        })
        expect(await register('somebody new', user.email.toUpperCase())).toMatchObject({
          status: 409,
          body: { detail: 'Email already registered' },
        })
      })

      it('are made once by twenty phones that register the same name at the same time', async () => {
        const body = { username: 'twenty', email: 'twenty@example.com', password: 'correct horse' }
        const answers = await Promise.all(
          Array.from({ length: 20 }, () => client.request('POST', '/api/v1/auth/register', body)),
        )
        expect(answers.map(({ status }) => status).sort()).toEqual([201, ...Array<number>(19).fill(409)])
      })

      it('keep the password as argon2id', async () => {
        const { id } = await client.signUp()
        const [row] = await database.sql`select password_hash from homework_helper.users where id = ${id}`
        expect(row?.password_hash).toMatch(/^\$argon2id\$v=19\$m=19456,t=2,p=1\$/)
      })

      it('log in with JSON and with a form', async () => {
        const { username, password } = user
        for (const answer of [
          await client.request('POST', '/api/v1/auth/login', { username, password }),
          await client.request('POST', '/api/v1/auth/login', undefined, {
            form: { username, password, grant_type: 'password' },
          }),
        ]) {
          expect(answer).toMatchObject({ status: 200, body: { token_type: 'bearer', expires_in: 2_592_000 } })
          const claims = JSON.parse(Buffer.from(answer.body.access_token.split('.')[1], 'base64url').toString())
          expect(claims).toEqual({ sub: String(user.id), iat: expect.any(Number), exp: claims.iat + 2_592_000 })
        }
      })

      it('do not log in with a wrong password or an unknown name, and the answers are alike', async () => {
        const wrong = await client.request('POST', '/api/v1/auth/login', { username: user.username, password: 'wrong' })
        const unknown = await client.request('POST', '/api/v1/auth/login', {
          username: 'nobody here',
          password: 'wrong',
        })
        expect(wrong).toMatchObject({ status: 401, body: { detail: 'Incorrect username or password' } })
        expect([unknown.status, unknown.body]).toEqual([wrong.status, wrong.body])
      })

      it('that are inactive cannot log in, and their tokens are refused', async () => {
        expect(await user.get('/api/v1/auth/me')).toMatchObject({ status: 200, body: { id: user.id } })
        expect(await user.delete('/api/v1/auth/me')).toMatchObject({ status: 204 })
        expect(await user.get('/api/v1/auth/me')).toMatchObject({
          status: 401,
          body: { detail: 'Could not validate credentials' },
        })
        expect(await user.post('/api/v1/sessions', { start_ts })).toMatchObject({ status: 401 })
        const { username, password } = user
        expect(await client.request('POST', '/api/v1/auth/login', { username, password })).toMatchObject({
          status: 401,
        })
        const [row] =
          await database.sql`select is_active, updated_at > created_at as touched from homework_helper.users where id = ${user.id}`
        expect(row).toEqual({ is_active: false, touched: true })
      })
    })

    describe('tokens', () => {
      const later = Math.floor(Date.now() / 1000) + 600
      const claims = () => part({ sub: String(user.id), exp: later })

      it.each<[string, () => string | undefined]>([
        ['missing', () => undefined],
        ['not a token', () => 'abc'],
        ['unsigned', () => `${part({ alg: 'none' })}.${claims()}.`],
        ['signed with another secret', () => sign(`${part({ alg: 'HS256' })}.${claims()}`, 'x'.repeat(32))],
        ['of another algorithm', () => sign(`${part({ alg: 'HS512' })}.${claims()}`, secret, 'sha512')],
        ['expired', () => sign(`${part({ alg: 'HS256' })}.${part({ sub: String(user.id), exp: later - 700 })}`)],
        ['without an end', () => sign(`${part({ alg: 'HS256' })}.${part({ sub: String(user.id) })}`)],
        ['for nobody', () => sign(`${part({ alg: 'HS256' })}.${part({ sub: '999999999', exp: later })}`)],
        [
          'for something that is no id',
          () => sign(`${part({ alg: 'HS256' })}.${part({ sub: '1 or 1=1', exp: later })}`),
        ],
      ])('that are %s are answered with 401 and the challenge', async (_what, make) => {
        const { status, headers } = await client.request('GET', '/api/v1/auth/me', undefined, { token: make() })
        expect([status, headers.get('www-authenticate')]).toEqual([401, 'Bearer'])
      })

      it('are checked before the body is', async () => {
        expect(await client.request('POST', '/api/v1/sessions', { nonsense: true })).toMatchObject({
          status: 401,
          body: { detail: 'Not authenticated' },
        })
      })
    })

    describe('validation', () => {
      it('answers a missing field as FastAPI does', async () => {
        const { status, body } = await user.post('/api/v1/sessions', { game_name: 'x' })
        expect(status).toBe(422)
        expect(body).toEqual({ detail: [{ type: 'missing', loc: ['body', 'start_ts'], msg: 'Field required' }] })
      })

      it.each<[string, object, object]>([
        [
          'a time that is none',
          { start_ts: 'yesterday' },
          { type: 'datetime_parsing', loc: ['body', 'start_ts'], input: 'yesterday' },
        ],
        ['the 30th of February', { start_ts: '2026-02-30T00:00:00Z' }, { type: 'datetime_parsing' }],
        [
          'a name of 101 characters',
          { start_ts, game_name: '가'.repeat(101) },
          { type: 'string_too_long', msg: 'String should have at most 100 characters' },
        ],
        ['a NUL in a name', { start_ts, game_name: 'a\0b' }, { type: 'string_unicode' }],
        ['a number for a name', { start_ts, game_name: 7 }, { type: 'string_type', input: 7 }],
        ['a number past int4', { start_ts, process_id: 2 ** 31 }, { type: 'less_than_equal' }],
        ['a fraction for a whole number', { start_ts, process_id: 1.5 }, { type: 'int_from_float' }],
        [
          'an end before the start',
          { start_ts, end_ts: '2026-01-31T08:59:59.9Z' },
          { type: 'end_before_start', loc: ['body', 'end_ts'] },
        ],
        ['an id that is no UUID', { start_ts, id: 'one' }, { type: 'uuid_parsing', loc: ['body', 'id'] }],
      ])('refuses %s', async (_what, content, fault) => {
        expect(await user.post('/api/v1/sessions', content)).toMatchObject({ status: 422, body: { detail: [fault] } })
      })

      it('refuses JSON that is cut off, and another type of body', async () => {
        const cut = await client.request('POST', '/api/v1/sessions', undefined, {
          raw: '{"start_ts":',
          token: user.token,
        })
        expect(cut).toMatchObject({ status: 422, body: { detail: [{ type: 'json_invalid', loc: ['body'] }] } })
        const headers = { 'content-type': 'text/plain' }
        const plain = await client.request('POST', '/api/v1/sessions', undefined, {
          raw: 'x',
          token: user.token,
          headers,
        })
        expect(plain).toMatchObject({ status: 415, body: { detail: 'Unsupported Media Type' } })
      })

      it('refuses a login without a body', async () => {
        expect(await client.request('POST', '/api/v1/auth/login')).toMatchObject({ status: 422 })
      })

      it('never repeats a password', async () => {
        const body = { username: '', email: 'no', password: 'sesame' }
        const answer = await client.request('POST', '/api/v1/auth/register', body)
        expect(answer.body.detail.map(({ type, loc }: Body) => [type, ...loc])).toEqual([
          ['string_too_short', 'body', 'username'],
          ['value_error', 'body', 'email'],
          ['string_too_short', 'body', 'password'],
        ])
        expect(JSON.stringify(answer.body)).not.toContain('sesame')
      })
    })

    describe('sessions', () => {
      it('are stored with their times in UTC, to the microsecond', async () => {
        const content = {
          process_id: 42,
          game_name: '젠레스',
          start_ts: '2026-01-31T18:00:00.123456+09:00',
          end_ts: '2026-01-31T10:30:00.5',
        }
        const { status, body } = await user.post('/api/v1/sessions', content)
        expect(status).toBe(201)
        expect(body).toEqual({
          id: expect.stringMatching(/^[\da-f-]{36}$/),
          user_id: user.id,
          process_id: 42,
          game_name: '젠레스',
          start_ts: '2026-01-31T09:00:00.123456Z',
          end_ts: '2026-01-31T10:30:00.5Z',
          duration: 5400,
          created_at: expect.stringMatching(/Z$/),
          updated_at: expect.stringMatching(/Z$/),
        })
        expect((await user.get(`/api/v1/sessions/${body.id}`)).body).toEqual(body)
      })

      it('are listed newest first, a page at a time, without repeats', async () => {
        const starts = Array.from({ length: 7 }, (_, n) => `2026-01-0${1 + (n % 4)}T00:00:00Z`)
        for (const start of starts) await addSession(user, { start_ts: start })
        const seen: { start_ts: string; id: string }[] = []
        let path = '/api/v1/sessions?limit=3'
        for (let cursor: string | null = ''; cursor !== null; path = `/api/v1/sessions?limit=3&cursor=${cursor}`) {
          const { body } = await user.get(path)
          seen.push(...body.items)
          cursor = body.next_cursor
        }
        expect(seen.map((session) => session.start_ts)).toEqual(starts.sort().reverse())
        expect(new Set(seen.map(({ id }) => id)).size).toBe(7)
        expect(await user.get('/api/v1/sessions?cursor=nonsense')).toMatchObject({ status: 422 })
        expect(await user.get('/api/v1/sessions?limit=many')).toMatchObject({
          status: 422,
          body: { detail: [{ type: 'int_parsing' }] },
        })
      })

      it('end once: again at the same time changes nothing, at another is a conflict', async () => {
        const { id } = await addSession()
        const path = `/api/v1/sessions/${id}/end`
        const ended = await user.put(path, { end_ts: '2026-01-31T10:00:00Z', duration: 1 })
        expect(ended).toMatchObject({ status: 200, body: { id, end_ts: '2026-01-31T10:00:00Z', duration: 3600 } })
        expect((await user.put(path, { end_ts: '2026-01-31T19:00:00+09:00' })).body).toEqual(ended.body)
        expect(await user.put(path, { end_ts: '2026-01-31T10:00:01Z' })).toMatchObject({ status: 409 })
        expect(await user.post(path, { end_ts: '2026-01-31T10:00:00Z' })).toMatchObject({ status: 200 })
      })

      it('do not end before they start', async () => {
        const { id } = await addSession()
        const { status, body } = await user.put(`/api/v1/sessions/${id}/end`, { end_ts: '2026-01-31T08:00:00Z' })
        expect([status, body.detail[0].type]).toEqual([422, 'end_before_start'])
      })
    })

    describe('events and predictions', () => {
      it.each([120, 'text', null, true, 1.5, [1, [2]], { stamina: { now: 3 } }])('keep the value %j', async (value) => {
        const { id: session_id } = await addSession()
        const event = { session_id, event_type: 'resource_change', resource_type: 'stamina', value, timestamp }
        const { status, body } = await user.post('/api/v1/events', event)
        expect(status).toBe(201)
        expect(body).toMatchObject(event)
        expect((await user.get(`/api/v1/sessions/${session_id}/events`)).body).toEqual([body])
      })

      it.each([
        ['deeper than 32 levels', JSON.parse('['.repeat(40) + ']'.repeat(40))],
        ['larger than 16 KiB', 'x'.repeat(17_000)],
        ['with a NUL inside', { deep: ['a\0'] }],
        ['with half a surrogate inside', { '\ud800': 1 }],
      ])('refuse a value %s', async (_what, value) => {
        const { id: session_id } = await addSession()
        const answer = await user.post('/api/v1/events', { session_id, event_type: 'x', value, timestamp })
        expect(answer).toMatchObject({
          status: 422,
          body: { detail: [{ loc: ['body', 'value'], type: 'json_invalid' }] },
        })
      })

      it('refuse a value nested deeper than a stack, and a number past all numbers', async () => {
        const { id: session_id } = await addSession()
        const put = (value: string) => {
          const raw = `{"session_id":"${session_id}","event_type":"x","timestamp":"${timestamp}","value":${value}}`
          return client.request('POST', '/api/v1/events', undefined, { raw, token: user.token })
        }
        expect(await put('['.repeat(200_000) + ']'.repeat(200_000))).toMatchObject({ status: 422 })
        expect(await put('1e999')).toMatchObject({ status: 422 })
      })

      it('are uploaded many at once, all or none', async () => {
        const { id: session_id } = await addSession()
        const events = Array.from({ length: 500 }, (_, n) => ({
          id: crypto.randomUUID(),
          session_id,
          event_type: 'x',
          value: n,
          timestamp,
        }))
        const { status, body } = await user.post('/api/v1/events/batch', { events })
        expect([status, body.created, body.duplicates]).toEqual([201, 500, 0])
        expect(body.events.map(({ value }: Body) => value)).toEqual(events.map(({ value }) => value))
        const again = await user.post('/api/v1/events/batch', { events })
        expect([again.status, again.body.created, again.body.duplicates]).toEqual([201, 0, 500])

        const fresh = { id: crypto.randomUUID(), session_id, event_type: 'x', timestamp }
        const mixed = [fresh, { ...fresh, id: crypto.randomUUID(), session_id: crypto.randomUUID() }]
        expect(await user.post('/api/v1/events/batch', { events: mixed })).toMatchObject({ status: 404 })
        const conflicting = [fresh, { ...events[0], value: 'other' }]
        expect(await user.post('/api/v1/events/batch', { events: conflicting })).toMatchObject({ status: 409 })
        expect((await user.get(`/api/v1/sessions/${session_id}/events?limit=1000`)).body).toHaveLength(500)
      })

      it('name the fault inside a batch by its place', async () => {
        const { id: session_id } = await addSession()
        const events = [
          { session_id, event_type: 'x', timestamp },
          { session_id, event_type: 'x' },
        ]
        const { body } = await user.post('/api/v1/events/batch', { events })
        expect(body.detail).toEqual([
          { type: 'missing', loc: ['body', 'events', 1, 'timestamp'], msg: 'Field required' },
        ])
      })

      it('of predictions are listed under their session', async () => {
        const { id: session_id } = await addSession()
        const prediction = { session_id, predicted_action: '레이드', predicted_value: 120, confidence: 0.75 }
        const { status, body } = await user.post('/api/v1/predictions', prediction)
        expect([status, body]).toEqual([201, expect.objectContaining(prediction)])
        expect((await user.get(`/api/v1/sessions/${session_id}/predictions`)).body).toEqual([body])
        const wrong = await user.post('/api/v1/predictions', { ...prediction, confidence: 1.01 })
        expect(wrong).toMatchObject({
          status: 422,
          body: { detail: [{ msg: 'Input should be less than or equal to 1' }] },
        })
      })
    })

    describe('retries', () => {
      it('with the same id give the same session, twenty at once', async () => {
        const content = { id: crypto.randomUUID(), game_name: 'x', start_ts }
        const answers = await Promise.all(Array.from({ length: 20 }, () => user.post('/api/v1/sessions', content)))
        expect(new Set(answers.map(({ status, body }) => JSON.stringify([status, body]))).size).toBe(1)
        expect(answers[0]).toMatchObject({ status: 201, body: { id: content.id } })
        expect((await user.get('/api/v1/sessions')).body.items).toHaveLength(1)
      })

      it('with the same key give the same bytes, twenty at once', async () => {
        const { id: session_id } = await addSession()
        const content = { session_id, event_type: 'x', value: { b: 1, a: 2 }, timestamp }
        const send = () => user.post('/api/v1/events', content, { 'idempotency-key': 'phone-1:77' })
        const answers = await Promise.all(Array.from({ length: 20 }, send))
        expect(new Set(answers.map(({ status, body }) => JSON.stringify([status, body]))).size).toBe(1)
        expect(answers.filter(({ headers }) => headers.get('idempotency-replayed') === 'true')).toHaveLength(19)
        expect((await user.get(`/api/v1/sessions/${session_id}/events`)).body).toHaveLength(1)
      })

      it('of a batch with a key store it once', async () => {
        const { id: session_id } = await addSession()
        const events = [1, 2, 3].map((value) => ({ session_id, event_type: 'x', value, timestamp }))
        const send = () => user.post('/api/v1/events/batch', { events }, { 'idempotency-key': 'batch' })
        const [first, ...rest] = await Promise.all(Array.from({ length: 5 }, send))
        for (const answer of rest) expect(answer.body).toEqual(first!.body)
        expect((await user.get(`/api/v1/sessions/${session_id}/events`)).body).toHaveLength(3)
      })

      it('with the same id or key but other content are refused', async () => {
        const content = { id: crypto.randomUUID(), game_name: 'x', start_ts }
        await user.post('/api/v1/sessions', content)
        expect(await user.post('/api/v1/sessions', { ...content, game_name: 'y' })).toMatchObject({ status: 409 })
        const key = { 'idempotency-key': 'k' }
        expect(await user.post('/api/v1/sessions', { start_ts }, key)).toMatchObject({ status: 201 })
        const reused = await user.post('/api/v1/sessions', { start_ts, game_name: 'z' }, key)
        expect(reused).toMatchObject({
          status: 422,
          body: { detail: [{ type: 'idempotency_key_reused', loc: ['header', 'idempotency-key'] }] },
        })
        expect(await user.post('/api/v1/predictions', { start_ts }, key)).toMatchObject({ status: 422 })
      })

      it('may spell the same content in another way', async () => {
        const id = crypto.randomUUID()
        const first = await user.post('/api/v1/sessions', { id, start_ts: '2026-01-31T09:00:00Z', game_name: 'x' })
        const again = await user.post('/api/v1/sessions', {
          game_name: 'x',
          start_ts: '2026-01-31T18:00:00.000+09:00',
          id: id.toUpperCase(),
        })
        expect([again.status, again.body]).toEqual([201, first.body])
      })

      it('after the session was ended still succeed', async () => {
        const content = { id: crypto.randomUUID(), start_ts }
        await user.post('/api/v1/sessions', content)
        await user.put(`/api/v1/sessions/${content.id}/end`, { end_ts: '2026-01-31T10:00:00Z' })
        expect(await user.post('/api/v1/sessions', content)).toMatchObject({ status: 201, body: { duration: 3600 } })
      })

      it('after a refusal may use the key again', async () => {
        const session_id = crypto.randomUUID()
        const send = () =>
          user.post('/api/v1/events', { session_id, event_type: 'x', timestamp }, { 'idempotency-key': 'early' })
        expect(await send()).toMatchObject({ status: 404 })
        await addSession(user, { id: session_id })
        expect(await send()).toMatchObject({ status: 201 })
      })

      it('find their answer for seven days', async () => {
        const { id: session_id } = await addSession()
        const event = { session_id, event_type: 'x', timestamp }
        await user.post('/api/v1/events', event, { 'idempotency-key': 'old' })
        await user.post('/api/v1/events', event, { 'idempotency-key': 'young' })
        await database.sql`update homework_helper.answers set created_at = now() - interval '7 days 1 second'
          where user_id = ${user.id} and key = 'old'`
        expect(await forgetOldAnswers(database.sql)).toBe(1)
        const young = await user.post('/api/v1/events', event, { 'idempotency-key': 'young' })
        expect(young.headers.get('idempotency-replayed')).toBe('true')
      })

      it('of two users with the same id or key do not meet', async () => {
        const content = { id: crypto.randomUUID(), start_ts }
        const mine = await user.post('/api/v1/sessions', content, { 'idempotency-key': 'same' })
        const theirs = await other.post(
          '/api/v1/sessions',
          { ...content, game_name: 'another' },
          { 'idempotency-key': 'same' },
        )
        expect([mine.body.user_id, theirs.body.user_id]).toEqual([user.id, other.id])
      })

      it('need a key of visible characters', async () => {
        expect(await user.post('/api/v1/sessions', { start_ts }, { 'idempotency-key': 'a b' })).toMatchObject({
          status: 422,
        })
        expect(await user.post('/api/v1/sessions', { start_ts }, { 'idempotency-key': 'x'.repeat(256) })).toMatchObject(
          { status: 422 },
        )
      })
    })

    describe("another user's rows", () => {
      it('are not there, by any route', async () => {
        const { id: session_id } = await addSession(other)
        const path = `/api/v1/sessions/${session_id}`
        expect((await other.get(path)).status).toBe(200)
        for (const answer of [
          await user.get(path),
          await user.get(`${path}/events`),
          await user.get(`${path}/predictions`),
          await user.put(`${path}/end`, { end_ts: '2026-01-31T10:00:00Z' }),
          await user.post('/api/v1/events', { session_id, event_type: 'x', timestamp }),
          await user.post('/api/v1/events/batch', { events: [{ session_id, event_type: 'x', timestamp }] }),
          await user.post('/api/v1/predictions', { session_id, predicted_action: 'x' }),
        ]) {
          expect(answer).toMatchObject({ status: 404, body: { detail: 'Session not found' } })
        }
        expect((await user.get('/api/v1/sessions')).body.items).toEqual([])
      })

      it('are refused with 403 by sync', async () => {
        expect(await user.get(`/api/v1/sync/${other.id}`)).toMatchObject({
          status: 403,
          body: { detail: 'Not enough permissions' },
        })
      })

      it('cannot be referred to in the database either', async () => {
        const { id } = await addSession(other)
        const smuggle = database.sql`insert into homework_helper.events
          (user_id, session_id, event_type, timestamp, content_hash, change) values (${user.id}, ${id}, 'x', now(), '', 1)`
        await expect(smuggle).rejects.toMatchObject({ code: '23503' })
      })
    })

    describe('sync', () => {
      it('gives everything at first, then only what is new', async () => {
        const session = await addSession()
        const event = await user.post('/api/v1/events', { session_id: session.id, event_type: 'x', timestamp })
        const prediction = await user.post('/api/v1/predictions', { session_id: session.id, predicted_action: 'x' })
        const first = await sync()
        expect(first).toEqual({
          user_id: user.id,
          sessions: [session],
          events: [event.body],
          predictions: [prediction.body],
          cursor: expect.any(String),
          has_more: false,
        })
        expect(await sync(first.cursor)).toMatchObject({
          sessions: [],
          events: [],
          predictions: [],
          cursor: first.cursor,
        })

        const ended = await user.put(`/api/v1/sessions/${session.id}/end`, { end_ts: '2026-01-31T10:00:00Z' })
        expect(await sync(first.cursor)).toMatchObject({ sessions: [ended.body], events: [], predictions: [] })
      })

      it('gives a retry nothing new', async () => {
        const content = { id: crypto.randomUUID(), start_ts }
        await user.post('/api/v1/sessions', content)
        const { cursor } = await sync()
        await user.post('/api/v1/sessions', content)
        expect((await sync()).cursor).toBe(cursor)
      })

      it('loses nothing in pages, and no event comes before its session', async () => {
        const session = await addSession()
        const events = Array.from({ length: 25 }, (_, value) => ({
          session_id: session.id,
          event_type: 'x',
          value,
          timestamp,
        }))
        await user.post('/api/v1/events/batch', { events })
        await user.put(`/api/v1/sessions/${session.id}/end`, { end_ts: '2026-01-31T10:00:00Z' })
        const known = new Set<string>()
        const values: number[] = []
        for (let page = await sync('0', 10), more = true; more; page = await sync(page.cursor, 10)) {
          for (const { id } of page.sessions) known.add(id)
          for (const { session_id, value } of page.events) {
            expect(known).toContain(session_id)
            values.push(value)
          }
          more = page.has_more
        }
        expect(values).toEqual(events.map(({ value }) => value))
      })

      it('skips nothing while eight writers write', async () => {
        const { id: session_id } = await addSession()
        let writing = true
        const writers = Array.from({ length: 8 }, async (_, writer) => {
          for (let n = 0; n < 12; n += 1) {
            const value = `${writer}-${n}`
            if (n % 4 === 3) await addSession(user, { game_name: value })
            else if (n % 4 === 2) await user.post('/api/v1/predictions', { session_id, predicted_action: value })
            else await user.post('/api/v1/events', { session_id, event_type: value, timestamp })
          }
        })
        const done = Promise.all(writers).finally(() => (writing = false))

        const seen: string[] = []
        let cursor = '0'
        for (let last = false; !last;) {
          last = !writing
          const page = await sync(cursor, 7)
          seen.push(
            ...page.events.map((row: Body) => row.event_type),
            ...page.predictions.map((row: Body) => row.predicted_action),
          )
          seen.push(...page.sessions.map((row: Body) => row.game_name).filter((name: string) => /^\d-/.test(name)))
          if (page.has_more) last = false
          cursor = page.cursor
        }
        await done
        const written = Array.from({ length: 96 }, (_, n) => `${Math.floor(n / 12)}-${n % 12}`)
        expect(seen.sort()).toEqual(written.sort())
      })

      // The embedded database has one backend: there nothing can be committed in the middle of a page.
      if (engineName !== 'the embedded database') {
        it('skips nothing that is committed while a page is being read', async () => {
          const { id: session_id } = await addSession()
          const { cursor } = await sync()
          const held = Promise.withResolvers<void>()
          const release = Promise.withResolvers<void>()
          const holder = database.sql.begin(async (tx) => {
            await tx`lock table homework_helper.events in access exclusive mode`
            held.resolve()
            await release.promise
            const [row] = await tx`
              update homework_helper.users set change = change + 1 where id = ${user.id} returning change`
            await tx`
              insert into homework_helper.events (user_id, session_id, event_type, timestamp, content_hash, change)
              values (${user.id}, ${session_id}, 'x', now(), '', ${row?.change})`
          })
          await held.promise
          const reading = sync(cursor)
          await expect.poll(() => database.sql`select from pg_locks where not granted`).toHaveLength(1)
          const between = await addSession()
          release.resolve()
          await holder

          const first = await reading
          const second = await sync(first.cursor)
          expect([...first.sessions, ...second.sessions].map(({ id }) => id)).toContain(between.id)
        })
      }

      it('refuses a cursor that is none, and one from another history', async () => {
        expect(await user.get(`/api/v1/sync/${user.id}?cursor=-1`)).toMatchObject({ status: 422 })
        expect(await user.get(`/api/v1/sync/${user.id}?cursor=999`)).toMatchObject({ status: 410 })
        expect(await user.get('/api/v1/sync/me')).toMatchObject({
          status: 422,
          body: { detail: [{ loc: ['path', 'user_id'] }] },
        })
      })
    })

    describe('the log', () => {
      it('has an entry for each request and no secret in any', async () => {
        const { username, password, token } = user
        await client.request('POST', '/api/v1/auth/login', { username, password })
        await user.get('/api/v1/sessions?cursor=planted-in-query')
        const text = logged.join('\n')
        expect(text).toContain('"path":"/api/v1/auth/login","status":200')
        for (const planted of [password, token, secret, 'planted-in-query']) expect(text).not.toContain(planted)
        expect(text).not.toContain('"event":"error"')
      })
    })

    describe('foreign keys', () => {
      it('each have an index that begins with their columns', async () => {
        const missingIndexes = await database.sql`
          select conrelid::regclass::text as table, conname from pg_constraint c
          where contype = 'f' and connamespace = 'homework_helper'::regnamespace and not exists (
            select from pg_index i where i.indrelid = c.conrelid
            and (string_to_array(i.indkey::text, ' ')::int2[])[1:cardinality(c.conkey)] = c.conkey)`
        expect([...missingIndexes]).toEqual([])
      })
    })

    // The last one: it takes the database away.
    describe('without its database', () => {
      it('is unhealthy, answers 503 and tells when to come again', async () => {
        await engine.close()
        expect(await client.request('GET', '/')).toMatchObject({ status: 200 })
        expect(await client.request('GET', '/health')).toMatchObject({ status: 503, body: { status: 'unavailable' } })
        const { status, headers } = await other.get('/api/v1/auth/me')
        expect([status, headers.get('retry-after')]).toEqual([503, '1'])
      })
    })
  })
}
