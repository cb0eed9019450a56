import type { CompiledGateway, CompiledRoute, CompiledSite } from './compile.ts'
import { describeAction } from './explain.ts'
import type { History, Traffic } from './history.ts'
import type { Gauge, RouteCounts } from './metrics.ts'
import type { RecentRequest } from './recent.ts'
import { describeBalance } from './upstreams/balance.ts'
import type { Group } from './upstreams/group.ts'

/** What the gateway is and does at this moment: what the operators' page shows, for machines to read as well. */
export interface Status {
  /** Grows when a field changes its meaning or goes; new ones may come at any time. */
  version: 1
  /** ISO 8601. */
  time: string
  startedAt: string
  state: 'ready' | 'draining'
  processId: number
  /** The processes that serve, for which this one answers; null: it serves itself. */
  workers: WorkerStatus[] | null
  openRequests: number
  clientConnections: number
  upstreamConnections: number
  webSockets: number
  droppedLogLines: number
  /** Everything together; null: there was no request yet. */
  traffic: Traffic | null
  sites: SiteStatus[]
  upstreams: UpstreamStatus[]
  certificates: CertificateStatus[]
  /** What is kept of upstreams' answers; null: nothing ever is. */
  cache: CacheStatus | null
  /** Which reading of the tables is served; null: they are not read again. */
  tables: TablesStatus | null
  /** Whether changes can be asked for: there is a token for them. */
  changesAllowed: boolean
  failedRequests: RecentRequest[]
  refusedRequests: RecentRequest[]
}

export interface WorkerStatus {
  processId: number
  state: 'starting' | 'ready' | 'draining'
  /** It told what it has counted when it was asked now; else what it told last is in the sums. */
  answered: boolean
}

interface SiteStatus {
  table: string
  /** Names the site in metrics and in `/status/history`: its first host. */
  site: string
  hosts: string[]
  traffic: Traffic | null
  /** In order of precedence; last, with an empty id, what no row matched. */
  routes: RouteStatus[]
}

interface RouteStatus {
  id: string
  path: string
  methods: string[] | null
  source: string | null
  action: string
  policies: string[]
  traffic: Traffic | null
  /** How its limits judged since the start: allowed, refused, down. */
  limitVerdicts: Record<string, number>
  /** What was said of tokens: verified, anonymous, refused, forbidden, unavailable. */
  authVerdicts: Record<string, number>
  /** What its cache did: hit, stale, revalidated, collapsed, miss, bypass. */
  cacheVerdicts: Record<string, number>
}

interface UpstreamStatus {
  id: string
  balance: string
  inFlight: number
  inFlightMax: number
  retries: number
  servers: ServerStatus[]
}

interface ServerStatus {
  url: string
  up: boolean
  /** Of its weight it is given this share now; below 1 while it warms up. */
  share: number
  weight: number
  backup: boolean
  inFlight: number
  ejections: number
  /** When it was last put aside or brought back, and why. */
  changedAt: string | null
  reason: string | null
}

interface CertificateStatus {
  host: string
  /** 0: it has none, and a self-signed one stands in. */
  daysLeft: number
  /** Less than a third of its life is left, or it has none; null: nobody says. */
  expiring: boolean | null
}

interface CacheStatus {
  entries: number
  bytes: number
}

interface TablesStatus {
  generation: number
  lastReloadSuccessful: boolean
  /** ISO 8601. */
  lastReloadAt: string
}

/** The last change of a server. */
export interface ServerChange {
  at: number
  reason: string
}

export interface StatusSources {
  compiled: CompiledGateway
  counts: RouteCounts[]
  history: History
  groups: Group[]
  /** By upstream and server: 'shop/app http://127.0.0.1:3000'. */
  changes: ReadonlyMap<string, ServerChange>
}

/** The part of a status that is made of tables and counters. */
export function toTableStatus(sources: StatusSources): Pick<Status, 'traffic' | 'sites' | 'upstreams'> {
  const { compiled, counts, history, groups } = sources
  const unknown = counts.find(({ site }) => site === '')
  return {
    traffic: history.traffic({}) ?? null,
    sites: [
      ...compiled.sites.map((site) => toSiteStatus(site, sources)),
      ...(unknown ? [toUnknownHosts(unknown, history)] : []),
    ],
    upstreams: groups.map((group) => toUpstreamStatus(group, sources)),
  }
}

