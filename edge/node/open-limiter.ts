import { createLocalLimiter } from '../local-limiter.ts'
import type { Limiter } from '../runtime.ts'
import { UsageError } from './config.ts'
import { createRedisLimiter } from './redis-limiter.ts'

export interface OpenLimiter {
  limiter: Limiter
  /** Where requests are counted, for a person. */
  counts: string
  close(): void
}

/** Counts in Redis when a URL is given, else in this process. Waits until Redis is there or known to be down. */
export async function openLimiter(redisUrl: string | undefined, report: (line: string) => void): Promise<OpenLimiter> {
  const local = createLocalLimiter({ now: Date.now })
  if (redisUrl === undefined)
    return { limiter: local, counts: 'in this process; REDIS_URL shares them', close: () => {} }
  const redis = connect(redisUrl, { local, now: Date.now, log: report })
  await redis.ready
  return { limiter: redis, counts: 'in Redis', close: () => redis.close() }
}

function connect(
  url: string,
  options: Omit<Parameters<typeof createRedisLimiter>[0], 'url'>,
): ReturnType<typeof createRedisLimiter> {
  try {
    return createRedisLimiter({ url, ...options })
  } catch (error) {
    throw new UsageError(`REDIS_URL: ${error instanceof Error ? error.message : String(error)}`, { cause: error })
  }
}
