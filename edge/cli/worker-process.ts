import { compileTables } from '../compile.ts'
import type { CompiledGateway } from '../compile.ts'
import { limits } from '../limits.ts'
import { createLocalLimiter } from '../local-limiter.ts'
import type { Limiter } from '../runtime.ts'
import { createChannel } from '../node/channel.ts'
import type { Channel } from '../node/channel.ts'
import { createChannelLimiter } from '../node/channel-limiter.ts'
import { createLogSink } from '../node/log-sink.ts'
import { openLimiter } from '../node/open-limiter.ts'
import { startGateway } from '../node/serve.ts'
import type { RunningGateway } from '../node/serve.ts'
import { openTracer } from '../node/tracer.ts'
import { plain } from './paint.ts'
import { showExplanation } from './show.ts'
import type {
  AdminAnswer,
  AdminRequest,
  Ports,
  Served,
  StartOrder,
  Told,
  ToSupervisor,
  ToWorker,
} from '../node/worker-protocol.ts'

// One worker of `serve --workers`: the gateway on sockets that the supervisor has bound and that outlive it.

let gateway: RunningGateway | undefined
let order: StartOrder | undefined
let compiled: CompiledGateway | undefined
let stopping: Promise<void> | undefined

const channel: Channel<ToSupervisor> = createChannel<ToSupervisor, ToWorker>(process, {
  start,
  swap,
  admin,
  weights: ({ id, weights }) => gateway?.splits.setWeights(id, weights),
  reports: () => gateway?.splits.takeReports() ?? [],
  tell,
  ping: () => {},
  drain: async () => {
    await stop()
    return tell()
  },
})

// The supervisor decides when it is time; what a terminal sends goes to all processes in it.
for (const signal of ['SIGINT', 'SIGHUP'] as const) process.on(signal, () => {})
process.on('SIGTERM', () => void stop().finally(() => process.exit()))
process.on('disconnect', () => void stop().finally(() => process.exit()))
process.on('uncaughtException', fail)
process.on('unhandledRejection', fail)

async function start(given: StartOrder): Promise<Ports> {
  order = given
  const { development, environment, trustedHops, redisUrl, adminToken, adminHosts, cacheBytes, http, https, weights } =
    given
  compiled = await compile(given)
  gateway = await startGateway({
    compiled,
    limiter: await chooseLimiter(redisUrl),
    trustedHops,
    http,
    weights,
    ...(https && { https: { ...https, development } }),
    adminToken,
    adminHosts,
    cacheBytes,
    tracer: openTracer(environment, report),
    showExplanation: (explanation) => showExplanation(explanation, plain),
    accessLog: createLogSink(1, { shared: true }),
    report,
  })
  return { http: gateway.port, https: gateway.httpsPort }
}

async function swap(served: Served): Promise<void> {
  compiled = await compile(served)
  await gateway?.swap(compiled)
}

const compile = ({ sources, environment }: Served): Promise<CompiledGateway> =>
  compileTables(sources, { environment, development: order?.development ?? false, previous: compiled })

/** With Redis all gateways count there; else the workers count in their supervisor. */
async function chooseLimiter(redisUrl: string | undefined): Promise<Limiter> {
  if (redisUrl !== undefined) return (await openLimiter(redisUrl, report)).limiter
  const local = createLocalLimiter({ now: Date.now })
  return createChannelLimiter(channel, { local, now: Date.now })
}

async function admin({ method, url, headers, body, from }: AdminRequest): Promise<AdminAnswer> {
  if (!gateway) throw new Error('not started yet')
  // As the listener of a gateway alone would say who asks.
  const env = { incoming: { socket: { remoteAddress: from } } }
  const answer = await gateway.adminApp.request(url, { method, headers, ...(body.length > 0 && { body }) }, env)
  return {
    status: answer.status,
    headers: [...answer.headers],
    body: new Uint8Array(await answer.arrayBuffer()),
  }
}

function tell(): Told {
  if (!gateway) throw new Error('not started yet')
  return gateway.tell()
}

function stop(): Promise<void> {
  stopping ??= gateway?.stop() ?? Promise.resolve()
  return stopping
}

/** Who knows what it has broken: another one takes over, and this one ends with the requests it has. */
function fail(error: unknown): void {
  report(`broken, ends: ${error instanceof Error ? error.stack : String(error)}`)
  if (!stopping) void askForAnother()
}

async function askForAnother(): Promise<void> {
  try {
    await channel.ask('failing', undefined, limits.workerStartMs)
  } catch {
    await stop()
    process.exit(1)
  }
}

function report(line: string): void {
  process.stderr.write(`worker ${process.pid}: ${line}\n`)
}
