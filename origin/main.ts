import { z } from 'zod'
import type { Environment } from './kit/config.ts'
import { numberSetting, processEnvironment, readSettings } from './kit/config.ts'
import { OriginError } from './kit/error.ts'
import { logToOutput as log, nextSignal, runProgram } from './kit/program.ts'
import type { SystemName } from './systems.ts'
import { startOrigins, systemNames } from './systems.ts'

const settings = {
  host: { from: ['API_HOST'], schema: z.string().default('127.0.0.1') },
  port: { from: ['API_PORT'], schema: numberSetting({ min: 0, max: 65_535, fallback: 8000 }) },
  dataDirectory: { from: ['DATA_DIRECTORY'], schema: z.string().default('.data') },
}

await runProgram(() => main(process.argv.slice(2), processEnvironment()))

/** `node origin/main.ts [system…]`: one origin on API_PORT, several from there upwards, until a signal comes. */
async function main(words: string[], environment: Environment): Promise<void> {
  const systems = readSystems(words)
  const { host, port, dataDirectory } = readSettings(environment, settings)
  const ports = Object.fromEntries(systems.map((system, index) => [system, port && port + index]))
  const running = await startOrigins({ systems, host, ports, dataDirectory, environment, log })
  for (const origin of running.origins) log({ event: 'listening', ...origin })

  const end = await Promise.race([nextSignal(), running.failed])
  log({ event: 'stopping', reason: String(end) })
  await running.stop()
  if (end instanceof Error) throw end
}

function readSystems(words: string[]): SystemName[] {
  const unknown = words.filter((word) => !isSystem(word))
  if (unknown.length > 0)
    throw new OriginError(
      'config_invalid',
      `No such system: ${unknown.join(', ')}; there are: ${systemNames.join(', ')}`,
    )
  return words.length > 0 ? words.filter(isSystem) : systemNames
}

function isSystem(word: string): word is SystemName {
  return systemNames.some((name) => name === word)
}
