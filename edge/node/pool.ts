import type { Socket } from 'node:net'
import { buildConnector, Client } from 'undici'
import type { CompiledUpstream } from '../compile.ts'
import { limits } from '../limits.ts'

/** Connections to the servers of all upstreams, one request at a time on each. */
export interface Pool {
  /** A connection to the upstream's next server; undefined when it has too many in use. */
  take(upstream: CompiledUpstream, fresh?: boolean): Lease | undefined
  /** Closes connections that are not in use; those in use follow when they are given back. */
  close(): Promise<void>
  /** Connections in use. */
  inUse(): number
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

export function createPool(): Pool {
  const servers = new Map<URL, Server>()
  const turns = new Map<CompiledUpstream, number>()

  function take(upstream: CompiledUpstream, fresh = false): Lease | undefined {
    const turn = turns.get(upstream) ?? 0
    if (upstream.servers.length > 1) turns.set(upstream, (turn + 1) % upstream.servers.length)
    const url = upstream.servers[turn] as URL
    let server = servers.get(url)
    if (!server) {
      server = createServer(url, upstream.connectTimeoutMs)
      servers.set(url, server)
    }
    return server.take(fresh)
  }

  return {
    take,
    close: async () => {
      await Promise.all([...servers.values()].map((server) => server.close()))
    },
    inUse: () => [...servers.values()].reduce((sum, server) => sum + server.inUse(), 0),
  }
}

interface Server {
  take(fresh: boolean): Lease | undefined
  close(): Promise<void>
  inUse(): number
}

function createServer(url: URL, connectTimeoutMs: number): Server {
  const idle: Lease[] = []
  let inUse = 0
  let closed = false

  function take(fresh: boolean): Lease | undefined {
    if (inUse >= limits.upstreamConnectionsMax) return undefined
    inUse++
    return (fresh ? undefined : idle.pop()) ?? open()
  }

  const connect = buildConnector({ timeout: connectTimeoutMs })

  function open(): Lease {
    let socket: Socket | undefined
    const client = new Client(url.origin, {
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
      server: url.origin,
      used: false,
      failed: () => socket?.errored != null,
      release: () => {
        inUse--
        lease.used = true
        if (closed) void client.close()
        else idle.push(lease)
      },
      drop: () => {
        inUse--
        void client.destroy()
      },
    }
    return lease
  }

  return {
    take,
    close: async () => {
      closed = true
      await Promise.all(idle.splice(0).map(({ client }) => client.close()))
    },
    inUse: () => inUse,
  }
}
