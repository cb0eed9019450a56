import type { CompiledGateway } from '../compile.ts'
import { createHistory } from '../history.ts'
import { mergeCounts } from '../merge-counts.ts'
import { mergeStatuses } from '../merge-status.ts'
import type { Gauge, RouteCounts } from '../metrics.ts'
import { toGaugeStatus, toTableStatus } from '../status.ts'
import type { Status } from '../status.ts'
import type { PageState } from './admin-page.ts'
import { everyStep } from './every-step.ts'
import type { AdminRequest } from './worker-protocol.ts'
import type { Heard, Workers } from './workers.ts'

export interface WorkersOverviewOptions {
  compiled: CompiledGateway
  workers: Workers
  hosts: string[]
  now(): Pick<Status, 'state' | 'changesAllowed'>
}

/** What operators are shown of all workers together, and all that is kept for that. */
export interface WorkersOverview {
  page: PageState
  /** Shows these tables from now on. */
  keep(compiled: CompiledGateway): void
  stop(): void
}

export function createWorkersOverview({ workers, hosts, now, ...options }: WorkersOverviewOptions): WorkersOverview {
  let { compiled } = options
  const startedAt = Date.now()
  const history = createHistory(startedAt)
  const stop = everyStep(() => void take(Date.now()))

  /** Those that answer late have counted for this step, not for the one in which they answer. */
  async function take(at: number): Promise<void> {
    history.take(toCounts(await workers.hear()), at)
  }

  async function status(gauges: Gauge[]): Promise<Status> {
    const heard = await workers.hear()
    return {
      version: 1,
      time: new Date().toISOString(),
      startedAt: new Date(startedAt).toISOString(),
      processId: process.pid,
      workers: heard.workers,
      ...now(),
      ...toTableStatus({ compiled, counts: toCounts(heard), history, groups: [], changes: new Map() }),
      ...toGaugeStatus(gauges),
      ...mergeStatuses(heard.told.map((one) => one.status)),
    }
  }

  return {
    page: {
      hosts,
      status,
      points: (scope, range) => history.points(scope, range, Date.now()),
      // Decided as any of them would.
      explain: async (question) =>
        new TextDecoder().decode((await workers.askOne(toExplainRequest(JSON.stringify(question)))).body),
    },
    keep: (next) => {
      compiled = next
    },
    stop,
  }
}

const toCounts = ({ told, gone }: Heard): RouteCounts[] =>
  mergeCounts([...told, ...gone].flatMap(({ counts }) => counts))

function toExplainRequest(text: string): AdminRequest {
  const body = new TextEncoder().encode(text)
  return {
    method: 'POST',
    url: 'http://localhost/explain',
    headers: [
      ['host', 'localhost'],
      ['content-type', 'application/json'],
      ['content-length', String(body.length)],
    ],
    body,
    from: '127.0.0.1',
  }
}
