import { Redis } from 'ioredis'
import type { Sql } from '../kit/database.ts'
import { OriginError } from '../kit/error.ts'

/** Short-lived values and counts: codes of a sign-up, quotas of a day. */
export type Store = {
  put(key: string, value: string, seconds: number): Promise<void>
  get(key: string): Promise<string | undefined>
  /** Whether there was something: of any number of callers at once, one deletes it. */
  delete(key: string): Promise<boolean>
  /**
   * Takes one of `limit` under this key, which is forgotten `seconds` after the first was taken. Returns how many are
   * left, or undefined when none was. Of any number of callers at once exactly `limit` get one.
   */
  take(key: string, limit: number, seconds: number): Promise<number | undefined>
  /** Gives one back. */
  giveBack(key: string): Promise<void>
  /** How many were taken. */
  taken(key: string): Promise<number>
  close(): void
}

/** Forgets what has expired. Returns how many. */
export async function sweepStore(sql: Sql): Promise<number> {
  const { count } = await sql`delete from moviesir.store where expires_at <= now()`
  return count
}

/** The store inside the database, for one that has no Redis: it survives what the database survives. */
export function createDatabaseStore(sql: Sql): Store {
  return {
    async put(key, value, seconds) {
      await sql`insert into moviesir.store (key, value, expires_at)
        values (${key}, ${value}, now() + make_interval(secs => ${seconds}))
        on conflict (key) do update set value = excluded.value, count = 0, expires_at = excluded.expires_at`
    },
    async get(key) {
      const [row] = await sql<{ value: string }[]>`
        select value from moviesir.store where key = ${key} and expires_at > now()`
      return row?.value
    },
    async delete(key) {
      const { count } = await sql`delete from moviesir.store where key = ${key} and expires_at > now()`
      return count === 1
    },
    async take(key, limit, seconds) {
      const [row] = await sql<{ count: number }[]>`
        insert into moviesir.store as kept (key, count, expires_at)
        values (${key}, 1, now() + make_interval(secs => ${seconds}))
        on conflict (key) do update set
          count = case when kept.expires_at > now() then kept.count + 1 else 1 end,
          expires_at = case when kept.expires_at > now() then kept.expires_at else excluded.expires_at end
        where kept.expires_at <= now() or kept.count < ${limit}
        returning count`
      return row && limit - row.count
    },
    async giveBack(key) {
      await sql`update moviesir.store set count = count - 1 where key = ${key} and count > 0 and expires_at > now()`
    },
    async taken(key) {
      const [row] = await sql<{ count: number }[]>`
        select count from moviesir.store where key = ${key} and expires_at > now()`
      return row?.count ?? 0
    },
    close() {},
  }
}

type ScriptedRedis = Redis & {
  takeOne(key: string, limit: number, seconds: number): Promise<number>
  giveOneBack(key: string): Promise<number>
}

const takeScript = `local taken = tonumber(redis.call('GET', KEYS[1]) or '0')
if taken >= tonumber(ARGV[1]) then return -1 end
taken = redis.call('INCR', KEYS[1])
if taken == 1 then redis.call('EXPIRE', KEYS[1], ARGV[2]) end
return tonumber(ARGV[1]) - taken`

const giveBackScript = `if tonumber(redis.call('GET', KEYS[1]) or '0') > 0 then return redis.call('DECR', KEYS[1]) end
return 0`

/** The store on a Redis. A command that takes longer than `commandMs` fails with 503: nothing waits for a server that hangs. */
export function createRedisStore(url: string, { prefix = 'moviesir:', commandMs = 2_000 } = {}): Store {
  const redis = new Redis(url, {
    keyPrefix: prefix,
    commandTimeout: commandMs,
    maxRetriesPerRequest: 0,
    enableOfflineQueue: true,
    connectTimeout: 2_000,
  }) as ScriptedRedis
  redis.on('error', () => 'each command says so to whoever sent it')
  redis.defineCommand('takeOne', { numberOfKeys: 1, lua: takeScript })
  redis.defineCommand('giveOneBack', { numberOfKeys: 1, lua: giveBackScript })
  return {
    put: (key, value, seconds) => answered(async () => void (await redis.set(key, value, 'EX', seconds))),
    get: (key) => answered(async () => (await redis.get(key)) ?? undefined),
    delete: (key) => answered(async () => (await redis.del(key)) === 1),
    take: (key, limit, seconds) =>
      answered(async () => {
        const left = await redis.takeOne(key, limit, seconds)
        return left < 0 ? undefined : left
      }),
    giveBack: (key) => answered(async () => void (await redis.giveOneBack(key))),
    taken: (key) => answered(async () => Number((await redis.get(key)) ?? 0)),
    close: () => redis.disconnect(),
  }
}

async function answered<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    const headers = { 'Retry-After': '1' }
    throw new OriginError('service_unavailable', 'Service Unavailable', { headers, cause: error })
  }
}
