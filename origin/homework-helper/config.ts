import { z } from 'zod'
import type { Environment } from '../kit/config.ts'
import { databaseUrlSetting, numberSetting, originsSetting, readSettings, secretSetting } from '../kit/config.ts'

const yearMinutes = 525_600

// The name with the system's prefix wins, so that several systems can share one environment.
const settings = {
  databaseUrl: { from: ['HOMEWORK_HELPER_DATABASE_URL', 'DATABASE_URL'], schema: databaseUrlSetting },
  jwtSecret: { from: ['HOMEWORK_HELPER_JWT_SECRET', 'JWT_SECRET_KEY'], schema: secretSetting },
  jwtAlgorithm: {
    from: ['JWT_ALGORITHM'],
    schema: z.literal('HS256', { error: 'must be HS256, the only algorithm of this API' }).default('HS256'),
  },
  tokenMinutes: {
    from: ['HOMEWORK_HELPER_JWT_ACCESS_TOKEN_EXPIRE_MINUTES', 'JWT_ACCESS_TOKEN_EXPIRE_MINUTES'],
    schema: numberSetting({ min: 1, max: yearMinutes, fallback: 43_200 }),
  },
  corsOrigins: {
    from: ['HOMEWORK_HELPER_CORS_ORIGINS', 'CORS_ORIGINS'],
    schema: originsSetting([
      'http://localhost:3000',
      'http://localhost:8000',
      'http://127.0.0.1:8000',
      'http://192.168.56.1:8000',
    ]),
  },
}

export type HomeworkHelperConfig = ReturnType<typeof readHomeworkHelperConfig>

/** The settings of HomeworkHelper, or one `config_invalid` with all that is wrong with them. */
export function readHomeworkHelperConfig(environment: Environment) {
  return readSettings(environment, settings)
}
