import { isIP } from 'node:net'
import type { Socket } from 'node:net'
import { buildConnector, Client } from 'undici'
import type { CompiledServer, CompiledUpstream } from '../compile.ts'
import { limits } from '../limits.ts'
import { createGroup } from '../upstreams/group.ts'
import type { Group } from '../upstreams/group.ts'
import type { HealthChange } from '../upstreams/health.ts'
import { createResolver } from './resolve.ts'
import type { FollowedName, Resolver } from './resolve.ts'

/** Connections to the servers of all upstreams, one request at a time on each. */
export interface Pool {
  of(upstream: CompiledUpstream): UpstreamServers
  all(): UpstreamServers[]
  /** Closes connections that are not in use; those in use follow when they are given back. */
  close(): Promise<void>
  /** Connections in use. */
  inUse(): number
}

export interface UpstreamServers {
  group: Group
  /** A connection to one of its servers, on which no request was sent before if it is to be `fresh`. */
  take(index: number, fresh: boolean): Lease
  /** A connection of its own for a check. */
  openForCheck(index: number): Client
  close(): Promise<void>
}

export interface Lease {
  client: Client
  /** 'http://127.0.0.1:8100'. */
  server: string
  /** Whether a request was sent on it before. */
  used: boolean
  /** Whether its connection has failed, as the system sees it. */
  failed(): boolean
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
  const known = new Map<CompiledUpstream, UpstreamServers>()
  const resolver = createResolver({ now })

  function of(upstream: CompiledUpstream): UpstreamServers {
    const servers = known.get(upstream)
    if (servers) return servers
    const group = createGroup(upstream, { now, onChange: (change) => onChange(upstream, change) })
    const created = createServers(group, resolver)
    known.set(upstream, created)
    return created
  }

  return {
    of,
    all: () => [...known.values()],
    close: async () => {
      await Promise.all([...known.values()].map((servers) => servers.close()))
    },
    inUse: () => [...known.values()].reduce((sum, { group }) => sum + group.inFlight(), 0),
  }
}

function createServers(group: Group, resolver: Resolver): UpstreamServers {
  const servers = group.upstream.servers.map((server, index) => createServer(group, index, server, resolver))
  return {
    group,
    take: (index, fresh) => (servers[index] as Server).take(fresh),
    openForCheck: (index) => (servers[index] as Server).openForCheck(),
    close: async () => {
      await Promise.all(servers.map((server) => server.close()))
    },
  }
}

interface Server {
  take(fresh: boolean): Lease
  openForCheck(): Client
  close(): Promise<void>
}

function createServer(group: Group, index: number, { url, origin }: CompiledServer, resolver: Resolver): Server {
  const idle: Lease[] = []
  let closed = false
  const name = isAddress(url) ? undefined : resolver.follow(url.hostname)
  const connect = buildConnector({
    timeout: group.upstream.connectTimeoutMs,
    ...(name && { lookup: name.lookup }),
  })
  let version = 0

  function take(fresh: boolean): Lease {
    group.begin(index)
    if (name) followName(name)
    return (fresh ? undefined : idle.pop()) ?? open()
  }

  /** Connections to an address that the name no longer has are not used again. */
  function followName(followed: FollowedName): void {
    followed.touch()
    if (followed.version() === version) return
    version = followed.version()
    for (const { client } of idle.splice(0)) void client.close()
  }

  function open(): Lease {
    let socket: Socket | undefined
    const openedAt = version
    const client = new Client(origin, {
      pipelining: 1,
      connect: (options, callback) =>
        connect(options, (...result) => {
          socket = result[1] ?? undefined
          callback(...result)
        }),
      keepAliveTimeout: limits.upstreamIdleMs,
      maxHeaderSize: limits.upstreamHeaderBytesMax,
      strictContentLength: true,
    })
    const lease: Lease = {
      client,
      server: origin,
      used: false,
      failed: () => socket?.errored != null,
      release: () => {
        group.end(index)
        lease.used = true
        if (closed || openedAt !== version) void client.close()
        else idle.push(lease)
      },
      drop: () => {
        group.end(index)
        void client.destroy()
      },
    }
    return lease
  }

  return {
    take,
    openForCheck: () => new Client(origin, { connect, maxHeaderSize: limits.upstreamHeaderBytesMax }),
    close: async () => {
      closed = true
      await Promise.all(idle.splice(0).map(({ client }) => client.close()))
    },
  }
}

const isAddress = ({ hostname }: URL): boolean => isIP(hostname.replace(/^\[|\]$/g, '')) !== 0
