import { randomBytes } from 'node:crypto'
import { ConfigError, compileTables } from '../compile.ts'
import type { CompiledGateway, TableSource } from '../compile.ts'
import { explain, toRawRequest } from '../explain.ts'
import { createLocalLimiter } from '../local-limiter.ts'
import { readConfig, UsageError } from '../node/config.ts'
import type { Config } from '../node/config.ts'
import { loadTables } from '../node/load-tables.ts'
import { requiredVariables } from '../variables.ts'
import { readCommandLine, usage } from './command-line.ts'
import type { CommandLine } from './command-line.ts'
import { createPaint } from './paint.ts'
import { purge } from './purge.ts'
import { showExplanation, showFaults, showRoutes, showSummary, toRoutesJson } from './show.ts'

/** The program: one of its commands, and what its end is. */
export async function run(args: string[]): Promise<void> {
  try {
    const line = readCommandLine(args)
    if (line.command === 'help') return say(usage)
    const config = readConfig()
    if (line.command === 'split') return await split(line, config)
    if (line.command === 'purge') return say(await purge(line, config))
    if (line.command === 'reload') {
      const { reload } = await import('./reload.ts')
      return say(await reload({ ...line.admin, token: config.adminToken }, line.replace))
    }
    const sources = await loadTables(line.tables)
    if (line.command === 'serve') {
      const compiled = await compileTables(sources, config)
      // Loaded here: what serves takes longer to load than the other commands take to run.
      const { serve } = await import('./serve.ts')
      return await serve(line, config, sources, compiled)
    }
    if (line.command === 'diff') return await diff(line, withStandIns(line, config, sources), sources)
    await inspect(line, config, await compileTables(sources, withStandIns(line, config, sources)))
  } catch (error) {
    process.exitCode = toExitCode(error)
  }
}

async function split(line: CommandLine, config: Config): Promise<void> {
  const { askSplits, showSplits } = await import('./split.ts')
  const splits = await askSplits(line, config)
  say(line.json ? toJson(splits) : showSplits(splits, createPaint(process.stdout)))
}

async function diff(line: CommandLine, config: Config, sources: TableSource[]): Promise<void> {
  const { diffFiles, showDiff } = await import('./diff.ts')
  const found = await diffFiles(line, config, sources)
  say(line.json ? toJson(found) : showDiff(found, createPaint(process.stdout)))
  if (found.different > 0) process.exitCode = 1
}

async function inspect(line: CommandLine, config: Config, compiled: CompiledGateway): Promise<void> {
  const paint = createPaint(process.stdout)
  if (line.command === 'certs') {
    const { makeCerts, listCerts, showCerts } = await import('./certs.ts')
    if (line.action === 'dev') return say(await makeCerts(config, compiled, paint))
    const listed = await listCerts(config, compiled)
    process.exitCode = listed.every(({ state }) => state === 'ok') ? 0 : 1
    return say(line.json ? toJson(listed) : showCerts(listed, paint))
  }
  if (line.command === 'check') return say(showSummary(compiled, paint))
  if (line.command === 'routes') return say(line.json ? toJson(toRoutesJson(compiled)) : showRoutes(compiled, paint))
  const { createNodeFacts } = await import('../node/runtime.ts')
  const facts = createNodeFacts({ limiter: createLocalLimiter({ now: Date.now }), trustedHops: config.trustedHops })
  const explanation = await explain(compiled, toRawRequest(line), facts)
  say(line.json ? toJson(explanation) : showExplanation(explanation, paint))
}

/**
 * The shipped tables can be looked at on a laptop before their secrets exist: each gets one that nobody knows. Only
 * here, and where two tables are compared; serving them, and whatever else concerns one's own, wants the real ones.
 */
function withStandIns(line: CommandLine, config: Config, sources: TableSource[]): Config {
  if (line.command !== 'diff' && (line.tables.length > 0 || !config.development)) return config
  const missing = requiredVariables(sources.map(({ table }) => table)).filter((name) => !config.environment[name])
  if (missing.length === 0) return config
  process.stderr.write(
    `note: not set, stands for a random value here, and serve will ask for it: ${missing.join(', ')}\n`,
  )
  const standIns = Object.fromEntries(missing.map((name) => [name, randomBytes(48).toString('base64')]))
  return { ...config, environment: { ...config.environment, ...standIns } }
}

function toExitCode(error: unknown): number {
  const paint = createPaint(process.stderr)
  if (error instanceof ConfigError) process.stderr.write(showFaults(error.faults, paint))
  else if (error instanceof UsageError)
    for (const line of error.message.split('\n')) process.stderr.write(`${paint.bad('✗')} ${line}\n`)
  else {
    process.stderr.write(`${error instanceof Error ? error.stack : String(error)}\n`)
    return 1
  }
  return 2
}

const say = (text: string): void => void process.stdout.write(text)
const toJson = (data: unknown): string => `${JSON.stringify(data, null, 2)}\n`

// A reader that has seen enough, such as head, is no failure.
process.stdout.on('error', () => process.exit())
