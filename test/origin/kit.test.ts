import { describe, expect, it } from 'vitest'
import { z } from 'zod'
import { databaseUrlSetting, numberSetting, originsSetting, readSettings, secretSetting } from '#origin/kit/config.ts'
import { contentHash } from '#origin/kit/content-hash.ts'
import { explainUnreachable } from '#origin/kit/database.ts'
import { OriginError } from '#origin/kit/error.ts'
import { secondsBetween, toInstant } from '#origin/kit/instant.ts'
import { createPasswords } from '#origin/kit/passwords.ts'
import { serve } from '#origin/kit/serve.ts'
import { startOrigins } from '#origin/systems.ts'
import { makeFolder } from './engines.ts'

const settings = {
  secret: { from: ['APP_SECRET', 'SECRET'], schema: secretSetting },
  port: { from: ['PORT'], schema: numberSetting({ min: 1, max: 65_535, fallback: 8000 }) },
  origins: { from: ['ORIGINS'], schema: originsSetting(['http://localhost:3000']) },
  database: { from: ['DATABASE_URL'], schema: databaseUrlSetting },
  word: { from: ['WORD'], schema: z.string().default('none') },
}
const secret = 'f3b1c2d4e5a60718293a4b5c6d7e8f90'

describe('settings', () => {
  it('come from the first variable that is set, and have defaults', () => {
    expect(readSettings({ SECRET: secret, APP_SECRET: '' }, settings)).toEqual({
      secret,
      port: 8000,
      origins: ['http://localhost:3000'],
      database: undefined,
      word: 'none',
    })
  })

  it('that are wrong are all named at once, by the variable, without their values', () => {
    const environment = { APP_SECRET: 'short', PORT: '70000', ORIGINS: '*', DATABASE_URL: 'mysql://u:planted@h/d' }
    const read = () => readSettings(environment, settings)
    expect(read).toThrow(/APP_SECRET[^]*PORT[^]*ORIGINS[^]*DATABASE_URL/)
    expect(read).not.toThrow(/short|planted/)
  })

  it.each([
    'changeme',
    'your-super-secret-key-change-this-in-production',
    'changeme-changeme-changeme-changeme-changeme',
    'x'.repeat(31),
    '',
  ])('refuse the secret %j', (weak) => {
    expect(() => readSettings({ SECRET: weak }, { secret: settings.secret })).toThrow(
      'openssl rand'.slice(0, weak.length === 31 ? 0 : 12),
    )
  })

  it.each([
    ['["http://a.example","https://b.example:8443"]', ['http://a.example', 'https://b.example:8443']],
    ['http://a.example, https://b.example', ['http://a.example', 'https://b.example']],
  ])('read the origins %s', (text, list) => {
    expect(readSettings({ ORIGINS: text }, { origins: settings.origins })).toEqual({ origins: list })
  })

  it.each(['*', 'http://a.example/', 'a.example', '["http://a.example"', 'null', 'http://a.example/path'])(
    'refuse the origins %s',
    (text) => {
      expect(() => readSettings({ ORIGINS: text }, { origins: settings.origins })).toThrow('ORIGINS')
    },
  )
})

describe('instants', () => {
  it.each([
    ['2026-01-31T09:00:00Z', '2026-01-31T09:00:00Z'],
    ['2026-01-31T18:00:00+09:00', '2026-01-31T09:00:00Z'],
    ['2026-01-31T18:00:00.120+0900', '2026-01-31T09:00:00.12Z'],
    ['2026-01-31 09:00:00.123456+00', '2026-01-31T09:00:00.123456Z'],
    ['2026-01-31T09:00:00.123456789Z', '2026-01-31T09:00:00.123456Z'],
    ['2026-01-31T09:00', '2026-01-31T09:00:00Z'],
    ['2026-01-31T09:00:00', '2026-01-31T09:00:00Z'],
    ['2024-02-29T00:00:00Z', '2024-02-29T00:00:00Z'],
  ])('read %s as %s', (text, utc) => expect(toInstant(text)).toBe(utc))

  it.each([
    '',
    'now',
    '2026-01-31',
    '1769850000',
    '2026-13-01T00:00:00Z',
    '2025-02-29T00:00:00Z',
    '2026-01-01T25:00:00Z',
    '0001-01-01T00:00:00+09:00',
    '0000-01-01T00:00:00Z',
    '2026-01-01T00:00:00+24:00',
    '2026-01-01T00:00:00[UTC]',
  ])('do not read %j', (text) => expect(toInstant(text)).toBeUndefined())

  it('are whole seconds apart, rounded down', () => {
    expect(secondsBetween('2026-01-01T00:00:00.6Z', '2026-01-01T01:00:00.5Z')).toBe(3599)
    expect(secondsBetween('2026-01-01T00:00:00.6Z', '2026-01-01T00:00:00.5Z')).toBe(-1)
    expect(secondsBetween('0001-01-02T00:00:00Z', '9999-12-31T00:00:00Z')).toBe(315_537_724_800)
  })
})

