import type { CompiledGateway } from '../compile.ts'
import { UsageError } from '../node/config.ts'
import type { Config } from '../node/config.ts'
import { createLogSink } from '../node/log-sink.ts'
import { openLimiter } from '../node/open-limiter.ts'
import { startGateway } from '../node/serve.ts'
import { stopSignal } from '../node/stop-signal.ts'
import { createTracer } from '../node/tracer.ts'
import type { Tracer } from '../node/tracer.ts'
import { readTracingConfig } from '../node/tracing-config.ts'
import type { CommandLine } from './command-line.ts'
import { plain } from './paint.ts'
import { showExplanation } from './show.ts'

/** Serves until it is asked to stop. */
export async function serve(line: CommandLine, config: Config, compiled: CompiledGateway): Promise<void> {
  if (line.proxyProtocol.length > 0 && config.trustedHops.length === 0)
    throw new UsageError('--proxy-protocol needs DAEMUN_TRUSTED_HOPS: the networks of the proxies that may connect')
  const { limiter, counts, close } = await openLimiter(config.redisUrl, report)
  const gateway = await startGateway({
    compiled,
    limiter,
    adminHosts: config.adminHosts,
    tracer: openTracer(config),
    showExplanation: (explanation) => showExplanation(explanation, plain),
    trustedHops: config.trustedHops,
    http: { ...line.http, proxyProtocol: line.proxyProtocol.includes('http') },
    ...(line.https && {
      https: {
        ...line.https,
        proxyProtocol: line.proxyProtocol.includes('https'),
        certificates: config.certificates,
        development: config.development,
      },
    }),
    admin: line.admin,
    adminToken: config.adminToken,
    stateDirectory: config.stateDirectory,
    cacheBytes: config.cacheBytes,
    accessLog: createLogSink(1),
    report,
  })
  report(`daemun takes requests on port ${gateway.port}, operators on ${gateway.adminUrl}`)
  if (gateway.httpsPort !== undefined)
    report(`https on port ${gateway.httpsPort}, certificates from ${config.certificates}/`)
  report(`limits are counted ${counts}`)
  if (config.stateDirectory === undefined && compiled.splits.length > 0)
    report('splits begin as the tables say after each start; DAEMUN_STATE keeps what became of them')
  if (config.development) report('development: hosts also answer at *.localhost; set NODE_ENV=production on a server')
  await stopSignal()
  report('stopping: open requests may end')
  await gateway.stop()
  close()
}

const report = (text: string): void => void process.stderr.write(`${text}\n`)

/** undefined: nothing is traced. */
function openTracer({ environment }: Config): Tracer | undefined {
  const tracing = readTracingConfig(environment)
  return tracing && createTracer({ ...tracing, report })
}
