import { z } from 'zod'
import type { Environment } from '../kit/config.ts'
import { databaseUrlSetting, readSettings, secretSetting } from '../kit/config.ts'

const urlSetting = z.url({ protocol: /^https?$/, error: 'must look like http://10.0.32.5:8002' })

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
}

/** The setting that says where the database is. */
export const databaseSettings = { databaseUrl: settings.databaseUrl }

export type MovieSirConfig = ReturnType<typeof readMovieSirConfig>

/** The settings of MovieSir, or one `config_invalid` with all that is wrong with them. */
export function readMovieSirConfig(environment: Environment) {
  const { environment: name, b2bJwtSecret, ...rest } = readSettings(environment, settings)
  return { ...rest, b2bJwtSecret: b2bJwtSecret ?? rest.jwtSecret, isProduction: name === 'production' }
}
