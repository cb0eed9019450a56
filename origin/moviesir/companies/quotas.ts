import type { Store } from '../store.ts'

export const plans = ['BASIC', 'PRO', 'ENTERPRISE'] as const
export type Plan = (typeof plans)[number]

/** Calls a key may make in a day of Seoul. */
export const dailyLimits: Record<Plan, number> = { BASIC: 1_000, PRO: 10_000, ENTERPRISE: 100_000 }

const daySeconds = 86_400

export type Quotas = ReturnType<typeof createQuotas>

/** Counts the calls of each key, by the day in Seoul. Of any number of callers at once exactly the limit gets through. */
export function createQuotas(store: Store, now: () => number = Date.now) {
  return {
    /** How many calls are left after this one; undefined when there was none left for it. */
    take: (keyId: number, plan: Plan) => store.take(nameOf(keyId), dailyLimits[plan], daySeconds),
    /** For a call that was no use to the caller. */
    giveBack: (keyId: number) => store.giveBack(nameOf(keyId)),
    used: (keyId: number) => store.taken(nameOf(keyId)),
    /** Until the count begins again, in seconds. */
    secondsLeft: () => daySeconds - (Math.floor(now() / 1_000 + 9 * 3_600) % daySeconds),
  }

  function nameOf(keyId: number): string {
    return `rate_limit:${keyId}:${toSeoulDay(now())}`
  }
}

/** The date in Seoul (UTC+9 all year), as 2026-01-31. */
export function toSeoulDay(ms: number): string {
  return new Date(ms + 9 * 3_600_000).toISOString().slice(0, 10)
}
