import { z } from 'zod'
import type { Environment } from '../kit/config.ts'
import { databaseUrlSetting, readSettings, secretSetting } from '../kit/config.ts'
import { OriginError } from '../kit/error.ts'

const urlSetting = z.url({ protocol: /^https?$/, error: 'must look like http://10.0.32.5:8002' })
const word = z.string().optional()
const callback = (name: string) => urlSetting.default(`https://console.moviesir.cloud/auth/${name}/callback`)

// The name with the system's prefix wins, so that several systems can share one environment.
const settings = {
  environment: { from: ['MOVIESIR_ENVIRONMENT', 'ENVIRONMENT'], schema: z.string().default('development') },
  databaseUrl: { from: ['MOVIESIR_DATABASE_URL', 'DATABASE_URL'], schema: databaseUrlSetting },
  redisUrl: {
    from: ['MOVIESIR_REDIS_URL', 'REDIS_URL'],
    schema: z.string().optional(),
  },
  jwtSecret: { from: ['MOVIESIR_JWT_SECRET', 'JWT_SECRET_KEY'], schema: secretSetting },
  b2bJwtSecret: { from: ['B2B_JWT_SECRET'], schema: secretSetting.optional() },
  engineUrl: { from: ['MOVIESIR_ENGINE', 'AI_SERVICE_URL'], schema: urlSetting.optional() },
  engineSecret: { from: ['GPU_WORKER_SECRET'], schema: secretSetting.optional() },
  smtpUrl: {
    from: ['SMTP_URL'],
    schema: z
      .string()
      .regex(/^smtps?:\/\/\S+$/, 'must look like smtps://user:password@mail.example:465')
      .optional(),
  },
  mailFrom: { from: ['MAIL_FROM'], schema: z.string().default('MovieSir <no-reply@moviesir.cloud>') },
  googleId: { from: ['GOOGLE_CLIENT_ID'], schema: word },
  googleSecret: { from: ['GOOGLE_CLIENT_SECRET'], schema: word },
  googleRedirect: { from: ['GOOGLE_REDIRECT_URI'], schema: callback('google') },
  googleIssuer: { from: ['GOOGLE_ISSUER'], schema: urlSetting.default('https://accounts.google.com') },
  githubId: { from: ['GITHUB_CLIENT_ID'], schema: word },
  githubSecret: { from: ['GITHUB_CLIENT_SECRET'], schema: word },
  githubRedirect: { from: ['GITHUB_REDIRECT_URI'], schema: callback('github') },
  githubServer: { from: ['GITHUB_SERVER_URL'], schema: urlSetting.default('https://github.com') },
  githubApi: { from: ['GITHUB_API_URL'], schema: urlSetting.default('https://api.github.com') },
}

/** The setting that says where the database is. */
export const databaseSettings = { databaseUrl: settings.databaseUrl }

export type MovieSirConfig = ReturnType<typeof readMovieSirConfig>

/** The settings of MovieSir, or one `config_invalid` with all that is wrong with them. */
export function readMovieSirConfig(environment: Environment) {
  const settled = readSettings(environment, settings)
  const { databaseUrl, redisUrl, jwtSecret, b2bJwtSecret = jwtSecret, engineUrl, engineSecret } = settled
  const { smtpUrl, mailFrom, environment: name } = settled
  return {
    databaseUrl,
    redisUrl,
    jwtSecret,
    b2bJwtSecret,
    engineUrl,
    engineSecret,
    smtpUrl,
    mailFrom,
    isProduction: name === 'production',
    google: toGoogle(settled),
    github: toGitHub(settled),
  }
}

type Settled = ReturnType<typeof readSettings<typeof settings>>

/** What MovieSir is at a provider of logins; `redirectUri` is the console's page that is come back to. */
export type LoginClient = { clientId: string; clientSecret: string; redirectUri: string }

function toGoogle({ googleId, googleSecret, googleRedirect: redirectUri, googleIssuer: issuer }: Settled) {
  const client = toClient('GOOGLE', googleId, googleSecret)
  return client && { ...client, redirectUri, issuer }
}

function toGitHub(settled: Settled) {
  const { githubRedirect: redirectUri, githubServer: serverUrl, githubApi: apiUrl } = settled
  const client = toClient('GITHUB', settled.githubId, settled.githubSecret)
  return client && { ...client, redirectUri, serverUrl, apiUrl }
}

function toClient(name: string, clientId: string | undefined, clientSecret: string | undefined) {
  if (clientId && clientSecret) return { clientId, clientSecret }
  if (!clientId && !clientSecret) return undefined
  const missing = `${name}_CLIENT_${clientId ? 'SECRET' : 'ID'}`
  throw new OriginError(
    'config_invalid',
    `The configuration is not usable:\n  ${missing}: is missing; set both or neither`,
  )
}
