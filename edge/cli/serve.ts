import type { CompiledGateway } from '../compile.ts'
import type { Config } from '../node/config.ts'
import { createLogSink } from '../node/log-sink.ts'
import { openLimiter } from '../node/open-limiter.ts'
import { startGateway } from '../node/serve.ts'
import { stopSignal } from '../node/stop-signal.ts'
import type { CommandLine } from './command-line.ts'

/** Serves until it is asked to stop. */
export async function serve(line: CommandLine, config: Config, compiled: CompiledGateway): Promise<void> {
  const { limiter, counts, close } = await openLimiter(config.redisUrl, report)
  const gateway = await startGateway({
    compiled,
    limiter,
    trustedHops: config.trustedHops,
    http: line.http,
    admin: line.admin,
    accessLog: createLogSink(1),
    report,
  })
  report(`daemun takes requests on port ${gateway.port}, operators on ${gateway.adminUrl}`)
  report(`limits are counted ${counts}`)
  if (config.development) report('development: hosts also answer at *.localhost; set NODE_ENV=production on a server')
  await stopSignal()
  report('stopping: open requests may end')
  await gateway.stop()
  close()
}

const report = (text: string): void => void process.stderr.write(`${text}\n`)
