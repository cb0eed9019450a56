import type { CompiledGateway, CompiledRoute, CompiledSite } from './compile.ts'
import { describeAction } from './explain.ts'
import type { History, Traffic } from './history.ts'
import type { RouteCounts } from './metrics.ts'
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
  failedRequests: RecentRequest[]
  refusedRequests: RecentRequest[]
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
})

const toUnmatched = ({ table, site, limits, auth }: RouteCounts, history: History): RouteStatus => ({
  id: '',
  path: '',
  methods: null,
  source: null,
  action: '',
  policies: [],
  traffic: history.traffic({ table, site, route: '' }) ?? null,
  limitVerdicts: limits,
  authVerdicts: auth,
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
