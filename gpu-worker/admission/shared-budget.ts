import { Redis } from 'ioredis'
import type { Limits } from '../limits.ts'
import type { Budget } from './budget.ts'
import { toQuotaError, windowMs } from './budget.ts'

export interface SharedBudgetOptions {
  /** 'redis://…', 'rediss://…' or the path of a socket. */
  url: string
  tokensPerMinute: number
  /** Counts while Redis is down. */
  local: Budget
  limits: Limits
  /** Milliseconds since the epoch: several workers have to agree on the minute. */
  now: () => number
  log(entry: Record<string, unknown>): void
  /** What all keys begin with. */
  prefix?: string
}

export interface SharedBudget extends Budget {
  /** Resolves once Redis is there or known not to be. */
  ready: Promise<void>
  close(): void
}

/**
 * The budget of several workers, in Redis. What is held back is a lease with an end, so that a worker that dies in the
 * middle takes nothing with it for longer than a request may last.
 */
export function createSharedBudget(options: SharedBudgetOptions): SharedBudget {
  const { url, tokensPerMinute, local, limits, now, log, prefix = 'daemun:gpu' } = options
  const redis = new Redis(url, {
    commandTimeout: limits.redisTimeoutMs,
    maxRetriesPerRequest: 0,
    enableOfflineQueue: false,
    scripts: { reserve: { lua: reserveScript, numberOfKeys: 2 }, settle: { lua: settleScript, numberOfKeys: 2 } },
  }) as Redis & Scripts
  let isDown = false
  const { promise: ready, resolve: setReady } = Promise.withResolvers<void>()
  redis.on('error', (error) => tell(error))
  redis.on('ready', () => tell(undefined))

  /** Once per change; the reason without its text, which may have an address in it. */
  function tell(error: Error | undefined): void {
    setReady()
    if (isDown === (error !== undefined)) return
    isDown = error !== undefined
    const code = error && 'code' in error ? String(error.code) : error?.name
    log({ event: 'budget store', state: isDown ? 'down: counted in this process' : 'up', ...(code && { cause: code }) })
  }

  return {
    ready,
    async reserve(tenant, tokens) {
      const at = now()
      const keys = [`${prefix}:{${tenant}}:budget`, `${prefix}:{${tenant}}:leases`] as const
      const lease = `${crypto.randomUUID()}:${tokens}`
      const endsAt = at + limits.deadlineMs + limits.settleMs + leaseSlackMs
      const window = Math.floor(at / windowMs)
      try {
        const left = await redis.reserve(...keys, at, window, tokens, tokensPerMinute, lease, endsAt)
        tell(undefined)
        if (left < 0) return toQuotaError({ tokens, tokensPerMinute, left: -left - 1, now: at })
      } catch (error) {
        tell(error as Error)
        return local.reserve(tenant, tokens)
      }
      let open = true
      return {
        settle(used) {
          if (!open) return
          open = false
          // What Redis does not hear of ends with the lease.
          redis.settle(...keys, Math.floor(now() / windowMs), lease, tokens, used).catch(tell)
        },
      }
    },
    close: () => redis.disconnect(),
  }
}

const leaseSlackMs = 5_000

interface Scripts {
  reserve(
    budget: string,
    leases: string,
    now: number,
    window: number,
    tokens: number,
    tokensPerMinute: number,
    lease: string,
    endsAt: number,
  ): Promise<number>
  settle(budget: string, leases: string, window: number, lease: string, tokens: number, used: number): Promise<number>
}

/** A hash of window, used and reserved; a sorted set of leases by their end. What is left; below zero: -left-1, refused. */
const reserveScript = `
for _, lease in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', ARGV[1])) do
  redis.call('ZREM', KEYS[2], lease)
  redis.call('HINCRBY', KEYS[1], 'reserved', -tonumber(string.match(lease, ':(%d+)$')))
end
if redis.call('HGET', KEYS[1], 'window') ~= ARGV[2] then
  redis.call('HSET', KEYS[1], 'window', ARGV[2], 'used', 0)
end
local taken = tonumber(redis.call('HGET', KEYS[1], 'used')) + tonumber(redis.call('HGET', KEYS[1], 'reserved') or 0)
local left = tonumber(ARGV[4]) - taken
if tonumber(ARGV[3]) > left then return -math.max(left, 0) - 1 end
redis.call('HINCRBY', KEYS[1], 'reserved', ARGV[3])
redis.call('ZADD', KEYS[2], ARGV[6], ARGV[5])
local keep = tonumber(ARGV[6]) - tonumber(ARGV[1]) + ${windowMs}
redis.call('PEXPIRE', KEYS[1], keep)
redis.call('PEXPIRE', KEYS[2], keep)
return left - tonumber(ARGV[3])
`

const settleScript = `
if redis.call('ZREM', KEYS[2], ARGV[2]) == 1 then redis.call('HINCRBY', KEYS[1], 'reserved', -tonumber(ARGV[3])) end
if redis.call('HGET', KEYS[1], 'window') ~= ARGV[1] then redis.call('HSET', KEYS[1], 'window', ARGV[1], 'used', 0) end
redis.call('HINCRBY', KEYS[1], 'used', ARGV[4])
return redis.call('PEXPIRE', KEYS[1], ${2 * windowMs})
`