function toSiteStatus(site: CompiledSite, { counts, history }: StatusSources): SiteStatus {
  const name = site.hosts[0] ?? ''
  const own = counts.filter((one) => one.table === site.table && one.site === name)
  const unmatched = own.find(({ route }) => route === '')
  // Rows of one name are counted together.
  const rows = [...new Map(site.routes.map((route) => [route.id, route])).values()]
  return {
    table: site.table,
    site: name,
    hosts: site.hosts,
    traffic: history.traffic({ table: site.table, site: name }) ?? null,
    routes: [
      ...rows.map((route) =>
        toRouteStatus(
          route,
          own.find((one) => one.route === route.id),
          history.traffic({ table: site.table, site: name, route: route.id }),
        ),
      ),
      ...(unmatched ? [toUnmatched(unmatched, history)] : []),
    ],
  }
}

const toRouteStatus = (
  { id, route, source, policies, action }: CompiledRoute,
  counts: RouteCounts | undefined,
  traffic: Traffic | undefined,
): RouteStatus => ({
  id,
  path: route.path,
  methods: route.methods ?? null,
  source: source ?? null,
  action: describeAction(action),
  policies: policies.map(({ name, describe }) => `${name} ${describe}`),
  traffic: traffic ?? null,
  limitVerdicts: counts?.limits ?? {},
  authVerdicts: counts?.auth ?? {},
  cacheVerdicts: counts?.cache ?? {},
})

const toUnmatched = ({ table, site, limits, auth, cache }: RouteCounts, history: History): RouteStatus => ({
  id: '',
  path: '',
  methods: null,
  source: null,
  action: '',
  policies: [],
  traffic: history.traffic({ table, site, route: '' }) ?? null,
  limitVerdicts: limits,
  authVerdicts: auth,
  cacheVerdicts: cache,
})

/** Requests for hosts that no table names. */
const toUnknownHosts = (counts: RouteCounts, history: History): SiteStatus => ({
  table: '',
  site: '',
  hosts: [],
  traffic: history.traffic({ table: '', site: '' }) ?? null,
  routes: [toUnmatched(counts, history)],
})

const toUpstreamStatus = (group: Group, { changes }: StatusSources): UpstreamStatus => ({
  id: group.upstream.id,
  balance: describeBalance(group.upstream.balance),
  inFlight: group.inFlight(),
  inFlightMax: group.upstream.inFlightMax,
  retries: group.budget.taken(),
  servers: group.upstream.servers.map(({ origin, weight, backup }, index) => {
    const change = changes.get(`${group.upstream.id} ${origin}`)
    return {
      url: origin,
      up: group.health.isUp(index),
      share: group.health.share(index),
      weight,
      backup,
      inFlight: group.inFlightAt(index),
      ejections: group.health.ejections(index),
      changedAt: change ? new Date(change.at).toISOString() : null,
      reason: change?.reason ?? null,
    }
  }),
})

/** The part of a status that the metrics tell as well. */
export function toGaugeStatus(gauges: Gauge[]): Pick<Status, 'certificates' | 'cache' | 'tables'> {
  const find = (name: string): Gauge['value'] | undefined => gauges.find((gauge) => gauge.name === name)?.value
  const number = (name: string): number | undefined => {
    const value = find(name)
    return typeof value === 'number' ? value : undefined
  }
  const ofHosts = (name: string): [string, number][] => {
    const value = find(name) ?? []
    return typeof value === 'number' ? [] : value.map((sample) => [sample.labels['host'] ?? '', sample.value])
  }
  const expiring = new Map(ofHosts('daemun_certificate_expiring'))
  const bytes = number('daemun_cache_bytes')
  const generation = number('daemun_config_generation')
  return {
    certificates: ofHosts('daemun_certificate_days_left').map(([host, daysLeft]) => {
      const isExpiring = expiring.get(host)
      return { host, daysLeft, expiring: isExpiring === undefined ? null : isExpiring === 1 }
    }),
    cache: bytes === undefined ? null : { bytes, entries: number('daemun_cache_entries') ?? 0 },
    tables:
      generation === undefined
        ? null
        : {
            generation,
            lastReloadSuccessful: number('daemun_config_last_reload_successful') === 1,
            lastReloadAt: new Date((number('daemun_config_last_reload_timestamp_seconds') ?? 0) * 1_000).toISOString(),
          },
  }
}
