import { fileURLToPath } from 'node:url'
import { unstable_startWorker as startWorker } from 'wrangler'
import type { Environment } from '#edge/variables.ts'
import { createLogbook } from './logbook.ts'
import { createWireClient } from './wire-client.ts'

/** The contract's tables in workerd, bundled as for the platform; one more process. */
export async function startWorkerd(environment: Environment) {
  const logbook = createLogbook()
  const worker = await startWorker({
    name: 'contract',
    config: fileURLToPath(new URL('wrangler.toml', import.meta.url)),
    bindings: Object.fromEntries(
      Object.entries(environment).map(([name, value]) => [name, { type: 'plain_text' as const, value: value ?? '' }]),
    ),
    dev: {
      server: { hostname: '127.0.0.1', port: 0 },
      inspector: false,
      watch: false,
      persist: false,
      logLevel: 'none',
      structuredLogsHandler: ({ message }: { message: string }) => logbook.write(message),
    },
  })
  // The first answer comes when all is up; the development proxy, which it came through, is then passed by.
  await worker.fetch('http://nobody.example/')
  const url = await worker.raw.runtimes[0]?.mf?.ready
  const client = createWireClient(Number(url?.port), ({ from, secure }) => [
    ...(from === undefined ? [] : ([['CF-Connecting-IP', from]] as [string, string][])),
    ...(secure ? ([['X-Forwarded-Proto', 'https']] as [string, string][]) : []),
  ])
  return {
    ...client,
    logbook,
    async close() {
      client.close()
      await worker.dispose()
    },
  }
}
