import { createWriteStream, mkdirSync, openSync } from 'node:fs'
import { join } from 'node:path'
import { compileTables, ConfigError, toFaultLine } from '../edge/compile.ts'
import { UsageError } from '../edge/node/config.ts'
import { loadTables } from '../edge/node/load-tables.ts'
import { createLogSink } from '../edge/node/log-sink.ts'
import { openLimiter } from '../edge/node/open-limiter.ts'
import { plain } from '../edge/cli/paint.ts'
import { showExplanation } from '../edge/cli/show.ts'
import { startGateway } from '../edge/node/serve.ts'
import { stopSignal } from '../edge/node/stop-signal.ts'
import type { Table } from '../edge/table.ts'
import { toTwin } from '../edge/twin.ts'
import { requiredVariables } from '../edge/variables.ts'
import { startEmbeddedGpuWorker, withoutEmpty } from './gpu-worker.ts'
import type { Log } from '../origin/kit/api.ts'
import { openOriginsDatabase, originSecrets, startOrigins } from '../origin/systems.ts'
import type { RunningOrigin } from '../origin/systems.ts'
import { readEmbeddedConfig } from './config.ts'
import { keepSecrets } from './secrets.ts'

/** The whole system in one process, on embedded parts: the gateway, every origin there is and the GPU worker. */
export async function runSystem(): Promise<void> {
  try {
    process.exit(await serveUntilStopped())
  } catch (error) {
    report(toFaultText(error))
    process.exit(error instanceof ConfigError || error instanceof UsageError ? 2 : 1)
  }
}

/** Resolves to the exit code. */
async function serveUntilStopped(): Promise<number> {
  const startedAt = performance.now()
  const config = readEmbeddedConfig()
  const { dataDirectory, http, admin, trustedHops } = config
  mkdirSync(dataDirectory, { recursive: true })
  const sources = await loadTables([])
  const secrets = new Set([...requiredVariables(sources.map(({ table }) => table)), ...originSecrets])
  const unset = [...secrets].filter((name) => !config.environment[name])
  const environment = { ...config.environment, ...keepSecrets(dataDirectory, unset) }

  const log = createOriginLog(dataDirectory)
  // Ended in the reverse order, also when one of them cannot start.
  await using parts = new AsyncDisposableStack()
  const embedded = await openOriginsDatabase({ dataDirectory, environment, log })
  parts.defer(async () => embedded?.close())
  const gpuWorker = await startEmbeddedGpuWorker({ environment, port: config.gpuWorkerPort, log, embedded })
  parts.defer(() => gpuWorker.stop())
  // MovieSir asks the worker, unless the environment says whom else.
  const known = { AI_SERVICE_URL: gpuWorker.url, ...withoutEmpty(environment) }
  const origins = await startOrigins({ dataDirectory, environment: known, embedded, log })
  parts.defer(() => origins.stop())
  const limiter = await openLimiter(config.redisUrl, report)
  parts.defer(async () => limiter.close())
  const compiled = await compileTables(sources, {
    ...config,
    environment: { ...environment, ...toAddresses(origins.origins) },
  })
  const gateway = await startGateway({
    compiled,
    limiter: limiter.limiter,
    trustedHops,
    http,
    admin,
    accessLog: createLogSink(openSync(join(dataDirectory, 'access.log'), 'a')),
    report,
    showExplanation: (one) => showExplanation(one, plain),
  })
  parts.defer(() => gateway.stop())
  process.stdout.write(toWelcome())

  const end = await Promise.race([stopSignal(), ...(embedded ? [embedded.failed] : [])])
  report(end instanceof Error ? `the embedded database stopped: ${end.message}` : '\nstopping: open requests may end')
  return end instanceof Error ? 1 : 0

  function toWelcome(): string {
    const tables = sources.map(({ table }) => table as Table)
    const running = new Set<string>(origins.origins.map(({ system }) => system))
    const rows = tables.map((table) => toWelcomeRow(table, gateway.port, running.has(table.name)))
    return [
      `\nDaemun is up after ${((performance.now() - startedAt) / 1_000).toFixed(1)} s\n\n`,
      ...rows,
      `\n  database   ${embedded ? `embedded PostgreSQL in ${join(dataDirectory, 'postgres')}; DATABASE_URL names a server instead` : 'the server that DATABASE_URL names'}\n`,
      `  models     ${gpuWorker.url}/v1, provider ${gpuWorker.providers.join(', ')}${gpuWorker.isDemo ? '; VLLM_URL names a real one' : ''}\n`,
      `  limits     counted ${limiter.counts}\n`,
      `  operators  ${gateway.adminUrl}/metrics\n`,
      `  logs       ${join(dataDirectory, 'access.log')}, ${join(dataDirectory, 'origins.log')}\n`,
      '\nCtrl-C stops it. What was acknowledged is kept.\n',
    ].join('')
  }
}

const titles: Record<string, string> = {
  'homework-helper': 'HomeworkHelper',
  cowrite: 'Cowrite',
  moviesir: 'MovieSir',
  maratang: 'Maratang',
  spc: 'SPC',
}

/** What is worth a look at first. */
const tries: Record<string, (url: string) => string> = {
  'homework-helper': (url) => `; try ${url}docs`,
  moviesir: (url) => `; try ${url.replace('//', '//demo.')}`,
}

function toWelcomeRow(table: Table, port: number, isRunning: boolean): string {
  const [host = ''] = table.sites[0]?.hosts ?? []
  const url = `http://${toTwin(host)}:${port}/`
  const state = isRunning
    ? `running${tries[table.name]?.(url) ?? ''}`
    : 'its page; its service is not there yet, so its API answers 502'
  return `  ${(titles[table.name] ?? table.name).padEnd(16)}${url.padEnd(46)}${state}\n`
}

/** Where the gateway finds the origins of this process, by the variables of the tables. */
const toAddresses = (origins: RunningOrigin[]): Record<string, string> =>
  Object.fromEntries(origins.map(({ system, url }) => [`${system.toUpperCase().replace(/-/g, '_')}_API`, url]))

/** Origins write lines of JSON; what is wrong is also said here. */
function createOriginLog(dataDirectory: string): Log {
  const file = createWriteStream(join(dataDirectory, 'origins.log'), { flags: 'a' })
  return (entry) => {
    file.write(`${JSON.stringify({ time: new Date().toISOString(), ...entry })}\n`)
    if ('error' in entry) report(`origin: ${JSON.stringify(entry)}`)
  }
}

function report(line: string): void {
  process.stderr.write(`${line}\n`)
}

/** A fault of the machine, the environment or the tables in words; of the program with its stack. */
function toFaultText(error: unknown): string {
  if (error instanceof ConfigError) return error.faults.map(toFaultLine).join('\n')
  const isExpected = error instanceof UsageError || (error instanceof Error && error.name === 'OriginError')
  return error instanceof Error ? (isExpected ? error.message : (error.stack ?? error.message)) : String(error)
}
