import { processEnvironment } from '#origin/kit/config.ts'
import { logToOutput as log, nextSignal, runProgram } from '#origin/kit/program.ts'
import { readGpuWorkerConfig } from './config.ts'
import { startGpuWorker } from './start.ts'

await runProgram(main)

/** `node gpu-worker/main.ts`: the worker on GPU_WORKER_PORT until a signal comes. */
async function main(): Promise<void> {
  const config = readGpuWorkerConfig(processEnvironment())
  const running = await startGpuWorker({ config, log })
  log({ event: 'listening', system: 'gpu-worker', url: running.url, providers: config.providers })
  const signal = await nextSignal()
  log({ event: 'stopping', reason: signal })
  await running.stop()
}
