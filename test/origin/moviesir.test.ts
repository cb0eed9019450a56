import { execFile, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, statSync, utimesSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import type { Database, Transaction } from '#origin/kit/database.ts'
import { openDatabase } from '#origin/kit/database.ts'
import { createPasswords } from '#origin/kit/passwords.ts'
import { createTokens } from '#origin/kit/tokens.ts'
import { readMovieSirConfig } from '#origin/moviesir/config.ts'
import { readCatalogue } from '#origin/moviesir/catalogue/films.ts'
import { seedCatalogue } from '#origin/moviesir/catalogue/seed.ts'
import { createSmtpMailer } from '#origin/moviesir/mailer.ts'
import { startMovieSir } from '#origin/moviesir/start.ts'
import { noPrivateRedis, startPrivateRedis } from '../support/redis.ts'
import type { PrivateRedis } from '../support/redis.ts'
import { startLoginProviders } from '../support/login-providers.ts'
import { startEngine } from '../support/recommendation-engine.ts'
import type { Body } from './client.ts'
import type { RunningEngine } from './engines.ts'
import { engines, makeFolder } from './engines.ts'

const secret = 'a1b2c3d4e5f60718293a4b5c6d7e8f90'
const engineSecret = 'b1b2c3d4e5f60718293a4b5c6d7e8f90'
const password = 'correct horse'
const passwordHash = await createPasswords().hash(password)
const films = await readCatalogue()
const hasDump = spawnSync('pg_dump', ['--version']).error === undefined

const stores = [
  { store: 'the database', missing: undefined, needsRedis: false },
  { store: 'Redis', missing: noPrivateRedis, needsRedis: true },
]
// The embedded database with the store inside it, and a server with Redis beside it.
const settings = engines.map((engine, index) => ({ engine, ...stores[index]! }))

for (const { engine: engineKind, store, missing, needsRedis } of settings) {
  describe.skipIf(engineKind.missing ?? missing)(`MovieSir on ${engineKind.name} with codes in ${store}`, () => {
    let running: RunningEngine
    let redis: PrivateRedis | undefined
    let database: Database
    let engine: Awaited<ReturnType<typeof startEngine>>
    let providers: Awaited<ReturnType<typeof startLoginProviders>>
    let server: Awaited<ReturnType<typeof startMovieSir>>
    const logged: Record<string, unknown>[] = []

    beforeAll(async () => {
      running = await engineKind.open()
      redis = needsRedis ? await startPrivateRedis() : undefined
      database = running.connect()
      engine = await startEngine(films)
      providers = await startLoginProviders()
      const config = readMovieSirConfig({
        MOVIESIR_JWT_SECRET: secret,
        GPU_WORKER_SECRET: engineSecret,
        DATABASE_URL: running.url,
        REDIS_URL: redis?.url,
        MOVIESIR_ENGINE: engine.url,
        ...providers.environment('https://console.moviesir.cloud'),
      })
      const log = (entry: Record<string, unknown>) => logged.push(entry)
      server = await startMovieSir({ config, embedded: running.embedded, host: '127.0.0.1', port: 0, log })
    }, 60_000)
    afterAll(async () => {
      await server.stop()
      await engine.stop()
      await providers.stop()
      await redis?.stop()
      await database.close()
      await running.close()
    })
    beforeEach(() => {
      engine.state.trouble = 'none'
      engine.asked.length = 0
      providers.state.trouble = 'none'
      providers.state.claims = {}
      Object.assign(providers.person, someone())
    })

    /** Whatever was sent or answered in this run that is nobody else's business. */
    const secrets = new Set<string>()
    const keepSecrets = (values: Record<string, unknown> | undefined, names: RegExp) => {
      for (const [name, value] of Object.entries(values ?? {}))
        if (names.test(name) && typeof value === 'string' && value.length >= 6) secrets.add(value)
    }

    async function ask(method: string, path: string, body?: unknown, headers: Record<string, string> = {}) {
      const answer = await fetch(server.url + path, {
        method,
        headers: { ...(body !== undefined && { 'content-type': 'application/json' }), ...headers },
        body: body === undefined ? undefined : JSON.stringify(body),
      })
      const text = await answer.text()
      const isJson = answer.headers.get('content-type')?.includes('json')
      const cookies = Object.fromEntries(answer.headers.getSetCookie().map((line) => splitCookie(line)))
      const parsed = isJson ? JSON.parse(text) : text
      keepSecrets(body as Record<string, unknown>, /password$|^code$|^state$/)
      if (isJson) keepSecrets(parsed, /^access_token$|^api_key$/)
      keepSecrets(cookies, /token$|ticket$/)
      return { status: answer.status, headers: answer.headers, body: parsed, cookies }
    }

    const withCookies = (cookies: Record<string, string>) => ({
      cookie: Object.entries(cookies)
        .map(([name, value]) => `${name}=${value}`)
        .join('; '),
    })

    async function signUp(nickname = `v${crypto.randomUUID().slice(0, 8)}`) {
      const email = `${nickname}@example.com`
      const asked = await ask('POST', '/auth/signup/request', { email, password, nickname })
      expect(asked).toMatchObject({ status: 200, body: { email, expires_in: 600 } })
      const code = mailedCode(email)
      const ticket = withCookies(asked.cookies)
      expect(await ask('POST', '/auth/signup/verify', { email, code })).toMatchObject({
        status: 200,
        body: { valid: true, message: '인증되었습니다' },
      })
      const confirmed = await ask('POST', '/auth/signup/confirm', { email }, ticket)
      expect(confirmed.status).toBe(200)
      return { email, nickname, cookies: confirmed.cookies, user: confirmed.body }
    }

    function mailedCode(email: string): string {
      const mail = logged.findLast((entry) => entry['event'] === 'mail' && entry['to'] === email)
      return /\d{6}/.exec(String(mail?.['text']))?.[0] ?? ''
    }

    // Around the API: hashing a password for each of these tests would be most of their time.
    async function makeViewer() {
      const nickname = `v${crypto.randomUUID().slice(0, 8)}`
      const [user] = await database.sql<{ user_id: string }[]>`
        insert into b2c.users (email, email_key, nickname, nickname_key, password_hash)
        values (${`${nickname}@example.com`}, ${`${nickname}@example.com`}, ${nickname}, ${nickname}, ${passwordHash})
        returning user_id`
      const token = await createTokens({ secret, lifetimeSeconds: 1_800 }).issue(user!.user_id)
      const headers = { cookie: `access_token=${token}` }
      return {
        ...user!,
        email: `${nickname}@example.com`,
        nickname,
        get: (path: string) => ask('GET', path, undefined, headers),
        post: (path: string, body?: unknown) => ask('POST', path, body ?? {}, headers),
        put: (path: string, body: unknown) => ask('PUT', path, body, headers),
        delete: (path: string, body?: unknown) => ask('DELETE', path, body, headers),
      }
    }

    function resetCode(email: string): string {
      const mail = logged.findLast((entry) => entry['event'] === 'mail' && entry['to'] === email)
      return /: ([\w-]{32})/.exec(String(mail?.['text']))?.[1] ?? ''
    }

    const someone = () => ({
      subject: String(Math.floor(Math.random() * 1e12)),
      email: `p${crypto.randomUUID().slice(0, 8)}@example.com`,
      verified: true,
      name: '작은 회사',
    })

    async function makeCompany(plan = 'BASIC') {
      const name = `c${crypto.randomUUID().slice(0, 8)}`
      const [company] = await database.sql<{ company_id: number; since: string }[]>`
        insert into b2b.companies (name, email, email_key, password_hash, plan)
        values (${name}, ${`${name}@example.com`}, ${`${name}@example.com`}, ${passwordHash}, ${plan})
        returning company_id, tokens_valid_from as since`
      const tokens = createTokens({ secret, lifetimeSeconds: 3_600, type: 'b2b_access' })
      const headers = {
        authorization: `Bearer ${await tokens.issue(String(company!.company_id), { since: company!.since })}`,
      }
      return {
        id: company!.company_id,
        email: `${name}@example.com`,
        ...headers,
        get: (path: string) => ask('GET', path, undefined, headers),
        post: (path: string, body?: unknown) => ask('POST', path, body ?? {}, headers),
        patch: (path: string, body?: unknown) => ask('PATCH', path, body, headers),
        delete: (path: string) => ask('DELETE', path, undefined, headers),
      }
    }

    /**
     * A hundred of the same at once. On a server the rows they want are held until every connection waits for them: then
     * nobody can say that they came one after another. The embedded database has one session, in which they take turns.
     */
    async function atOnce<T>(hold: (tx: Transaction) => Promise<unknown>, work: () => Promise<T>): Promise<T[]> {
      const hundred = () => Array.from({ length: 100 }, work)
      if (running.embedded) return Promise.all(hundred())
      const { started } = await database.sql.begin(async (tx) => {
        await hold(tx)
        const all = hundred()
        // Not in the transaction: there it would be the same activity again and again.
        const waiting = async () => {
          const { sql } = database
          return (
            await sql`select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`
          ).length
        }
        await expect.poll(waiting, { timeout: 10_000 }).toBe(10)
        return { started: all }
      })
      return Promise.all(started)
    }

    const call = (key: string, body: object = {}, path = '/v1/recommend') =>
      ask('POST', path, body, { 'x-api-key': key })

    describe('the server', () => {
      it('is there at / and healthy while its database answers', async () => {
        expect(await ask('GET', '/')).toMatchObject({ status: 200, body: { message: 'ok' } })
        expect(await ask('GET', '/health')).toMatchObject({ status: 200, body: { status: 'ok' } })
      })

      it('documents every operation at the paths its clients know, from this machine alone', async () => {
        const { body } = await ask('GET', '/openapi.json')
        expect(Object.keys(body.paths)).toEqual(
          expect.arrayContaining(['/auth/login', '/api/v2/recommend', '/b2b/api-keys', '/v1/recommend']),
        )
        for (const path of ['/swagger', '/redoc']) {
          const page = await ask('GET', path)
          expect(page.status).toBe(200)
          expect(page.body).not.toMatch(/https?:\/\//)
          for (const [, file] of page.body.matchAll(/(?:src|href)="(swagger.*?)"/g))
            expect((await ask('GET', `/${file}`)).status).toBe(200)
        }
      })

      it.each([
        ['GET', '/movies/1'],
        ['GET', '/users/me'],
        ['POST', '/users'],
        ['GET', '/recommendation/1'],
        ['POST', '/registration/'],
        ['POST', '/auth/signup/send-code'],
        ['POST', '/auth/forgot-password'],
        ['POST', '/passwordResets'],
      ])('answers what old clients ask and nobody serves with 404: %s %s', async (method, path) => {
        const { status, headers, body } = await ask(method, path, method === 'POST' ? {} : undefined)
        expect([status, body]).toEqual([404, { detail: 'Not Found' }])
        expect(headers.get('content-type')).toContain('application/json')
      })

      it('lets every web origin call, without credentials', async () => {
        const asked = { 'access-control-request-method': 'POST', 'access-control-request-headers': 'authorization' }
        const { headers } = await ask('OPTIONS', '/b2b/auth/login', undefined, {
          origin: 'https://console.moviesir.cloud',
          ...asked,
        })
        expect(headers.get('access-control-allow-origin')).toBe('*')
        expect(headers.get('access-control-allow-credentials')).toBeNull()
      })
    })

    describe('the catalogue', () => {
      it('is loaded at the first start and comes to the same when loaded again', async () => {
        const count = async () => (await database.sql`select count(*)::int as count from public.movies`)[0]!['count']
        const before = await count()
        expect(before).toBe(films.length)
        const steps: number[] = []
        await seedCatalogue(database.sql, (done, total) => steps.push(done / total))
        expect(await count()).toBe(before)
        expect(steps.at(-1)).toBe(1)
      })

      it('gives a film, where it can be watched, and its tags', async () => {
        const film = films[0]!
        const { status, body } = await ask('GET', `/api/movies/${film.movie_id}`)
        expect(status).toBe(200)
        expect(body.info).toMatchObject({ movie_id: film.movie_id, title: film.title, runtime: film.runtime })
        expect(body.info.release_date).toMatch(/^\d{4}-\d\d-\d\d$/)
        expect(body.tag_genome).toEqual(film.tags)
        expect(Array.isArray(body.otts)).toBe(true)
      })

      it('has no film 999999', async () => {
        const { status, body } = await ask('GET', '/api/movies/999999')
        expect([status, body]).toEqual([404, { detail: 'Movie not found' }])
      })
    })

    describe('signing up', () => {
      it('takes an address, a mailed code and a confirmation, and logs in', async () => {
        const { user, cookies, email } = await signUp()
        expect(user).toMatchObject({
          email,
          onboarding_completed: false,
          user_id: expect.stringMatching(/^[\da-f-]{36}$/),
        })
        const me = await ask('GET', '/auth/me', undefined, withCookies(cookies))
        expect(me.body).toEqual(user)
        expect((await ask('POST', '/auth/refresh', undefined, withCookies(cookies))).status).toBe(200)
      })

      it('refuses an address or a nickname that is taken, whatever its case', async () => {
        const viewer = await makeViewer()
        const taken = await ask('POST', '/auth/signup/request', {
          email: viewer.email.toUpperCase(),
          password,
          nickname: 'somebody',
        })
        expect([taken.status, taken.body]).toEqual([400, { detail: '이미 가입된 이메일입니다.' }])
        const nickname = await ask('POST', '/auth/signup/request', {
          email: 'new@example.com',
          password,
          nickname: viewer.nickname.toUpperCase(),
        })
        expect([nickname.status, nickname.body]).toEqual([400, { detail: '이미 사용 중인 닉네임입니다.' }])
      })

      it('takes five guesses of a code, then none, not even the right one', async () => {
        const nickname = `v${crypto.randomUUID().slice(0, 8)}`
        const email = `${nickname}@example.com`
        await ask('POST', '/auth/signup/request', { email, password, nickname })
        const wrong = mailedCode(email) === '000000' ? '000001' : '000000'
        for (let guess = 0; guess < 5; guess += 1)
          expect(await ask('POST', '/auth/signup/verify', { email, code: wrong })).toMatchObject({
            status: 400,
            body: { detail: '인증 코드가 올바르지 않습니다.' },
          })
        expect((await ask('POST', '/auth/signup/verify', { email, code: mailedCode(email) })).status).toBe(429)
        expect((await ask('POST', '/auth/signup/verify', { email, code: mailedCode(email) })).status).toBe(400)
      })

      it('makes one account of a hundred confirmations at once', async () => {
        const nickname = `v${crypto.randomUUID().slice(0, 8)}`
        const email = `${nickname}@example.com`
        const asked = await ask('POST', '/auth/signup/request', { email, password, nickname })
        const code = mailedCode(email)
        await ask('POST', '/auth/signup/verify', { email, code })
        const confirmed = await Promise.all(
          Array.from({ length: 100 }, () => ask('POST', '/auth/signup/confirm', { email }, withCookies(asked.cookies))),
        )
        expect(confirmed.filter(({ status }) => status === 200)).toHaveLength(1)
        expect(confirmed.filter(({ status }) => status === 400)).toHaveLength(99)
      })

      it('lets nobody finish who was only told that the address is verified', async () => {
        const nickname = `v${crypto.randomUUID().slice(0, 8)}`
        const email = `${nickname}@example.com`
        await ask('POST', '/auth/signup/request', { email, password, nickname })
        const code = mailedCode(email)
        expect((await ask('POST', '/auth/signup/confirm', { email, code })).status).toBe(400)
        await ask('POST', '/auth/signup/verify', { email, code })
        expect((await ask('POST', '/auth/signup/confirm', { email })).status).toBe(400)
        expect((await ask('POST', '/auth/signup/confirm', { email, code })).status).toBe(200)
      })
    })

    describe('logging in', () => {
      it('sets HttpOnly cookies, and a readable one that says whether to remember', async () => {
        const viewer = await makeViewer()
        const login = await ask('POST', '/auth/login', { email: viewer.email, password })
        expect(login.body).toEqual({
          user: {
            user_id: viewer.user_id,
            email: viewer.email,
            nickname: viewer.nickname,
            onboarding_completed: false,
          },
        })
        const lines = login.headers.getSetCookie()
        for (const name of ['access_token', 'refresh_token'])
          expect(lines.find((line) => line.startsWith(`${name}=`))).toMatch(/HttpOnly.*SameSite=Lax/)
        expect(lines.find((line) => line.startsWith('remember_me='))).not.toContain('HttpOnly')

        const brief = await ask('POST', '/auth/login', { email: viewer.email, password, remember_me: false })
        expect(brief.cookies['access_token']).toBeTruthy()
        expect(brief.cookies['refresh_token']).toBeFalsy()
      })

      it('refuses a wrong password and an unknown address in the same words', async () => {
        const viewer = await makeViewer()
        const wrong = await ask('POST', '/auth/login', { email: viewer.email, password: 'wrong horse' })
        const unknown = await ask('POST', '/auth/login', { email: 'nobody@example.com', password })
        for (const answer of [wrong, unknown])
          expect([answer.status, answer.body]).toEqual([401, { detail: '이메일 또는 비밀번호가 일치하지 않습니다' }])
      })

      it('exchanges a refresh token once, of a hundred requests at once', async () => {
        const { email } = await makeViewer()
        const { cookies } = await ask('POST', '/auth/login', { email, password })
        const answers = await atOnce(
          (tx) => tx`select from b2c.refresh_tokens for update`,
          () => ask('POST', '/auth/refresh', undefined, withCookies(cookies)),
        )
        const winners = answers.filter(({ status }) => status === 200)
        expect(winners).toHaveLength(1)
        expect(answers.filter(({ status }) => status === 401)).toHaveLength(99)
        // Requests that crossed are no theft: the winner goes on.
        const next = await ask('POST', '/auth/refresh', undefined, withCookies(winners[0]!.cookies))
        expect(next.status).toBe(200)
      })

      it('ends every token of a login when a used one comes back later', async () => {
        const { email } = await makeViewer()
        const { cookies } = await ask('POST', '/auth/login', { email, password })
        const renewed = await ask('POST', '/auth/refresh', undefined, withCookies(cookies))
        await database.sql`update b2c.refresh_tokens set used_at = used_at - interval '1 minute'`
        expect((await ask('POST', '/auth/refresh', undefined, withCookies(cookies))).status).toBe(401)
        expect((await ask('POST', '/auth/refresh', undefined, withCookies(renewed.cookies))).status).toBe(401)
      })

      it('logs out without a login too, and for good with one', async () => {
        expect((await ask('POST', '/auth/logout')).status).toBe(200)
        const { email } = await makeViewer()
        const { cookies } = await ask('POST', '/auth/login', { email, password })
        const out = await ask('POST', '/auth/logout', undefined, withCookies(cookies))
        expect(out.cookies['refresh_token']).toBe('')
        expect((await ask('POST', '/auth/refresh', undefined, withCookies(cookies))).status).toBe(401)
      })

      it('knows nobody without a cookie, and nobody by a company’s token', async () => {
        const bare = await ask('GET', '/auth/me')
        expect([bare.status, bare.body]).toEqual([401, { detail: '인증이 필요합니다' }])
        const token = await createTokens({ secret, lifetimeSeconds: 60, type: 'b2b_access' }).issue(crypto.randomUUID())
        const other = await ask('GET', '/auth/me', undefined, { cookie: `access_token=${token}` })
        expect([other.status, other.body]).toEqual([401, { detail: '유효하지 않은 토큰입니다' }])
      })
    })

    describe('onboarding', () => {
      it('shows a film of each of ten moods to anybody', async () => {
        const { body } = await ask('GET', '/onboarding/survey/movies')
        expect(new Set(body.movies.map(({ mood_tag }: Body) => mood_tag)).size).toBe(10)
        expect(body.movies).toHaveLength(10)
      })

      it('keeps services and films, and is done after the films', async () => {
        const viewer = await makeViewer()
        expect((await viewer.post('/onboarding/ott', { provider_ids: [8, 97] })).status).toBe(200)
        expect((await viewer.get('/mypage/watched')).status).toBe(404)
        const movie_ids = films.slice(0, 3).map(({ movie_id }) => movie_id)
        expect((await viewer.post('/onboarding/survey', { movie_ids })).status).toBe(200)
        expect((await viewer.get('/auth/me')).body.onboarding_completed).toBe(true)
        const { body } = await viewer.get('/mypage/watched')
        expect(new Set(body.movies.map(({ movie_id }: Body) => movie_id))).toEqual(new Set(movie_ids))
        expect((await viewer.get('/mypage/ott')).body.provider_ids.toSorted()).toEqual([8, 97])
      })

      it('refuses films and services that do not exist, and no films at all', async () => {
        const viewer = await makeViewer()
        for (const [path, body] of [
          ['/onboarding/survey', { movie_ids: [999_999] }],
          ['/onboarding/survey', { movie_ids: [] }],
          ['/onboarding/ott', { provider_ids: [1] }],
        ] as const)
          expect((await viewer.post(path, body)).status).toBe(422)
      })

      it('can be skipped', async () => {
        const viewer = await makeViewer()
        expect((await viewer.post('/onboarding/skip')).body).toEqual({
          user_id: viewer.user_id,
          onboarding_completed: true,
        })
      })
    })

    describe('recommending', () => {
      it('asks the engine with what it knows of the viewer, and keeps the session', async () => {
        const viewer = await makeViewer()
        const movie_ids = films.slice(0, 2).map(({ movie_id }) => movie_id)
        await viewer.post('/onboarding/survey', { movie_ids })
        await viewer.post('/onboarding/ott', { provider_ids: [8] })
        const { status, headers, body } = await viewer.post('/api/v2/recommend', {
          runtime_limit: 240,
          genres: ['Drama'],
        })
        expect(status).toBe(200)
        expect(headers.get('x-recommendation-tier')).toBe('popularity')
        expect(body.track_a).toMatchObject({ label: '선호 장르 맞춤 추천', total_runtime: expect.any(Number) })
        expect(body.track_b.label).toBe('장르 확장 추천')
        const [{ body: asked, authorization } = {}] = engine.asked
        expect(asked).toMatchObject({
          available_time: 240,
          preferred_genres: ['Drama'],
          preferred_otts: [8],
          allow_adult: false,
        })
        expect(new Set(asked?.['user_movie_ids'] as number[])).toEqual(new Set(movie_ids))
        expect(authorization).toMatch(/^Bearer [\w.-]+$/)
        const { body: history } = await viewer.get('/mypage/history')
        expect(history.sessions).toHaveLength(1)
        expect(history.sessions[0]).toMatchObject({
          session_id: body.session_id,
          runtime_limit: 240,
          is_positive: null,
        })
      })

      it('picks another film in place of one, also in the session', async () => {
        const viewer = await makeViewer()
        const { body: first } = await viewer.post('/api/v2/recommend', { runtime_limit: 240 })
        const film = first.track_a.movies[0]
        const shown = [...first.track_a.movies, ...first.track_b.movies].map(({ movie_id }: Body) => movie_id)
        const { body } = await viewer.post('/api/v2/recommend/single', {
          source_movie_id: film.movie_id,
          target_runtime: film.runtime,
          excluded_ids: shown,
          track: 'a',
          session_id: first.session_id,
        })
        expect(body).toMatchObject({ success: true, message: '재추천 성공' })
        expect(shown).not.toContain(body.movie.movie_id)
        const [session] = (await viewer.get('/mypage/history')).body.sessions
        const ids = session.movies.map(({ movie_id }: Body) => movie_id)
        expect(ids).toContain(body.movie.movie_id)
        expect(ids).not.toContain(film.movie_id)
      })

      it('says so when no film fits', async () => {
        const viewer = await makeViewer()
        const { body } = await viewer.post('/api/v2/recommend/single', { target_runtime: 1, track: 'b' })
        expect(body).toEqual({ movie: null, success: false, message: '조건에 맞는 영화를 찾지 못했습니다' })
      })

      it('answers 503 with a code when the engine fails, never empty tracks', async () => {
        const viewer = await makeViewer()
        for (const trouble of ['refuses', 'nonsense'] as const) {
          engine.state.trouble = trouble
          const { status, body, headers } = await viewer.post('/api/v2/recommend', {})
          expect([status, body.detail.code]).toEqual([503, 'AI_SERVICE_ERROR'])
          expect(headers.get('retry-after')).toBe('5')
        }
      })

      it('finds films like one, in the order in which they are alike', async () => {
        const viewer = await makeViewer()
        const film = films[0]!
        const { status, body } = await viewer.get(`/api/movies/${film.movie_id}/similar`)
        expect(status).toBe(200)
        expect(engine.asked.at(-1)).toMatchObject({
          path: '/v1/similar',
          body: { film_id: film.movie_id, limit: 6, filter: { allow_adult: false } },
        })
        expect(body.movies).toHaveLength(6)
        const others = films.filter(({ movie_id }) => movie_id !== film.movie_id).slice(0, 6)
        expect(body.movies.map(({ title }: { title: string }) => title)).toEqual(
          others.toReversed().map(({ title }) => title),
        )
        expect((await viewer.get('/api/movies/999999/similar')).status).toBe(404)
        expect((await ask('GET', `/api/movies/${film.movie_id}/similar`)).status).toBe(401)
        engine.state.trouble = 'refuses'
        expect((await viewer.get(`/api/movies/${film.movie_id}/similar`)).status).toBe(503)
        engine.state.trouble = 'none'
      })

      it('plays a film at a service and remembers it as watched', async () => {
        const viewer = await makeViewer()
        await viewer.post('/onboarding/skip')
        const [link] = await database.sql<{ movie_id: number; provider_id: number; link_url: string }[]>`
          select * from public.movie_ott_map limit 1`
        const { body } = await viewer.post(`/api/movies/${link!.movie_id}/play`, { provider_id: link!.provider_id })
        expect(body).toEqual({ redirect_url: link!.link_url })
        expect((await viewer.get('/mypage/watched')).body.movies).toMatchObject([{ movie_id: link!.movie_id }])
        const none = await viewer.post(`/api/movies/${link!.movie_id}/play`, { provider_id: 1 })
        expect([none.status, none.body]).toEqual([404, { detail: 'Link not found' }])
      })

      it('takes an opinion on one’s own session only', async () => {
        const [viewer, other] = [await makeViewer(), await makeViewer()]
        const { session_id } = (await viewer.post('/api/v2/recommend', {})).body
        const opinion = { session_id, is_positive: true }
        expect((await other.post('/mypage/satisfaction', opinion)).status).toBe(404)
        expect((await viewer.post('/mypage/satisfaction', { ...opinion, session_id: 'x' })).status).toBe(400)
        expect((await viewer.post('/mypage/satisfaction', opinion)).status).toBe(200)
        expect((await viewer.get('/mypage/history')).body.sessions[0].is_positive).toBe(true)
      })
    })

    describe('the account', () => {
      it('takes another nickname, unless somebody has it', async () => {
        const [viewer, other] = [await makeViewer(), await makeViewer()]
        const taken = await viewer.put('/mypage/nickname', { nickname: other.nickname })
        expect([taken.status, taken.body]).toEqual([409, { detail: '이미 사용 중인 닉네임입니다' }])
        const nickname = `n${crypto.randomUUID().slice(0, 8)}`
        expect((await viewer.put('/mypage/nickname', { nickname })).body.nickname).toBe(nickname)
      })

      it('is deleted with every row, for the right password only', async () => {
        const viewer = await makeViewer()
        await viewer.post('/onboarding/survey', { movie_ids: [films[0]!.movie_id] })
        expect((await viewer.delete('/mypage/account', { password: 'wrong horse' })).status).toBe(401)
        expect((await viewer.delete('/mypage/account', { password })).status).toBe(200)
        expect((await viewer.get('/auth/me')).status).toBe(401)
        const rows = await database.sql`select from b2c.user_onboarding_answers where user_id = ${viewer.user_id}`
        expect(rows).toHaveLength(0)
      })

      it('is told to be gone at a login with its password, for 30 days, and can be made anew at once', async () => {
        const { email, nickname, ...viewer } = await makeViewer()
        await viewer.delete('/mypage/account', { password })
        const login = (given: string) => ask('POST', '/auth/login', { email, password: given })
        const gone = await login(password)
        expect([gone.status, gone.body]).toEqual([403, { detail: '탈퇴한 회원입니다' }])
        expect((await login('wrong horse')).status).toBe(401)
        const [kept] = await database.sql<
          { row: string }[]
        >`select string_agg(w::text, '') as row from b2c.withdrawals w`
        expect(kept!.row).not.toContain(nickname)
        await database.sql`update b2c.withdrawals set expires_at = now()`
        expect((await login(password)).status).toBe(401)
        await database.sql`update b2c.withdrawals set expires_at = now() + interval '1 day'`
        await signUp(nickname)
        expect((await login(password)).status).toBe(200)
      })
    })

    describe('companies', () => {
      it('register, log in and are told who they are', async () => {
        const email = `${crypto.randomUUID()}@example.com`
        const registered = await ask('POST', '/b2b/auth/register', { name: '작은 회사', email, password })
        expect(registered).toMatchObject({
          status: 201,
          body: { token_type: 'bearer', company: { name: '작은 회사', email, plan: 'BASIC', is_admin: false } },
        })
        const again = await ask('POST', '/b2b/auth/register', { name: 'x', email: email.toUpperCase(), password })
        expect(again.status).toBe(400)
        const login = await ask('POST', '/b2b/auth/login', { email, password })
        const authorization = `Bearer ${login.body.access_token}`
        expect((await ask('GET', '/b2b/me', undefined, { authorization })).body).toEqual(login.body.company)

        const changed = await ask(
          'POST',
          '/b2b/auth/change-password',
          { current_password: password, new_password: 'another horse' },
          { authorization },
        )
        expect(changed.status).toBe(200)
        expect((await ask('GET', '/b2b/me', undefined, { authorization })).status).toBe(401)
        expect((await ask('POST', '/b2b/auth/login', { email, password: 'another horse' })).status).toBe(200)
      })

      it('are not known without a token, nor by a viewer’s', async () => {
        const bare = await ask('GET', '/b2b/me')
        expect([bare.status, bare.body]).toEqual([401, { detail: '인증이 필요합니다' }])
        const { id } = await makeCompany()
        const authorization = `Bearer ${await createTokens({ secret, lifetimeSeconds: 60 }).issue(String(id))}`
        const other = await ask('GET', '/b2b/me', undefined, { authorization })
        expect([other.status, other.body]).toEqual([401, { detail: '유효하지 않은 토큰입니다' }])
      })

      it('see a key once; what is kept is its hash', async () => {
        const company = await makeCompany()
        const created = await company.post('/b2b/api-keys', { name: '앱' })
        expect(created.status).toBe(201)
        const key: string = created.body.api_key
        expect(key).toMatch(/^sk-moviesir-[\da-f]{48}$/)
        const { api_keys } = (await company.get('/b2b/api-keys')).body
        expect(api_keys).toMatchObject([
          { id: created.body.id, name: '앱', masked_key: expect.stringMatching(/^sk-moviesir-\*{20}\.{3}[\da-f]{8}$/) },
        ])
        expect(JSON.stringify(api_keys)).not.toContain(key.slice(-20))
        const [{ key_hash = '' } = {}] = await database.sql<{ key_hash: string }[]>`
          select key_hash from b2b.api_keys where key_id = ${created.body.id}`
        expect(key_hash).toMatch(/^[\da-f]{64}$/)
      })

      it('cannot touch another company’s keys: there are none', async () => {
        const [company, other] = [await makeCompany(), await makeCompany()]
        const { id } = (await company.post('/b2b/api-keys', { name: 'k' })).body
        expect((await other.patch(`/b2b/api-keys/${id}`, { name: 'mine' })).status).toBe(404)
        expect((await other.patch(`/b2b/api-keys/${id}/deactivate`)).status).toBe(404)
        expect((await other.delete(`/b2b/api-keys/${id}`)).status).toBe(404)
        expect((await company.patch(`/b2b/api-keys/${id}`, { name: 'ours' })).body.name).toBe('ours')
        expect((await company.delete(`/b2b/api-keys/${id}`)).status).toBe(204)
      })

      it('have twenty keys at most, of a hundred that are made at once; one of a hundred deletes each', async () => {
        const company = await makeCompany()
        const made = await atOnce(
          (tx) => tx`select from b2b.companies where company_id = ${company.id} for update`,
          () => company.post('/b2b/api-keys', { name: 'k' }),
        )
        const keys = made.filter(({ status }) => status === 201)
        expect(keys).toHaveLength(20)
        expect(new Set(keys.map(({ body }) => body.api_key)).size).toBe(20)
        expect(made.filter(({ status }) => status === 409)).toHaveLength(80)
        const gone = await atOnce(
          (tx) => tx`select from b2b.api_keys where company_id = ${company.id} for update`,
          () => company.delete(`/b2b/api-keys/${keys[0]!.body.id}`),
        )
        expect(gone.filter(({ status }) => status === 204)).toHaveLength(1)
        expect(gone.filter(({ status }) => status === 404)).toHaveLength(99)
      })

      it('reset a password with a mailed code, once', async () => {
        const { email } = await makeCompany()
        expect((await ask('POST', '/b2b/auth/forgot-password', { email: 'nobody@example.com' })).status).toBe(200)
        expect((await ask('POST', '/b2b/auth/forgot-password', { email })).status).toBe(200)
        const reset = { email, code: resetCode(email), new_password: 'another horse' }
        expect((await ask('POST', '/b2b/auth/reset-password', { ...reset, code: 'x' })).status).toBe(400)
        const resets = await Promise.all(
          Array.from({ length: 100 }, () => ask('POST', '/b2b/auth/reset-password', reset)),
        )
        expect(resets.filter(({ status }) => status === 200)).toHaveLength(1)
        expect(resets.filter(({ status }) => status === 400)).toHaveLength(99)
      })

      it('are on plans that only an admin changes', async () => {
        const [company, admin] = [await makeCompany(), await makeCompany()]
        for (const refused of [
          await company.get('/b2b/admin/companies'),
          await company.patch(`/b2b/admin/companies/${company.id}`, { plan: 'ENTERPRISE' }),
          await company.get('/b2b/admin/users'),
        ])
          expect([refused.status, refused.body]).toEqual([403, { detail: '관리자만 사용할 수 있습니다' }])
        await database.sql`update b2b.companies set is_admin = true where company_id = ${admin.id}`
        const changed = await admin.patch(`/b2b/admin/companies/${company.id}`, { plan: 'PRO' })
        expect(changed.body.plan).toBe('PRO')
        expect((await company.get('/b2b/me')).body.plan).toBe('PRO')
      })

      it('delete themselves with keys and logs', async () => {
        const company = await makeCompany()
        const { api_key } = (await company.post('/b2b/api-keys', { name: 'k' })).body
        await call(api_key)
        expect((await company.delete('/b2b/me')).status).toBe(204)
        expect((await company.get('/b2b/me')).status).toBe(401)
        expect((await call(api_key)).status).toBe(401)
      })
    })

    describe('rules of a company', () => {
      const factsOf = new Map(films.map((film) => [film.movie_id, film]))
      const shownBy = ({ body }: { body: Body }) =>
        [...body.data.track_a.movies, ...body.data.track_b.movies].map(({ movie_id }: Body) => factsOf.get(movie_id)!)

      async function makeCaller() {
        const company = await makeCompany()
        const { api_key } = (await company.post('/b2b/api-keys', { name: 'k' })).body
        const rule = (filter_type: string, filter_value?: string) =>
          company.post('/b2b/content-rules', { filter_type, filter_value })
        return { ...company, rule, recommend: (body: object = {}) => call(api_key, body), key: api_key as string }
      }

      it('block films, genres, words of titles and low ratings in each of its calls, and in nobody else’s', async () => {
        const [caller, other] = [await makeCaller(), await makeCaller()]
        const film = shownBy(await caller.recommend())[0]!
        expect(await caller.rule('ID', String(film.movie_id))).toMatchObject({
          status: 201,
          body: { filter_type: 'ID' },
        })
        await caller.rule('GENRE', 'Horror')
        await caller.rule('KEYWORD', 'STAR')
        await caller.rule('MIN_RATING', '6.5')
        await caller.rule('ADULT')
        const { body } = await caller.get('/b2b/content-rules')
        expect(body.rules).toHaveLength(5)
        expect(body.blocked_movies).toBeGreaterThan(100)
        for (const trouble of ['none', 'excludes nothing'] as const) {
          engine.state.trouble = trouble
          const answer = await caller.recommend({ available_time: 480 })
          for (const { movie_id, genres, title, vote_average } of shownBy(answer)) {
            expect(movie_id).not.toBe(film.movie_id)
            expect(genres).not.toContain('Horror')
            expect(title).not.toMatch(/star/i)
            expect(vote_average).toBeGreaterThanOrEqual(6.5)
          }
          const { movies, total_runtime } = answer.body.data.track_a
          expect(total_runtime).toBe(movies.reduce((sum: number, { runtime }: Body) => sum + runtime, 0))
        }
        engine.state.trouble = 'excludes nothing'
        const single = await call(caller.key, { target_runtime: film.runtime }, '/v1/recommend_single')
        expect(single.body.data.movie?.movie_id).not.toBe(film.movie_id)
        expect(shownBy(await other.recommend())).toContainEqual(film)
      })

      it.each(['%', '__', '\\'])('take a word as it is written: %s', async (word) => {
        const caller = await makeCaller()
        expect((await caller.rule('KEYWORD', `${word}a`)).status).toBe(201)
        expect((await caller.get('/b2b/content-rules')).body.blocked_movies).toBe(0)
      })

      it('go when they are deleted, by their own company only', async () => {
        const [caller, other] = [await makeCaller(), await makeCaller()]
        const { id } = (await caller.rule('GENRE', 'Drama')).body
        expect((await other.delete(`/b2b/content-rules/${id}`)).status).toBe(404)
        expect((await other.get('/b2b/content-rules')).body).toEqual({ rules: [], blocked_movies: 0 })
        expect((await caller.delete(`/b2b/content-rules/${id}`)).status).toBe(204)
        expect((await caller.get('/b2b/content-rules')).body.blocked_movies).toBe(0)
      })

      it.each([
        ['ID', '999999'],
        ['ID', 'x'],
        ['GENRE', 'horror'],
        ['KEYWORD', ' a '],
        ['ADULT', 'no'],
        ['MIN_RATING', '11'],
        ['MIN_RATING', 'NaN'],
        ['OTHER', 'x'],
      ])('are about what exists: not %s %s', async (type, value) => {
        expect((await (await makeCaller()).rule(type, value)).status).toBe(422)
      })

      it('are fifty at most and each there once, of a hundred that are added at once', async () => {
        const caller = await makeCaller()
        const same = await Promise.all(Array.from({ length: 10 }, () => caller.rule('MIN_RATING', '7')))
        expect(same.map(({ status }) => status).toSorted((a, b) => a - b)).toEqual([201, ...Array(9).fill(409)])
        const others = await Promise.all(Array.from({ length: 100 }, (_, n) => caller.rule('KEYWORD', `word ${n}`)))
        expect(others.filter(({ status }) => status === 201)).toHaveLength(49)
        expect((await caller.get('/b2b/content-rules')).body.rules).toHaveLength(50)
      })

      it('do not show its user the same film again until nothing else is left', async () => {
        const [caller, other] = [await makeCaller(), await makeCaller()]
        const wanted = { available_time: 300, client_user_id: 'mina@airline.example' }
        const first = shownBy(await caller.recommend(wanted))
        const second = shownBy(await caller.recommend(wanted))
        expect(first.length * second.length).toBeGreaterThan(0)
        expect(second.filter((film) => first.includes(film))).toEqual([])
        for (const answer of [
          await caller.recommend({ available_time: 300, client_user_id: 'jun@airline.example' }),
          await caller.recommend({ available_time: 300 }),
          await other.recommend(wanted),
        ])
          expect(shownBy(answer)).toEqual(first)

        const short = films.filter(({ runtime }) => runtime <= 80).map(({ movie_id }) => movie_id)
        await database.sql`update b2b.guest_sessions set shown_movie_ids = ${short}`
        const brief = { available_time: 80 }
        expect(shownBy(await caller.recommend({ ...wanted, ...brief }))).toEqual(shownBy(await caller.recommend(brief)))
      })

      it('remember what its users were shown for seven days, without their names, and whoever calls at once', async () => {
        const caller = await makeCaller()
        const wanted = { available_time: 130, client_user_id: 'mina@airline.example' }
        const answers = await Promise.all(Array.from({ length: 10 }, () => caller.recommend(wanted)))
        const [kept] = await database.sql<{ shown: number[]; row: string }[]>`
          select shown_movie_ids as shown, guest_sessions::text as row from b2b.guest_sessions
          where company_id = ${caller.id}`
        const ids = answers.flatMap((answer) => shownBy(answer)).map(({ movie_id }) => movie_id)
        expect(kept!.shown.toSorted()).toEqual(ids.slice(0, 100).toSorted())
        expect(kept!.row).not.toContain('mina')
        await database.sql`update b2b.guest_sessions set expires_at = now() where company_id = ${caller.id}`
        expect(shownBy(await caller.recommend(wanted))).toEqual(
          shownBy(await caller.recommend({ available_time: 130 })),
        )
      })
    })

    describe.each(['google', 'github'] as const)('a login of a company with %s', (provider) => {
      const path = `/b2b/auth/${provider}`

      async function start(headers: Record<string, string> = {}, from = `${path}/start`) {
        const { body, cookies } = await ask('POST', from, undefined, headers)
        const way = await providers.logIn(body.authorize_url)
        return { way, ticket: withCookies(cookies), authorizeUrl: new URL(body.authorize_url) }
      }

      async function logIn() {
        const { way, ticket } = await start()
        return ask('POST', `${path}/callback`, way, ticket)
      }

      const bearer = ({ body }: { body: Body }) => ({ authorization: `Bearer ${body.access_token}` })

      it('makes an account at the first time and finds it again by the provider’s number, not the address', async () => {
        const first = await logIn()
        const { email, name } = providers.person
        expect(first).toMatchObject({
          status: 200,
          body: { token_type: 'bearer', company: { name, email, plan: 'BASIC', oauth_provider: provider } },
        })
        providers.person.email = `moved-${email}`
        const again = await logIn()
        expect(again.body.company).toEqual(first.body.company)
        expect((await ask('GET', '/b2b/me', undefined, bearer(again))).body).toEqual(first.body.company)
      })

      it('sends the browser out with a state, PKCE and the address to come back to, and nothing else of ours', async () => {
        const { authorizeUrl } = await start()
        const query = Object.fromEntries(authorizeUrl.searchParams)
        expect(query).toMatchObject({
          response_type: 'code',
          redirect_uri: `https://console.moviesir.cloud/auth/${provider}/callback`,
          code_challenge_method: 'S256',
          code_challenge: expect.stringMatching(/^[\w-]{43}$/),
          state: expect.stringMatching(/^[\w-]{43}$/),
        })
        expect(authorizeUrl.href).not.toContain('secret')
      })

      it('is finished in the browser that began it, with its own state, at its own provider', async () => {
        const { way, ticket } = await start()
        const other = await start()
        const elsewhere = provider === 'google' ? 'github' : 'google'
        for (const [where, given, headers] of [
          [path, way, {}],
          [path, way, other.ticket],
          [path, { ...way, state: other.way.state }, ticket],
          [`/b2b/auth/${elsewhere}`, way, ticket],
        ] as const) {
          const { status, body } = await ask('POST', `${where}/callback`, given, headers)
          expect([status, body.detail]).toEqual([400, expect.stringContaining('다른 브라우저')])
        }
        expect((await ask('POST', `${path}/callback`, way, ticket)).status).toBe(200)
      })

      it('is finished once, of a hundred requests at once', async () => {
        const { way, ticket } = await start()
        const answers = await Promise.all(
          Array.from({ length: 100 }, () => ask('POST', `${path}/callback`, way, ticket)),
        )
        expect(answers.map(({ status }) => status).toSorted((a, b) => a - b)).toEqual([200, ...Array(99).fill(400)])
      })

      it('makes one account of two first logins at once', async () => {
        const ways = await Promise.all([start(), start()])
        const answers = await Promise.all(ways.map(({ way, ticket }) => ask('POST', `${path}/callback`, way, ticket)))
        expect(answers.map(({ status }) => status)).toEqual([200, 200])
        expect(answers[0]!.body.company).toEqual(answers[1]!.body.company)
      })

      it('is refused when the provider refuses it, and ended when it cannot be reached', async () => {
        providers.state.trouble = 'refuses'
        expect((await logIn()).status).toBe(400)
        providers.state.trouble = 'none'
        const { way, ticket } = await start()
        providers.state.trouble = 'breaks'
        const broken = await ask('POST', `${path}/callback`, way, ticket)
        expect([broken.status, broken.headers.get('retry-after')]).toEqual([503, '5'])
      })

      it('needs an address that the provider has verified', async () => {
        providers.person.verified = false
        expect((await logIn()).status).toBe(403)
      })

      it('does not take over an account that has the same address, but is added to it by its owner', async () => {
        const company = await makeCompany()
        providers.person.email = company.email
        const taken = await logIn()
        expect([taken.status, taken.body.detail]).toEqual([409, expect.stringContaining('이미 가입된 이메일')])

        const headers = { authorization: company.authorization }
        const { way, ticket } = await start(headers, `/b2b/me/identities/${provider}`)
        expect((await ask('POST', `${path}/callback`, way, ticket)).body.company.id).toBe(company.id)
        expect((await logIn()).body.company.id).toBe(company.id)
        expect((await company.get('/b2b/me/identities')).body).toMatchObject({
          identities: [{ provider }],
          has_password: true,
          providers: ['google', 'github'],
        })
        expect((await company.delete(`/b2b/me/identities/${provider}`)).status).toBe(204)
        expect((await company.delete(`/b2b/me/identities/${provider}`)).status).toBe(404)
        expect((await logIn()).status).toBe(409)
      })

      it('belongs to one account, which has one of each provider', async () => {
        await logIn()
        const company = await makeCompany()
        const headers = { authorization: company.authorization }
        const theirs = await start(headers, `/b2b/me/identities/${provider}`)
        expect((await ask('POST', `${path}/callback`, theirs.way, theirs.ticket)).status).toBe(409)
        for (const status of [200, 409]) {
          Object.assign(providers.person, someone())
          const { way, ticket } = await start(headers, `/b2b/me/identities/${provider}`)
          expect((await ask('POST', `${path}/callback`, way, ticket)).status).toBe(status)
        }
      })

      it('stays while it is the only way in; a password is set with a mailed code', async () => {
        const { body } = await logIn()
        const headers = { authorization: `Bearer ${body.access_token}` }
        expect((await ask('DELETE', `/b2b/me/identities/${provider}`, undefined, headers)).status).toBe(409)
        const change = { current_password: password, new_password: 'another horse' }
        expect((await ask('POST', '/b2b/auth/change-password', change, headers)).status).toBe(400)
        const { email } = providers.person
        expect((await ask('POST', '/b2b/auth/login', { email, password: '' })).status).toBe(401)
        await ask('POST', '/b2b/auth/forgot-password', { email })
        const reset = { email, code: resetCode(email), new_password: 'another horse' }
        expect((await ask('POST', '/b2b/auth/reset-password', reset)).status).toBe(200)
        const renewed = await ask('POST', '/b2b/auth/login', { email, password: 'another horse' })
        expect((await ask('DELETE', `/b2b/me/identities/${provider}`, undefined, bearer(renewed))).status).toBe(204)
      })
    })

    it('offers no login of a provider that is not configured, and says so', async () => {
      const config = readMovieSirConfig({ MOVIESIR_JWT_SECRET: secret, DATABASE_URL: running.url })
      const { embedded } = running
      const plain = await startMovieSir({ config, embedded, host: '127.0.0.1', port: 0, log: () => {} })
      const post = (path: string) => fetch(plain.url + path, { method: 'POST' })
      expect(await (await fetch(`${plain.url}/b2b/auth/providers`)).json()).toEqual({ providers: [] })
      const started = await post('/b2b/auth/google/start')
      expect([started.status, await started.json()]).toEqual([
        404,
        { detail: 'Google 로그인은 이 서버에 설정되어 있지 않습니다' },
      ])
      await plain.stop()
    })

    it.each([
      ['another key', {}],
      ['expired', {}],
      ['none', { iss: 'https://accounts.google.com' }],
      ['none', { aud: 'another-client' }],
      ['none', { nonce: 'of-another-login' }],
    ] as const)('takes no ID token of Google that is not for this login: %s %o', async (trouble, claims) => {
      Object.assign(providers.state, { trouble, claims })
      const { body, cookies } = await ask('POST', '/b2b/auth/google/start')
      const way = await providers.logIn(body.authorize_url)
      expect((await ask('POST', '/b2b/auth/google/callback', way, withCookies(cookies))).status).toBe(400)
    })

    describe('the external API', () => {
      it('is healthy', async () => {
        expect((await ask('GET', '/v1/health')).body).toEqual({
          status: 'healthy',
          service: 'external-api',
          version: 'v1',
        })
      })

      it('recommends for a key and counts the calls that are left', async () => {
        const company = await makeCompany()
        const { api_key } = (await company.post('/b2b/api-keys', { name: 'k' })).body
        const { body, headers } = await call(api_key, { available_time: 200 })
        expect(body).toMatchObject({
          success: true,
          data: { algorithm: 'hybrid', track_a: { total_runtime: expect.any(Number) } },
          meta: { remaining_quota: 999, daily_limit: 1_000, latency_ms: expect.any(Number) },
        })
        expect(headers.get('x-recommendation-tier')).toBe('popularity')
        const single = await call(api_key, { target_runtime: 120 }, '/v1/recommend_single')
        expect(single.body).toMatchObject({
          data: { movie: { runtime: expect.any(Number) } },
          meta: { remaining_quota: 998 },
        })
      })

      it('refuses no key with 422, and a wrong or switched-off one with its code', async () => {
        const company = await makeCompany()
        const { api_key, id } = (await company.post('/b2b/api-keys', { name: 'k' })).body
        expect((await ask('POST', '/v1/recommend', {})).status).toBe(422)
        const invalid = { status: 401, body: { detail: { code: 'INVALID_API_KEY' } } }
        expect(await call('sk-moviesir-local-test-key')).toMatchObject(invalid)
        expect(await call(`${api_key} `)).toMatchObject({ status: 200 })
        await company.patch(`/b2b/api-keys/${id}/deactivate`)
        expect(await call(api_key)).toMatchObject(invalid)
        await company.patch(`/b2b/api-keys/${id}/activate`)
        expect((await call(api_key)).status).toBe(200)
      })

      it('lets exactly the daily limit through, of a hundred calls at once', async () => {
        const company = await makeCompany()
        const { api_key, id } = (await company.post('/b2b/api-keys', { name: 'k' })).body
        await spend(id, 960)
        engine.gather(40)
        const answers = await Promise.all(Array.from({ length: 100 }, () => call(api_key)))
        const good = answers.filter(({ status }) => status === 200)
        expect(good).toHaveLength(40)
        expect(good.map(({ body }) => body.meta.remaining_quota).toSorted((a, b) => a - b)).toEqual(
          Array.from({ length: 40 }, (_, left) => left),
        )
        const refused = answers.find(({ status }) => status === 429)!
        expect(refused.body.detail).toMatchObject({ code: 'RATE_LIMIT_EXCEEDED', limit: 1_000 })
        expect(Number(refused.headers.get('retry-after'))).toBeGreaterThan(0)
      })

      it('does not count a call that was no use, and says why it was not', async () => {
        const company = await makeCompany()
        const { api_key } = (await company.post('/b2b/api-keys', { name: 'k' })).body
        engine.state.trouble = 'refuses'
        expect(await call(api_key)).toMatchObject({ status: 503, body: { detail: { code: 'AI_SERVICE_ERROR' } } })
        engine.state.trouble = 'none'
        expect((await call(api_key)).body.meta.remaining_quota).toBe(999)
      })

      it('shows a company its calls, as figures, lines and days, and nobody else’s', async () => {
        const [company, other] = [await makeCompany(), await makeCompany()]
        const { api_key } = (await company.post('/b2b/api-keys', { name: '앱' })).body
        await call(api_key)
        engine.state.trouble = 'refuses'
        await call(api_key)
        const { body: dashboard } = await company.get('/b2b/dashboard')
        expect(dashboard).toMatchObject({
          plan: 'BASIC',
          daily_limit: 1_000,
          active_keys: 1,
          used_today: 1,
          requests_today: 2,
          total_requests: 2,
          success_rate: 0.5,
        })
        const { body: logs } = await company.get('/b2b/logs?limit=1')
        expect(logs).toMatchObject({
          total: 2,
          logs: [{ endpoint: '/v1/recommend', status_code: 503, error_code: 'AI_SERVICE_ERROR', key_name: '앱' }],
        })
        const { body: usage } = await company.get('/b2b/usage?period=7d')
        expect(usage.days).toHaveLength(7)
        expect(usage.days.at(-1)).toMatchObject({ requests: 2, errors: 1 })
        expect((await company.get('/b2b/usage/endpoints')).body.endpoints).toMatchObject([{ requests: 2, errors: 1 }])
        const { body: times } = await company.get('/b2b/usage/response-time?period=30d')
        expect(times).toMatchObject({ requests: 2, p50: expect.any(Number), p99: expect.any(Number) })
        const { body: feed } = await company.get(`/b2b/live-feed?after=${logs.logs[0].id - 1}`)
        expect(feed.logs).toHaveLength(1)
        expect((await other.get('/b2b/logs')).body.total).toBe(0)
        expect((await other.get('/b2b/dashboard')).body.total_requests).toBe(0)
        expect((await other.get('/b2b/usage/response-time')).body).toMatchObject({ requests: 0, p50: null })
      })

      it('takes days that exist, in order', async () => {
        const company = await makeCompany()
        expect((await company.get('/b2b/logs?start_date=2026-02-30')).status).toBe(422)
        expect((await company.get('/b2b/logs?start_date=2026-02-02&end_date=2026-02-01')).status).toBe(422)
        expect((await company.get('/b2b/logs?start_date=2026-02-01&end_date=2026-02-02')).status).toBe(200)
      })

      it('counts days from midnight to midnight in Seoul', async () => {
        const company = await makeCompany()
        const times = ['2026-01-31T14:59:59Z', '2026-01-31T15:00:00Z', '2026-02-01T14:59:59Z', '2026-02-01T15:00:00Z']
        for (const at of times)
          await database.sql`insert into b2b.api_logs
            (company_id, key_name, request_id, endpoint, method, status_code, latency_ms, created_at)
            values (${company.id}, 'k', 'r', '/v1/recommend', 'POST', 200, 1, ${at})`
        const { body } = await company.get('/b2b/logs?start_date=2026-02-01&end_date=2026-02-01')
        expect(body.logs.map(({ created_at }: Body) => created_at)).toEqual([times[2], times[1]])
        expect(body.total).toBe(2)
        expect((await company.get('/b2b/logs?start_date=2026-02-02')).body.total).toBe(1)
        expect((await company.get('/b2b/logs?end_date=2026-01-31')).body.total).toBe(1)
      })

      it('gives a page of at most two hundred calls, and of the live feed a hundred', async () => {
        const company = await makeCompany()
        await database.sql`insert into b2b.api_logs
          (company_id, key_name, request_id, endpoint, method, status_code, latency_ms)
          select ${company.id}, 'k', 'r', '/v1/recommend', 'POST', 200, n from generate_series(1, 250) n`
        expect((await company.get('/b2b/logs?limit=201')).status).toBe(422)
        expect((await company.get('/b2b/logs?limit=200&offset=100')).body).toMatchObject({
          logs: { length: 150 },
          total: 250,
        })
        const { body: feed } = await company.get('/b2b/live-feed?limit=100')
        expect(feed).toMatchObject({ logs: { length: 100 }, last_id: feed.logs[0].id })
        expect((await company.get(`/b2b/live-feed?after=${feed.last_id}`)).body).toEqual({
          logs: [],
          last_id: feed.last_id,
        })
      })

      async function spend(keyId: number, calls: number): Promise<void> {
        const { createDatabaseStore, createRedisStore } = await import('#origin/moviesir/store.ts')
        const { createQuotas } = await import('#origin/moviesir/companies/quotas.ts')
        const kept = redis ? createRedisStore(redis.url) : createDatabaseStore(database.sql)
        const quotas = createQuotas(kept)
        for (let made = 0; made < calls; made += 1) await quotas.take(keyId, 'BASIC')
        kept.close()
      }
    })

    const isServer = !engineKind.name.includes('embedded')
    if (isServer)
      it.skipIf(!hasDump)('is backed up and put back with every row', async () => {
        const folder = makeFolder()
        const old = join(folder.path, 'moviesir_20200101_000000.dump')
        writeFileSync(old, '')
        utimesSync(old, 0, 0)
        const { hostname, port, username, password: secretWord, pathname } = new URL(running.url!)
        const at = { PGHOST: hostname, PGPORT: port || '5432', PGUSER: username, PGPASSWORD: secretWord }
        const environment = { PATH: process.env['PATH'], ...at }
        const run = promisify(execFile)
        const script = fileURLToPath(new URL('../../compose/systemd/back-up-moviesir.sh', import.meta.url))
        await expect(run(script, [folder.path], { env: { ...environment, PGDATABASE: 'none' } })).rejects.toThrow(
          'none',
        )
        expect(readdirSync(folder.path)).toEqual(['moviesir_20200101_000000.dump'])

        await run(script, [folder.path], { env: { ...environment, PGDATABASE: pathname.slice(1) } })
        const [dump = '', ...others] = readdirSync(folder.path)
        expect([dump, others]).toEqual([expect.stringMatching(/^moviesir_\d{8}_\d{6}\.dump$/), []])
        expect(statSync(join(folder.path, dump)).mode & 0o777).toBe(0o600)

        const copy = `copy_${crypto.randomUUID().replaceAll('-', '')}`
        await database.sql`create database ${database.sql(copy)}`
        await run('pg_restore', ['--dbname', copy, join(folder.path, dump)], { env: environment })
        const restored = openDatabase({
          name: 'test',
          url: Object.assign(new URL(running.url!), { pathname: copy }).href,
        })
        const count = ({ sql }: Database) => sql`select (select count(*) from public.movies) as films,
        (select count(*) from b2c.users) as viewers, (select count(*) from b2b.companies) as companies`
        expect([...(await count(restored))]).toEqual([...(await count(database))])
        await restored.close()
        await database.sql`drop database ${database.sql(copy)} with (force)`
        folder.remove()
      })

    it('has written none of the passwords, codes, tokens and keys of all this into its log, but for the mails of development', async () => {
      await signUp()
      const written = logged
        .filter(({ event }) => event !== 'mail')
        .map((entry) => JSON.stringify(entry))
        .join('\n')
      expect(written).toContain('/b2b/auth/google/callback')
      expect(secrets.size).toBeGreaterThan(100)
      const isWritten = (value: string) =>
        written.includes(value) && new RegExp(`(?<![\\w-])${RegExp.escape(value)}(?![\\w-])`).test(written)
      for (const values of [secrets, providers.secrets, [secret, engineSecret, passwordHash]])
        expect([...values].filter(isWritten)).toEqual([])
      expect(written).not.toMatch(/sk-moviesir-[\da-f]{8}/)
    })
  })
}

describe('the configuration', () => {
  it.each([
    ['GOOGLE_CLIENT_SECRET', { GOOGLE_CLIENT_ID: 'id' }],
    ['GITHUB_CLIENT_ID', { GITHUB_CLIENT_SECRET: 'a secret' }],
  ])('has no half of a provider: %s is missing', (missing, given) => {
    expect(() => readMovieSirConfig({ MOVIESIR_JWT_SECRET: secret, ...given })).toThrow(
      `${missing}: is missing; set both or neither`,
    )
  })
})

describe('the mailer', () => {
  it('sends a mail over SMTP', async () => {
    const received: string[] = []
    const server = createServer((socket) => {
      let inData = false
      socket.write('220 test ESMTP\r\n')
      socket.on('data', (bytes) => {
        for (const line of bytes.toString().split('\r\n').filter(Boolean)) {
          received.push(line)
          if (inData) {
            if (line === '.') {
              inData = false
              socket.write('250 kept\r\n')
            }
          } else if (line.startsWith('EHLO')) socket.write('250 test\r\n')
          else if (line === 'DATA') {
            inData = true
            socket.write('354 go on\r\n')
          } else if (line === 'QUIT') socket.end('221 bye\r\n')
          else socket.write('250 ok\r\n')
        }
      })
    }).listen(0, '127.0.0.1')
    await once(server, 'listening')
    const url = `smtp://127.0.0.1:${(server.address() as AddressInfo).port}`
    const mailer = createSmtpMailer({ url, from: 'MovieSir <no-reply@moviesir.cloud>', log: () => {} })
    await mailer.send({ to: 'mina@example.com', subject: 'Hello', text: 'Your code is 123456' })
    mailer.close()
    server.close()
    expect(received).toContain('RCPT TO:<mina@example.com>')
    expect(received).toContain('Your code is 123456')
  })

  it('says 503 when nobody takes the mail', async () => {
    const reasons: unknown[] = []
    const mailer = createSmtpMailer({
      url: 'smtp://127.0.0.1:1',
      from: 'a@b.example',
      log: (entry) => reasons.push(entry),
    })
    await expect(mailer.send({ to: 'x@example.com', subject: 's', text: 't' })).rejects.toMatchObject({ status: 503 })
    expect(reasons).toHaveLength(1)
  })
})

function splitCookie(line: string): [string, string] {
  const [pair = ''] = line.split(';')
  return [pair.slice(0, pair.indexOf('=')), pair.slice(pair.indexOf('=') + 1)]
}
