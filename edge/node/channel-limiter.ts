import { limits } from '../limits.ts'
import type { Limiter, LimitRule, LimitVerdict } from '../runtime.ts'
import { createSharedLimiter } from '../shared-limiter.ts'
import type { SharedLimiterOptions } from '../shared-limiter.ts'
import type { Channel } from './channel.ts'
import type { ToSupervisor } from './worker-protocol.ts'

interface Taking {
  rule: LimitRule
  key: string
  settle: PromiseWithResolvers<LimitVerdict>
}

/** Counts in the supervisor, with all its workers. Requests of one turn of the event loop are asked for together. */
export function createChannelLimiter(
  channel: Channel<ToSupervisor>,
  options: Omit<SharedLimiterOptions, 'takeShared'>,
): Limiter {
  let waiting: Taking[] = []

  function takeShared(rule: LimitRule, key: string): Promise<LimitVerdict> {
    const settle = Promise.withResolvers<LimitVerdict>()
    if (waiting.length === 0) setImmediate(() => void send())
    waiting.push({ rule, key, settle })
    return settle.promise
  }

  async function send(): Promise<void> {
    const taking = waiting
    waiting = []
    try {
      const asked = taking.map(({ rule, key }) => ({ rule, key }))
      const verdicts = await channel.ask('take', asked, limits.limiterTimeoutMs)
      for (const [index, { settle }] of taking.entries()) settle.resolve(verdicts[index] as LimitVerdict)
    } catch (error) {
      for (const { settle } of taking) settle.reject(error)
    }
  }

  return createSharedLimiter({ ...options, takeShared })
}
