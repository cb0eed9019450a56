import { createHash } from 'node:crypto'
import { Redis } from 'ioredis'
import { limits } from '../limits.ts'
import type { LocalLimiter } from '../local-limiter.ts'
import type { Limiter } from '../runtime.ts'
import { createUpstashLimiter } from '../upstash-limiter.ts'
import type { LimiterStore } from '../upstash-limiter.ts'

export interface RedisLimiterOptions {
  /** 'redis://…', 'rediss://…' or the path of a socket. */
  url: string
  /** Counts while Redis is down. */
  local: LocalLimiter
  /** Milliseconds since the epoch. */
  now: () => number
  /** Hears once per change whether Redis is there; never a password. */
  log: (message: string) => void
  /** What all keys begin with. Default 'daemun'. */
  prefix?: string
  /** Default limits.limiterTimeoutMs. */
  timeoutMs?: number
}

export interface RedisLimiter extends Limiter {
  /** Resolves once Redis is there or known to be down, so that a start can wait for it. */
  ready: Promise<void>
  /** Ends the connection; from then on this process counts alone. */
  close(): void
}

/** A limiter that all gateways on one Redis share. It connects, and connects again, in the background. */
export function createRedisLimiter(options: RedisLimiterOptions): RedisLimiter {
  const { url, local, now, log, prefix, timeoutMs = limits.limiterTimeoutMs } = options
  const redis = connect(url, timeoutMs)
  const { promise: ready, resolve: setReady } = Promise.withResolvers<void>()
  let state: 'connecting' | 'up' | 'down' | 'closed' = 'connecting'

  redis.on('ready', () => setState('up'))
  redis.on('error', (fault) => setState('down', fault))
  redis.on('close', () => setState('down', new Error('the connection was closed')))
  const onAnswer = (fault: unknown): void => {
    if (state !== 'connecting') setState(fault === undefined ? 'up' : 'down', fault)
  }
  const limiter = createUpstashLimiter({ store: toLimiterStore(redis), local, now, timeoutMs, prefix, onAnswer })
  return {
    take: limiter.take,
    ready,
    close() {
      state = 'closed'
      redis.disconnect()
      setReady()
    },
  }

  function setState(next: 'up' | 'down', fault?: unknown): void {
    if (state === next || state === 'closed') return
    state = next
    setReady()
    const { host, port, path } = redis.options
    const name = `redis at ${path ?? `${host}:${port}`}`
    log(next === 'up' ? `${name} answers` : `${name} is down: ${toReason(fault, redis.options.password)}`)
  }
}

function connect(url: string, timeoutMs: number): Redis {
  // The parser's own error would carry the URL, and with it the password.
  if (!/^\/./.test(url) && !(/^rediss?:\/\//.test(url) && URL.canParse(url)))
    throw new Error('the URL of a Redis is redis://…, rediss://… or the path of a socket')
  return new Redis(url, {
    commandTimeout: timeoutMs,
    // A request is counted now or elsewhere: nothing waits for a connection or is sent a second time.
    enableOfflineQueue: false,
    maxRetriesPerRequest: 0,
    autoResendUnfulfilledCommands: false,
    connectTimeout: 2_000,
    // A server that hangs, or whose host vanished, is noticed by its silence.
    socketTimeout: 2_000,
    retryStrategy: (attempts) => Math.min(50 * 2 ** Math.min(attempts - 1, 10), 1_000),
    // After a failover this may be a replica that was the primary.
    reconnectOnError: (error) => error.message.startsWith('READONLY'),
  })
}

function toReason(fault: unknown, password: string | null | undefined): string {
  if (!(fault instanceof Error)) return 'unknown'
  const reason = 'code' in fault ? String(fault.code) : fault.message.slice(0, 200)
  return password ? reason.replaceAll(password, '***') : reason
}

/** What is used of an ioredis client. */
export type RedisClient = Pick<Redis, 'evalsha' | 'eval' | 'get' | 'set'>

/**
 * The scripts of @upstash/ratelimit 2.2.0 begin with '#!lua flags=allow-key-locking', which only Upstash knows; without
 * that line they run everywhere, under another hash.
 */
export function toLimiterStore(redis: RedisClient): LimiterStore {
  const hashes = new Map<string, string>()
  return {
    evalsha(hash, keys, args) {
      const known = hashes.get(hash)
      // The library answers this by sending the script.
      if (known === undefined) return Promise.reject(new Error('NOSCRIPT'))
      return redis.evalsha(known, keys.length, ...keys, ...args.map(String))
    },
    eval(script, keys, args) {
      const plain = script.replace(/^#![^\n]*\n/, '')
      hashes.set(sha1(script), sha1(plain))
      return redis.eval(plain, keys.length, ...keys, ...args.map(String))
    },
    get: (key) => redis.get(key),
    set: (key, value) => redis.set(key, String(value)),
  }
}

const sha1 = (text: string): string => createHash('sha1').update(text).digest('hex')
