import { readNetwork } from '#edge/address.ts'
import type { Network } from '#edge/address.ts'
import { compileTables } from '#edge/compile.ts'
import { createLocalLimiter } from '#edge/local-limiter.ts'
import { startGateway } from '#edge/node/serve.ts'
import type { Environment } from '#edge/variables.ts'
import { createLogbook } from './logbook.ts'
import type { Target } from './suite.ts'
import { tables } from './tables.ts'
import { createWireClient } from './wire-client.ts'

const anyPort = { host: '127.0.0.1', port: 0 }

/** The contract's tables behind a listener of this process. */
export async function startNode(environment: Environment): Promise<Target & { port: number }> {
  const logbook = createLogbook()
  const compiled = await compileTables(
    tables.map((table) => ({ table })),
    { environment: { ...environment, FILES: 'test/contract/' }, development: true },
  )
  const gateway = await startGateway({
    compiled,
    limiter: createLocalLimiter({ now: Date.now }),
    // The test's client is a hop that says whom it speaks for.
    trustedHops: [readNetwork('127.0.0.1') as Network],
    http: anyPort,
    admin: anyPort,
    accessLog: { write: logbook.write, dropped: () => 0, flush: () => Promise.resolve() },
    report: (line) => process.stderr.write(`${line}\n`),
  })
  const client = createWireClient(gateway.port, ({ from, secure }) => [
    ...(from === undefined ? [] : ([['X-Forwarded-For', from]] as [string, string][])),
    ...(secure ? ([['X-Forwarded-Proto', 'https']] as [string, string][]) : []),
  ])
  return {
    ...client,
    logbook,
    port: gateway.port,
    async close() {
      client.close()
      await gateway.stop()
    },
  }
}
