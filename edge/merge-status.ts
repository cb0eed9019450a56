import { limits } from './limits.ts'
import type { RecentRequest } from './recent.ts'
import type { Status } from './status.ts'

/** The part of a status that each process knows of itself: what is open, what is kept, what went wrong last. */
type OwnStatus = Pick<Status, (typeof sums)[number] | 'upstreams' | 'certificates' | 'cache' | Lists>
type Lists = 'failedRequests' | 'refusedRequests'
type UpstreamStatus = Status['upstreams'][number]
type ServerStatus = UpstreamStatus['servers'][number]

/** What several processes say of themselves, as if one did. What is so for all is as bad as it is for one. */
export function mergeStatuses(statuses: Status[]): OwnStatus {
  const caches = statuses.flatMap(({ cache }) => cache ?? [])
  return {
    ...(Object.fromEntries(sums.map((name) => [name, sum(statuses, name)])) as Record<(typeof sums)[number], number>),
    upstreams: mergeBy(
      statuses.flatMap(({ upstreams }) => upstreams),
      ({ id }) => id,
      mergeUpstream,
    ),
    certificates: mergeBy(
      statuses.flatMap(({ certificates }) => certificates),
      ({ host }) => host,
      (one, other) => (other.daysLeft < one.daysLeft ? other : one),
    ),
    cache: caches.length === 0 ? null : { entries: sum(caches, 'entries'), bytes: sum(caches, 'bytes') },
    failedRequests: toNewest(statuses.flatMap(({ failedRequests }) => failedRequests)),
    refusedRequests: toNewest(statuses.flatMap(({ refusedRequests }) => refusedRequests)),
  }
}

const sums = ['openRequests', 'clientConnections', 'upstreamConnections', 'webSockets', 'droppedLogLines'] as const

const sum = <Name extends string>(all: Record<Name, number>[], name: Name): number =>
  all.reduce((total, one) => total + one[name], 0)

const mergeUpstream = (one: UpstreamStatus, other: UpstreamStatus): UpstreamStatus => ({
  ...one,
  inFlight: one.inFlight + other.inFlight,
  inFlightMax: one.inFlightMax + other.inFlightMax,
  retries: one.retries + other.retries,
  servers: mergeBy([...one.servers, ...other.servers], ({ url }) => url, mergeServer),
})

/** Each process looks after the health of servers by itself: the change that is shown is the last of any. */
function mergeServer(one: ServerStatus, other: ServerStatus): ServerStatus {
  const last = (other.changedAt ?? '') > (one.changedAt ?? '') ? other : one
  return {
    ...one,
    up: one.up && other.up,
    share: Math.min(one.share, other.share),
    inFlight: one.inFlight + other.inFlight,
    ejections: one.ejections + other.ejections,
    changedAt: last.changedAt,
    reason: last.reason,
  }
}

const toNewest = (requests: RecentRequest[]): RecentRequest[] =>
  requests.toSorted((one, other) => other.time.localeCompare(one.time)).slice(0, limits.recentMax)

/** In the order in which they first come. */
function mergeBy<Item>(items: Item[], toKey: (item: Item) => string, merge: (one: Item, other: Item) => Item): Item[] {
  const merged = new Map<string, Item>()
  for (const item of items) {
    const known = merged.get(toKey(item))
    merged.set(toKey(item), known === undefined ? item : merge(known, item))
  }
  return [...merged.values()]
}
