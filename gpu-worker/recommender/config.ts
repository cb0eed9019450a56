import type { Environment } from '#origin/kit/config.ts'
import { databaseUrlSetting, readSettings, secretSetting } from '#origin/kit/config.ts'

/** Where MovieSir's database is. */
export const databaseSettings = {
  databaseUrl: { from: ['MOVIESIR_DATABASE_URL', 'DATABASE_URL'], schema: databaseUrlSetting },
}

const settings = { ...databaseSettings, secret: { from: ['GPU_WORKER_SECRET'], schema: secretSetting.optional() } }

/** The settings of the recommender, or one `config_invalid` with all that is wrong with them. */
export function readRecommenderConfig(environment: Environment) {
  return readSettings(environment, settings)
}
