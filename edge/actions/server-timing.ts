import type { Exchange } from '../exchange.ts'

/**
 * Server-Timing (W3C) of an answer, for sites that ask for it: what the gateway and, if it was asked, the upstream took
 * until the answer's head. `now` is on the monotonic clock.
 */
export function toServerTiming({ site, startedAt }: Exchange, now: number, upstreamMs?: number): string[] {
  if (site?.site.serverTiming !== true) return []
  const gateway = `gateway;dur=${round(now - startedAt - (upstreamMs ?? 0))}`
  return ['Server-Timing', upstreamMs === undefined ? gateway : `${gateway}, upstream;dur=${round(upstreamMs)}`]
}

const round = (milliseconds: number): number => Math.max(0, Math.round(milliseconds * 10) / 10)
