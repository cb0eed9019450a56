import { limits } from './limits.ts'
import { redactPath } from './log.ts'
import type { Plan } from './plan.ts'
import type { Outcome } from './runtime.ts'

/** The last requests that went wrong, for operators to look at. What their queries and fields said is not kept. */
export interface Recent {
  /** Keeps a request that failed or was refused. */
  finish(plan: Plan, outcome: Outcome, durationMs: number): void
  /** Answered with 5xx, or broken off; the newest first. */
  failed(): RecentRequest[]
  /** Refused with 4xx by the gateway; the newest first. */
  refused(): RecentRequest[]
}

export interface RecentRequest {
  /** When it ended, ISO 8601. */
  time: string
  requestId: string
  method: string
  host: string
  /** Without its query and without tokens; long ones are cut. */
  path: string
  /** The row's id. */
  route: string | null
  status: number
  durationMs: number
  /** The code of `error.ts`, when the gateway answered by itself. */
  code: string | null
  /** How the answer ended, when it is not whole. */
  end: string | null
  server: string | null
  cause: string | null
}

export function createRecent(): Recent {
  const failed: RecentRequest[] = []
  const refused: RecentRequest[] = []

  function finish(plan: Plan, outcome: Outcome, durationMs: number): void {
    const isBroken = outcome.end !== 'done' && outcome.end !== 'client_gone'
    const refusal = outcome.refusal ?? (plan.kind === 'answer' ? plan.refusal : undefined)
    if (outcome.status < 500 && !isBroken && !refusal) return
    const kept = outcome.status >= 500 || isBroken ? failed : refused
    if (kept.length >= limits.recentMax) kept.shift()
    const { exchange } = plan
    kept.push({
      time: new Date(exchange.receivedAt + durationMs).toISOString(),
      requestId: exchange.requestId,
      method: exchange.method.slice(0, 32),
      host: exchange.host,
      path: redactPath(exchange.path).slice(0, 256),
      route: exchange.route?.id ?? null,
      status: outcome.status,
      durationMs: Math.round(durationMs * 100) / 100,
      code: refusal?.code ?? null,
      end: outcome.end === 'done' ? null : outcome.end,
      server: outcome.server ?? null,
      cause: outcome.cause ?? null,
    })
  }

  return { finish, failed: () => failed.toReversed(), refused: () => refused.toReversed() }
}
