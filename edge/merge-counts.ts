import { createDurations } from './durations.ts'
import type { RouteCounts } from './metrics.ts'

/** What several processes have counted, as if one had: a quantile of it is one of all their requests. */
export function mergeCounts(counted: RouteCounts[]): RouteCounts[] {
  const rows = new Map<string, RouteCounts>()
  for (const one of counted) {
    const { table, site, route } = one
    const key = JSON.stringify([table, site, route])
    const sum = rows.get(key) ?? { table, site, route, ...toNothing() }
    rows.set(key, sum)
    sum.requests += one.requests
    sum.errors += one.errors
    sum.clientErrors += one.clientErrors
    for (const [bucket, count] of one.durations.entries()) sum.durations[bucket] = (sum.durations[bucket] ?? 0) + count
    for (const kind of ['limits', 'auth', 'cache'] as const)
      for (const [verdict, count] of Object.entries(one[kind])) sum[kind][verdict] = (sum[kind][verdict] ?? 0) + count
  }
  return [...rows.values()]
}

const toNothing = (): Omit<RouteCounts, 'table' | 'site' | 'route'> => ({
  requests: 0,
  errors: 0,
  clientErrors: 0,
  durations: createDurations(),
  limits: {},
  auth: {},
  cache: {},
})
