import { WorkerError } from '../error.ts'
import type { Limits } from '../limits.ts'

/** Tokens that a tenant may use, counted before they are used: what is promised cannot be promised twice. */
export interface Budget {
  /** Holds tokens back for a request, or says why not. */
  reserve(tenant: string, tokens: number): Reserved | Promise<Reserved>
}

export type Reserved = Lease | WorkerError

export interface Lease {
  /** Pays what was used and gives the rest back; 0 gives all back. A second time does nothing. */
  settle(tokens: number): void
}

/** Answers at once. */
export interface LocalBudget extends Budget {
  reserve(tenant: string, tokens: number): Reserved
}

interface BudgetOptions {
  /** Undefined: no tenant has a bound. */
  tokensPerMinute: number | undefined
  limits: Limits
  now: () => number
}

interface Account {
  /** Which minute it counts. */
  window: number
  used: number
  reserved: number
}

/** Budgets are counted by the minute. */
export const windowMs = 60_000

/** Counts in this process. */
export function createBudget({ tokensPerMinute, limits, now }: BudgetOptions): LocalBudget {
  const accounts = new Map<string, Account>()

  function accountOf(tenant: string): Account {
    const window = Math.floor(now() / windowMs)
    const account = accounts.get(tenant) ?? { window, used: 0, reserved: 0 }
    // What was reserved in an earlier minute and is used in this one counts in this one.
    if (account.window !== window) Object.assign(account, { window, used: 0 })
    if (accounts.size >= limits.tenantsMax && !accounts.has(tenant)) forgetIdle(window)
    accounts.set(tenant, account)
    return account
  }

  function forgetIdle(window: number): void {
    for (const [tenant, account] of accounts)
      if (account.reserved === 0 && account.window !== window) accounts.delete(tenant)
  }

  return {
    reserve(tenant, tokens) {
      if (tokensPerMinute === undefined) return free
      const account = accountOf(tenant)
      if (account.used + account.reserved + tokens > tokensPerMinute) {
        const left = Math.max(0, tokensPerMinute - account.used - account.reserved)
        return toQuotaError({ tokens, tokensPerMinute, left, now: now() })
      }
      account.reserved += tokens
      let open = true
      return {
        settle(used) {
          if (!open) return
          open = false
          const current = accountOf(tenant)
          current.reserved -= tokens
          current.used += used
        },
      }
    },
  }
}

interface Quota {
  tokens: number
  tokensPerMinute: number
  left: number
  now: number
}

export function toQuotaError({ tokens, tokensPerMinute, left, now }: Quota): WorkerError {
  const retryAfterSeconds = Math.ceil((windowMs - (now % windowMs)) / 1_000)
  const message = `This request may take ${tokens} tokens; of ${tokensPerMinute} a minute ${left} are left`
  // More than a whole minute's: coming again does not help.
  return new WorkerError('insufficient_quota', message, tokens > tokensPerMinute ? {} : { retryAfterSeconds })
}

const free: Lease = { settle() {} }
