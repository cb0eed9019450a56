import type { Network } from '../address.ts'
import type { TableSource } from '../compile.ts'
import type { RouteCounts } from '../metrics.ts'
import type { LimitRule, LimitVerdict } from '../runtime.ts'
import type { Status } from '../status.ts'
import type { SplitReport } from '../upstreams/split-tally.ts'
import type { Environment } from '../variables.ts'
import type { SplitWeights } from './splits.ts'

/** What all workers serve by: the tables as the supervisor has read and checked them. */
export interface Served {
  sources: TableSource[]
  environment: Environment
}

/** What a worker is started with. */
export interface StartOrder extends Served {
  development: boolean
  trustedHops: Network[]
  redisUrl: string | undefined
  adminToken: string | undefined
  adminHosts: string[]
  cacheBytes: number
  /** File descriptors of bound sockets. */
  http: { descriptor: number; proxyProtocol: boolean }
  https: { descriptor: number; proxyProtocol: boolean; certificates: string } | undefined
  weights: SplitWeights
}

export interface AdminRequest {
  method: string
  url: string
  headers: [string, string][]
  body: Uint8Array<ArrayBuffer>
  /** Who asks. */
  from: string
}

export interface AdminAnswer {
  status: number
  headers: [string, string][]
  body: Uint8Array<ArrayBuffer>
}

/** What a worker tells of itself. */
export interface Told {
  /** Prometheus' text. */
  metrics: string
  counts: RouteCounts[]
  status: Status
}

export interface Ports {
  http: number
  https: number | undefined
}

/** What the supervisor asks of a worker. */
export type ToWorker = {
  start: { asks: StartOrder; answers: Ports }
  /** Serves by other tables from now on. */
  swap: { asks: Served; answers: void }
  /** What the admin listener was asked. */
  admin: { asks: AdminRequest; answers: AdminAnswer }
  /** A split has other weights now. */
  weights: { asks: { id: string; weights: readonly number[] }; answers: void }
  /** What was counted of splits since the last time. */
  reports: { asks: undefined; answers: SplitReport[] }
  /** What it has counted and what is open. */
  tell: { asks: undefined; answers: Told }
  /** Its event loop turns. */
  ping: { asks: undefined; answers: void }
  /** Takes nothing new, lets open requests end; the answer is the last it tells, and then it ends. */
  drain: { asks: undefined; answers: Told }
}

/** What a worker asks of the supervisor. */
export type ToSupervisor = {
  /** Counts requests, those of one moment at once. */
  take: { asks: { rule: LimitRule; key: string }[]; answers: LimitVerdict[] }
  /** Something broke that nobody caught: another one is to take over. */
  failing: { asks: undefined; answers: void }
}
