import { createRoute, z } from '@hono/zod-openapi'
import type { OpenAPIHono } from '@hono/zod-openapi'
import type { ApiEnv, Log } from '../kit/api.ts'
import { createApi, jsonAnswer } from '../kit/api.ts'
import type { Database } from '../kit/database.ts'
import { createPasswords } from '../kit/passwords.ts'
import { createAccounts } from './companies/accounts.ts'
import { declareApiKeys } from './companies/api-keys.ts'
import { declareCompanyAuth } from './companies/auth.ts'
import { declareContentRules } from './companies/content-rules.ts'
import { declareExternal } from './companies/external.ts'
import { createLoginProviders } from './companies/login-providers.ts'
import { declareProviderLogins } from './companies/provider-logins.ts'
import { createQuotas } from './companies/quotas.ts'
import { declareUsage } from './companies/usage.ts'
import type { MovieSirConfig } from './config.ts'
import type { Engine } from './engine.ts'
import type { Mailer } from './mailer.ts'
import type { Store } from './store.ts'
import { declareViewerAuth } from './viewers/auth.ts'
import { declareFilms } from './viewers/films.ts'
import { createLogins } from './viewers/logins.ts'
import { declareMyPage } from './viewers/my-page.ts'
import { declareOnboarding } from './viewers/onboarding.ts'
import { declareRecommend } from './viewers/recommend.ts'
import { createSignUp } from './viewers/sign-up.ts'
import { createWithdrawals } from './viewers/withdrawals.ts'

type AppOptions = {
  config: MovieSirConfig
  database: Database
  store: Store
  mailer: Mailer
  engine: Engine
  log: Log
  now?: () => number
}

/** The whole API of MovieSir over a migrated database: for viewers, for companies, and what companies call. */
export function createMovieSir({ config, database, store, mailer, engine, log, now }: AppOptions) {
  const { sql } = database
  const { isProduction } = config
  const passwords = createPasswords()
  const logins = createLogins({ sql, secret: config.jwtSecret, isProduction })
  const accounts = createAccounts(sql, config.b2bJwtSecret)
  const quotas = createQuotas(store, now)
  const withdrawals = createWithdrawals({ sql, secret: config.jwtSecret })
  const signUp = createSignUp({ sql, store, passwords, mailer })

  return createApi<ApiEnv>({ ...about, log }, (api) => {
    api.openAPIRegistry.registerComponent('securitySchemes', 'ApiKey', {
      type: 'apiKey',
      in: 'header',
      name: 'X-API-Key',
    })
    api.openapi(rootRoute, (c) => c.json({ message: 'ok' as const }, 200))
    api.openapi(healthRoute, async (c) => {
      const isAlive = await database.isAlive(healthMs)
      return isAlive ? c.json({ status: 'ok' as const }, 200) : c.json({ status: 'unavailable' as const }, 503)
    })
    const viewers = as<Parameters<typeof declareFilms>[0]>(api)
    declareViewerAuth(viewers, { sql, passwords, logins, signUp, withdrawals, isProduction })
    declareOnboarding(viewers, { sql, logins })
    declareFilms(viewers, { sql, logins, engine })
    declareRecommend(viewers, { sql, logins, engine })
    declareMyPage(viewers, { sql, logins, passwords, withdrawals })
    const companies = as<Parameters<typeof declareUsage>[0]>(api)
    declareCompanyAuth(companies, { sql, accounts, passwords, mailer, store })
    declareProviderLogins(companies, { accounts, store, providers: createLoginProviders(config), isProduction })
    declareApiKeys(companies, { sql, accounts, quotas })
    declareContentRules(companies, { sql, accounts })
    declareUsage(companies, { sql, accounts, quotas })
    declareExternal(api, { sql, quotas, engine })
  })
}

// Viewers and companies are two kinds of caller of one API; which routes know whom is said where they are declared.
function as<T>(api: OpenAPIHono<ApiEnv>): T {
  return api as unknown as T
}

const healthMs = 2_000
const about = {
  system: 'moviesir',
  title: 'MovieSir API',
  version: '1.0.0',
  description: 'Films for the time one has: for viewers in the app, and for companies with a key.',
  // The console is on another domain and sends a token of its own accord; cookies never cross.
  corsOrigins: '*',
  docsPath: '/swagger',
} as const

const rootRoute = createRoute({
  method: 'get',
  path: '/',
  tags: ['server'],
  summary: 'Whether the server is there.',
  responses: { 200: jsonAnswer(z.object({ message: z.literal('ok') }), 'It is there') },
})

const healthRoute = createRoute({
  method: 'get',
  path: '/health',
  tags: ['server'],
  summary: 'Whether the server and its database work.',
  responses: {
    200: jsonAnswer(z.object({ status: z.literal('ok') }), 'Both work'),
    503: jsonAnswer(z.object({ status: z.literal('unavailable') }), 'The database does not answer'),
  },
})
