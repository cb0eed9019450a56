import type { CompiledHealth } from '../compile.ts'
import type { UpstreamServers } from './pool.ts'

export interface HealthChecks {
  /** Asks these from now on, and no others. */
  keep(upstreams: UpstreamServers[]): void
  stop(): void
}

/** Asks the servers of upstreams that want it, each on its own clock so that they are not asked all at once. */
export function startHealthChecks(random: () => number): HealthChecks {
  const running = new Map<UpstreamServers, AbortController>()

  function start(servers: UpstreamServers): void {
    const { health, servers: all } = servers.group.upstream
    const stopped = new AbortController()
    running.set(servers, stopped)
    if (health) for (const index of all.keys()) checkForever({ servers, index, health, random, signal: stopped.signal })
  }

  function keep(upstreams: UpstreamServers[]): void {
    for (const [servers, stopped] of running)
      if (!upstreams.includes(servers)) {
        stopped.abort()
        running.delete(servers)
      }
    for (const servers of upstreams) if (!running.has(servers)) start(servers)
  }

  return { keep, stop: () => keep([]) }
}

interface Checking {
  servers: UpstreamServers
  index: number
  health: CompiledHealth
  random: () => number
  signal: AbortSignal
}

/** The first check at once, or nearly. */
function checkForever(checking: Checking): void {
  const { health, random, signal } = checking
  const again = (ms: number): void => {
    const timer = setTimeout(() => void look().finally(() => again(health.everyMs * (0.9 + random() * 0.2))), ms)
    timer.unref()
    if (signal.aborted) clearTimeout(timer)
    else signal.addEventListener('abort', () => clearTimeout(timer), { once: true })
  }
  const look = async (): Promise<void> => {
    const fault = await check(checking)
    if (!signal.aborted) checking.servers.group.health.checked(checking.index, fault === undefined, fault ?? '')
  }
  again(random() * health.everyMs * 0.1)
}

/** What is wrong with the server; undefined: nothing. */
async function check({ servers, index, health, signal }: Checking): Promise<string | undefined> {
  const client = servers.openForCheck(index)
  try {
    const { statusCode } = await client.request({
      path: health.path,
      method: 'GET',
      headers: { 'user-agent': 'daemun-health' },
      signal: AbortSignal.any([signal, AbortSignal.timeout(health.timeoutMs)]),
    })
    const isGood = health.status === undefined ? statusCode >= 200 && statusCode < 400 : statusCode === health.status
    return isGood ? undefined : `status ${statusCode}`
  } catch (error) {
    if (!(error instanceof Error)) return 'unknown'
    return 'code' in error && typeof error.code === 'string' ? error.code : error.name
  } finally {
    void client.destroy()
  }
}