describe('content hashes', () => {
  it('do not depend on the order of keys, but on everything else', () => {
    expect(contentHash({ a: 1, b: { c: [1, 2], d: null } })).toBe(contentHash({ b: { d: null, c: [1, 2] }, a: 1 }))
    const others = [{ a: 1 }, { a: '1' }, { a: [1] }, { a: null }, { a: {} }, [{ a: 1 }]].map(contentHash)
    expect(new Set(others).size).toBe(others.length)
  })
})

describe('passwords', () => {
  const passwords = createPasswords()

  it('verify against their own hash only, however the text is composed', async () => {
    const phc = await passwords.hash('비밀 caf\u00e9')
    expect(phc).not.toBe(await passwords.hash('비밀 caf\u00e9'))
    expect(await passwords.verify('비밀 cafe\u0301'.normalize('NFD'), phc)).toBe(true)
    expect(await passwords.verify('비밀 cafe', phc)).toBe(false)
    expect(await passwords.verify('비밀 café', undefined)).toBe(false)
  })

  it('take as long for an unknown user as for a known one', async () => {
    const phc = await passwords.hash('known')
    const time = async (stored: string | undefined) => {
      const start = performance.now()
      for (let n = 0; n < 5; n += 1) await passwords.verify('wrong', stored)
      return performance.now() - start
    }
    const [known, unknown] = [await time(phc), await time(undefined)]
    expect(unknown / known).toBeGreaterThan(0.3)
  })

  it('are refused with a 503 when too many wait', async () => {
    const busy = createPasswords({ concurrencyMax: 1, waitingMax: 2 })
    const refusal = ['busy', { 'Retry-After': '1' }]
    const outcomes = await Promise.allSettled(Array.from({ length: 5 }, () => busy.hash('x')))
    const refused = outcomes.filter((outcome) => outcome.status === 'rejected')
    expect(refused.map(({ reason }) => [reason.code, reason.headers])).toEqual([refusal, refusal])
    expect(await busy.hash('again')).toMatch(/^\$argon2id/)
  })

  it('stored in a form that cannot be read are an error, not a refusal', async () => {
    await expect(passwords.verify('x', '$2b$12$abc')).rejects.toMatchObject({ code: 'internal' })
  })
})

describe('a server', () => {
  it('that stops lets the running request end and refuses the next', async () => {
    const started = Promise.withResolvers<void>()
    const release = Promise.withResolvers<void>()
    const { url, stop } = await serve({
      host: '127.0.0.1',
      port: 0,
      async fetch() {
        started.resolve()
        await release.promise
        return new Response('done')
      },
    })
    const running = fetch(url)
    await started.promise
    const stopped = stop()
    await expect(fetch(url)).rejects.toThrow()
    release.resolve()
    expect(await (await running).text()).toBe('done')
    await stopped
  })

  it('that stops cuts what does not end in time', async () => {
    const started = Promise.withResolvers<void>()
    const never = new Promise<Response>(() => {})
    const { url, stop } = await serve({
      host: '127.0.0.1',
      port: 0,
      drainMs: 50,
      fetch: () => (started.resolve(), never),
    })
    const running = fetch(url)
    await Promise.all([started.promise.then(stop), expect(running).rejects.toThrow()])
  })
})

describe('an unreachable server', () => {
  it('is named without its password', () => {
    const cause = Object.assign(new Error('connect ECONNREFUSED'), { code: 'ECONNREFUSED' })
    const error = explainUnreachable(cause, 'homework-helper', 'postgresql://u:planted@db.example:5432/d')
    expect(error).toMatchObject({ code: 'database_unavailable' })
    expect(String(error)).toContain('db.example:5432')
    expect(String(error)).not.toContain('planted')
  })
})

describe('the origins', () => {
  it('open nothing when the configuration is wrong', async () => {
    const folder = makeFolder()
    const wrong = startOrigins({ dataDirectory: folder.path, environment: {}, log: () => {} })
    await expect(wrong).rejects.toMatchObject({ code: 'config_invalid' })
    folder.remove()
  })
})

describe('errors', () => {
  it('carry a code, a status and whether to retry', () => {
    expect(new OriginError('busy', 'x')).toMatchObject({ code: 'busy', status: 503, retryable: true, detail: 'x' })
    expect(new OriginError('not_found', 'x')).toMatchObject({ status: 404, retryable: false })
  })
})
