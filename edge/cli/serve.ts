import { compileTables } from '../compile.ts'
import type { CompiledGateway, TableSource } from '../compile.ts'
import { readConfig, UsageError } from '../node/config.ts'
import type { Config } from '../node/config.ts'
import type { ListenOn } from '../node/listen-on.ts'
import { loadTablesAfresh } from '../node/load-tables-afresh.ts'
import { createLogSink } from '../node/log-sink.ts'
import { openLimiter } from '../node/open-limiter.ts'
import { createReloader } from '../node/reload.ts'
import { startGateway } from '../node/serve.ts'
import type { ProxyProtocol } from '../node/serve.ts'
import { stopSignal } from '../node/stop-signal.ts'
import { startSupervisor } from '../node/supervisor.ts'
import { createNotifier } from '../node/systemd.ts'
import { openTracer } from '../node/tracer.ts'
import type { Served } from '../node/worker-protocol.ts'
import type { CommandLine } from './command-line.ts'
import { plain } from './paint.ts'
import { showExplanation } from './show.ts'

/** What serves: this process, or its workers. */
interface Running {
  port: number
  httpsPort: number | undefined
  adminUrl: string
  /** Where limits are counted, for a person. */
  counts: string
  swap(served: Served, compiled: CompiledGateway): Promise<void>
  replaceWorkers?(): Promise<void>
  stop(): Promise<void>
}

/** Serves until it is asked to stop, and by its tables as they are when it is asked to read them again. */
export async function serve(
  line: CommandLine,
  config: Config,
  sources: TableSource[],
  compiled: CompiledGateway,
): Promise<void> {
  if (line.proxyProtocol.length > 0 && config.trustedHops.length === 0)
    throw new UsageError('--proxy-protocol needs DAEMUN_TRUSTED_HOPS: the networks of the proxies that may connect')
  let current = compiled

  async function change(): Promise<string[]> {
    const next = readConfig()
    const served = { sources: await loadTablesAfresh(line.tables), environment: next.environment }
    current = await compileTables(served.sources, { ...served, development: config.development, previous: current })
    await running.swap(served, current)
    return findRestarts(config, next)
  }

  const notifier = createNotifier(config.systemd, report)
  const reloader = createReloader({
    change: () => {
      notifier.reloading()
      return change().then(
        (restarts) => {
          notifier.ready('serving')
          return restarts
        },
        (error: unknown) => {
          notifier.ready('serving, but the last reload was refused')
          throw error
        },
      )
    },
    report,
  })
  const { promise: broken, resolve: giveUp } = Promise.withResolvers<{ why: string }>()
  // Who knows what it has broken. Only the first is told: telling may be what is broken.
  process.on('uncaughtException', (error) => giveUp({ why: error.stack ?? error.message }))
  // Heard from the start: workers take requests before this process knows that all of them do.
  const stopped = stopSignal()
  let isUp = false
  process.on('SIGHUP', () => void (isUp && reloader.reload()))
  process.on('SIGUSR2', () => void (isUp && running.replaceWorkers?.().catch(() => {})))
  const { http, https } = readSockets(line, config)
  const running = await (line.workers === 1 ? serveAlone() : serveWithWorkers())
  report(`daemun takes requests on port ${running.port}, operators on ${running.adminUrl}`)
  if (running.httpsPort !== undefined)
    report(`https on port ${running.httpsPort}, certificates from ${config.certificates}/`)
  if (line.workers > 1) report(`${line.workers} workers share the ports`)
  report(`limits are counted ${running.counts}`)
  if (config.stateDirectory === undefined && compiled.splits.length > 0)
    report('splits begin as the tables say after each start; DAEMUN_STATE keeps what became of them')
  if (config.development) report('development: hosts also answer at *.localhost; set NODE_ENV=production on a server')
  notifier.ready('serving')
  isUp = true
  const end = await Promise.race([stopped, broken])
  report(typeof end === 'string' ? 'stopping: open requests may end' : `broken, ends: ${end.why}`)
  notifier.stopping()
  await running.stop()
  notifier.close()
  if (typeof end !== 'string') process.exit(1)

  async function serveAlone(): Promise<Running> {
    const { limiter, counts, close } = await openLimiter(config.redisUrl, report)
    const gateway = await startGateway({
      compiled,
      limiter,
      adminHosts: config.adminHosts,
      tracer: openTracer(config.environment, report),
      showExplanation: (explanation) => showExplanation(explanation, plain),
      trustedHops: config.trustedHops,
      http,
      ...(https && {
        https: { ...https, certificates: config.certificates, development: config.development },
      }),
      admin: line.admin,
      adminToken: config.adminToken,
      stateDirectory: config.stateDirectory,
      cacheBytes: config.cacheBytes,
      reloader,
      accessLog: createLogSink(1),
      report,
    })
    return {
      ...gateway,
      counts,
      swap: (_, next) => gateway.swap(next),
      stop: async () => {
        await gateway.stop()
        close()
      },
    }
  }

  async function serveWithWorkers(): Promise<Running> {
    const { workers, admin } = line
    const onHopeless = (): void => giveUp({ why: 'no worker stays alive' })
    const supervisor = await startSupervisor({
      workers,
      program: new URL('worker-process.ts', import.meta.url),
      config,
      sources,
      compiled,
      http,
      https,
      admin,
      reloader,
      report,
      onHopeless,
    })
    return {
      ...supervisor,
      counts: config.redisUrl === undefined ? 'in the supervisor; REDIS_URL shares them' : 'in Redis',
    }
  }
}

/** Those that the service manager has opened, else those of the command line. */
function readSockets({ http, https, proxyProtocol }: CommandLine, { systemd: { sockets } }: Config): Sockets {
  const secure = sockets.https === undefined ? https : { descriptor: sockets.https }
  return {
    http: {
      ...(sockets.http === undefined ? http : { descriptor: sockets.http }),
      proxyProtocol: proxyProtocol.includes('http'),
    },
    https: secure && { ...secure, proxyProtocol: proxyProtocol.includes('https') },
  }
}

interface Sockets {
  http: ListenOn & ProxyProtocol
  https: (ListenOn & ProxyProtocol) | undefined
}

/** What a reload leaves as it was at the start. */
function findRestarts(before: Config, after: Config): string[] {
  const changed = restarts.filter(({ of }) => JSON.stringify(of(before)) !== JSON.stringify(of(after)))
  return changed.map(({ name }) => `${name} has changed, which takes a restart`)
}

const restarts: { name: string; of: (config: Config) => unknown }[] = [
  { name: 'NODE_ENV', of: ({ development }) => development },
  { name: 'REDIS_URL', of: ({ redisUrl }) => redisUrl },
  { name: 'DAEMUN_TRUSTED_HOPS', of: ({ trustedHops }) => trustedHops },
  { name: 'DAEMUN_CERTIFICATES', of: ({ certificates }) => certificates },
  { name: 'DAEMUN_CACHE_BYTES', of: ({ cacheBytes }) => cacheBytes },
  { name: 'DAEMUN_STATE', of: ({ stateDirectory }) => stateDirectory },
  { name: 'DAEMUN_ADMIN_TOKEN', of: ({ adminToken }) => adminToken },
]

const report = (text: string): void => void process.stderr.write(`${text}\n`)
