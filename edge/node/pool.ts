import { isIP } from 'node:net'
import { buildConnector, Client } from 'undici'
import type { CompiledServer, CompiledUpstream } from '../compile.ts'
import { limits } from '../limits.ts'
import { createGroup } from '../upstreams/group.ts'
import type { Group } from '../upstreams/group.ts'
import type { HealthChange } from '../upstreams/health.ts'
import { createResolver } from './resolve.ts'
import type { FollowedName, Resolver } from './resolve.ts'
import { openUndiciClient } from './undici-client.ts'
import type { UpstreamClient } from './upstream-client.ts'
import { openConnection } from './upstream-connection.ts'
import type { ServerAddress } from './upstream-connection.ts'

/** Connections to the servers of all upstreams, one request at a time on each. */
export interface Pool {
  of(upstream: CompiledUpstream): UpstreamServers
  /** Of the upstreams that are served now. */
  all(): UpstreamServers[]
  /** Serves these from now on: requests to others end as they began, and then their connections are closed. */
  keep(upstreams: CompiledUpstream[]): void
  /** Closes connections that are not in use; those in use follow when they are given back. */
  close(): Promise<void>
  /** Connections in use. */
  inUse(): number
}

export interface UpstreamServers {
  group: Group
  /** A connection to one of its servers. */
  take(index: number, which: Which): Lease
  /** A connection of its own for a check. */
  openForCheck(index: number): Client
  close(): Promise<void>
}

/** Any; one on which no request was sent before; or such a one that can be joined to a client's WebSocket. */
export type Which = 'any' | 'fresh' | 'upgrade'

export interface Lease {
  client: UpstreamClient
  /** 'http://127.0.0.1:8100'. */
  server: string
  /** Whether a request was sent on it before. */
  used: boolean
  /** Gives it back, to be used again. */
  release(): void
  /** Gives it back for good: it is lost, or was joined to a client. */
  drop(): void
}

export interface PoolOptions {
  /** Milliseconds that only grow. */
  now: () => number
  onChange: (upstream: CompiledUpstream, change: HealthChange) => void
}

export function createPool({ now, onChange }: PoolOptions): Pool {
  let current = new Map<CompiledUpstream, UpstreamServers>()
  /** Requests that began before theirs was given up find it here. */
  const known = new WeakMap<CompiledUpstream, UpstreamServers>()
  const resolver = createResolver({ now })

  function of(upstream: CompiledUpstream): UpstreamServers {
    const servers = known.get(upstream)
    if (servers) return servers
    const group = createGroup(upstream, { now, onChange: (change) => onChange(upstream, change) })
    const created = createServers(group, resolver)
    known.set(upstream, created)
    return created
  }

  function keep(upstreams: CompiledUpstream[]): void {
    const before = current
    current = new Map(upstreams.map((upstream) => [upstream, of(upstream)]))
    for (const [upstream, servers] of before) if (!current.has(upstream)) void servers.close()
  }

  return {
    of,
    all: () => [...current.values()],
    keep,
    close: async () => {
      await Promise.all([...current.values()].map((servers) => servers.close()))
    },
    inUse: () => [...current.values()].reduce((sum, { group }) => sum + group.inFlight(), 0),
  }
}

function createServers(group: Group, resolver: Resolver): UpstreamServers {
  const servers = group.upstream.servers.map((server, index) => createServer(group, index, server, resolver))
  return {
    group,
    take: (index, which) => (servers[index] as Server).take(which),
    openForCheck: (index) => (servers[index] as Server).openForCheck(),
    close: async () => {
      await Promise.all(servers.map((server) => server.close()))
    },
  }
}

interface Server {
  take(which: Which): Lease
  openForCheck(): Client
  close(): Promise<void>
}

function createServer(group: Group, index: number, { url, origin }: CompiledServer, resolver: Resolver): Server {
  const idle: Lease[] = []
  let closed = false
  const name = isAddress(url) ? undefined : resolver.follow(url.hostname)
  const { connectTimeoutMs, client: kind } = group.upstream
  const address: ServerAddress = { url, connectTimeoutMs, lookup: name?.lookup }
  let version = 0
  let sweeping = false

  function take(which: Which): Lease {
    group.begin(index)
    if (name) followName(name)
    return (which === 'any' ? takeIdle() : undefined) ?? open(which === 'upgrade')
  }

  function takeIdle(): Lease | undefined {
    for (let lease = idle.pop(); lease; lease = idle.pop()) {
      if (lease.client.isUsable()) return lease
      void lease.client.close()
    }
    return undefined
  }

  /** Closes connections that nobody has used for as long as they may be kept. */
  function sweep(): void {
    const usable = idle.filter(({ client }) => client.isUsable() || void client.close())
    idle.splice(0, idle.length, ...usable)
    sweeping = idle.length > 0
    if (sweeping) setTimeout(sweep, limits.upstreamIdleMs).unref()
  }

  /** Connections to an address that the name no longer has are not used again. */
  function followName(followed: FollowedName): void {
    followed.touch()
    if (followed.version() === version) return
    version = followed.version()
    for (const { client } of idle.splice(0)) void client.close()
  }

  function open(forUpgrade: boolean): Lease {
    const openedAt = version
    const client = forUpgrade || kind === 'undici' ? openUndiciClient(address) : openConnection(address)
    const lease: Lease = {
      client,
      server: origin,
      used: false,
      release: () => {
        group.end(index)
        lease.used = true
        if (closed || openedAt !== version || !client.isUsable()) return void client.close()
        idle.push(lease)
        if (!sweeping) sweep()
      },
      drop: () => {
        group.end(index)
        client.destroy()
      },
    }
    return lease
  }

  return {
    take,
    openForCheck: () =>
      new Client(origin, {
        connect: buildConnector({ timeout: connectTimeoutMs, ...(name && { lookup: name.lookup }) }),
        maxHeaderSize: limits.upstreamHeaderBytesMax,
      }),
    close: async () => {
      closed = true
      await Promise.all(idle.splice(0).map(({ client }) => client.close()))
    },
  }
}

const isAddress = ({ hostname }: URL): boolean => isIP(hostname.replace(/^\[|\]$/g, '')) !== 0
