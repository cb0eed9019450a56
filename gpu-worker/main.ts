import { processEnvironment } from '#origin/kit/config.ts'
import { OriginError } from '#origin/kit/error.ts'
import { readGpuWorkerConfig } from './config.ts'
import { startGpuWorker } from './start.ts'

try {
  await main()
} catch (error) {
  console.error(error instanceof OriginError ? error.message : error)
  process.exitCode = error instanceof OriginError && error.code === 'config_invalid' ? 2 : 1
}

/** `node gpu-worker/main.ts`: the worker on GPU_WORKER_PORT until a signal comes. */
async function main(): Promise<void> {
  const config = readGpuWorkerConfig(processEnvironment())
  const running = await startGpuWorker({ config, log })
  log({ event: 'listening', system: 'gpu-worker', url: running.url, providers: config.providers })
  const signal = await nextSignal()
  log({ event: 'stopping', reason: signal })
  await running.stop()
}

// The same signal may come twice, from the terminal and from the program that started this one: stopping is bounded in
// time, so what comes after the first is ignored.
function nextSignal(): Promise<NodeJS.Signals> {
  return new Promise((resolve) => {
    process.on('SIGINT', resolve)
    process.on('SIGTERM', resolve)
  })
}

function log(entry: Record<string, unknown>): void {
  console.log(JSON.stringify({ time: new Date().toISOString(), ...entry }))
}
