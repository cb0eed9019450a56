import { createRoute, z } from '@hono/zod-openapi'
import type { Log } from '../kit/api.ts'
import { createApi, jsonAnswer } from '../kit/api.ts'
import type { Database } from '../kit/database.ts'
import { createPasswords } from '../kit/passwords.ts'
import { createTokens } from '../kit/tokens.ts'
import { declareAuth } from './auth.ts'
import type { UserEnv } from './authentication.ts'
import { authenticate } from './authentication.ts'
import type { HomeworkHelperConfig } from './config.ts'
import { declareEvents } from './events.ts'
import { declarePredictions } from './predictions.ts'
import { declareSessions } from './sessions.ts'
import { declareSync } from './sync.ts'

type AppOptions = { config: HomeworkHelperConfig; database: Database; log: Log }

/** The whole API of HomeworkHelper over a migrated database. */
export function createHomeworkHelper({ config, database, log }: AppOptions) {
  const { sql } = database
  const tokenSeconds = config.tokenMinutes * 60
  const tokens = createTokens({ secret: config.jwtSecret, lifetimeSeconds: tokenSeconds })
  const signedIn = authenticate(sql, tokens)

  return createApi<UserEnv>({ ...about, corsOrigins: config.corsOrigins, log }, (api) => {
    api.openAPIRegistry.registerComponent('securitySchemes', 'OAuth2PasswordBearer', passwordFlow)
    api.openapi(rootRoute, (c) =>
      c.json({ message: 'HomeworkHelper API', version, docs: '/docs', status: 'running' }, 200),
    )
    api.openapi(healthRoute, async (c) => {
      const isAlive = await database.isAlive(healthMs)
      return isAlive
        ? c.json({ status: 'ok' as const, version }, 200)
        : c.json({ status: 'unavailable' as const, version }, 503)
    })
    declareAuth(api, { sql, tokens, tokenSeconds, passwords: createPasswords(), signedIn })
    declareSessions(api, { sql, signedIn })
    declareEvents(api, { sql, signedIn })
    declarePredictions(api, { sql, signedIn })
    declareSync(api, { sql, signedIn })
  })
}

const version = '1.0.0'
const healthMs = 2_000
const about = {
  system: 'homework-helper',
  title: 'HomeworkHelper API',
  version,
  description: 'Play sessions, their events and predictions, uploaded by phones and PCs and downloaded by the others.',
}

const passwordFlow = {
  type: 'oauth2' as const,
  flows: { password: { tokenUrl: '/api/v1/auth/login', scopes: {} } },
}

const rootRoute = createRoute({
  method: 'get',
  path: '/',
  tags: ['server'],
  summary: 'What this is.',
  responses: {
    200: jsonAnswer(
      z.object({ message: z.string(), version: z.string(), docs: z.string(), status: z.string() }),
      'Name and version',
    ),
  },
})

const healthRoute = createRoute({
  method: 'get',
  path: '/health',
  tags: ['server'],
  summary: 'Whether the server and its database work.',
  responses: {
    200: jsonAnswer(z.object({ status: z.literal('ok'), version: z.string() }), 'Both work'),
    503: jsonAnswer(
      z.object({ status: z.literal('unavailable'), version: z.string() }),
      'The database does not answer',
    ),
  },
})
