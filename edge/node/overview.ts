import type { CompiledGateway, CompiledUpstream } from '../compile.ts'
import { explain, toRawRequest } from '../explain.ts'
import type { Explanation } from '../explain.ts'
import { createHistory } from '../history.ts'
import { createMetrics } from '../metrics.ts'
import type { Gauge, Metrics } from '../metrics.ts'
import { createRecent } from '../recent.ts'
import type { Facts } from '../runtime.ts'
import { toGaugeStatus, toTableStatus } from '../status.ts'
import type { ServerChange, Status } from '../status.ts'
import type { HealthChange } from '../upstreams/health.ts'
import type { PageState } from './admin-page.ts'
import { everyStep } from './every-step.ts'
import type { Pool } from './pool.ts'

/** What operators are shown of a running gateway, and all that is kept for that. */
export interface Overview {
  metrics: Metrics
  /** A server was put aside or is back. */
  changed(upstream: CompiledUpstream, change: HealthChange): void
  page(sources: OverviewSources): OwnPageState
  /** Shows these tables from now on. */
  keep(compiled: CompiledGateway): void
  stop(): void
}

/** Nobody else has to be asked for it. */
interface OwnPageState extends PageState {
  status(gauges: Gauge[]): Status
}

interface OverviewSources {
  hosts: string[]
  pool: Pool
  /** What `explain` decides with. */
  facts: Facts
  showExplanation: (explanation: Explanation) => string
  /** What is to be asked at the moment. */
  now(): Pick<Status, 'state' | 'clientConnections' | 'webSockets' | 'droppedLogLines' | 'changesAllowed'>
}

export function createOverview(first: CompiledGateway): Overview {
  let compiled = first
  const counted = createMetrics()
  const recent = createRecent()
  const startedAt = Date.now()
  const history = createHistory(startedAt)
  const changes = new Map<string, ServerChange>()
  const stop = everyStep(() => history.take(counted.counts(), Date.now()))

  const metrics: Metrics = {
    ...counted,
    finish(plan, outcome, durationMs) {
      counted.finish(plan, outcome, durationMs)
      recent.finish(plan, outcome, durationMs)
    },
  }

  const page = ({ hosts, pool, facts, showExplanation, now }: OverviewSources): OwnPageState => ({
    hosts,
    status: (gauges) => ({
      version: 1,
      time: new Date().toISOString(),
      startedAt: new Date(startedAt).toISOString(),
      processId: process.pid,
      workers: null,
      openRequests: counted.open(),
      upstreamConnections: pool.inUse(),
      ...now(),
      ...toTableStatus({
        compiled,
        counts: counted.counts(),
        history,
        groups: pool.all().map(({ group }) => group),
        changes,
      }),
      ...toGaugeStatus(gauges),
      failedRequests: recent.failed(),
      refusedRequests: recent.refused(),
    }),
    points: (scope, range) => history.points(scope, range, Date.now()),
    explain: async (question) => showExplanation(await explain(compiled, toRawRequest(question), facts)),
  })

  return {
    metrics,
    changed: ({ id, servers }, { index, why }) =>
      void changes.set(`${id} ${servers[index]?.origin}`, { at: Date.now(), reason: why }),
    page,
    keep: (next) => {
      compiled = next
    },
    stop,
  }
}
