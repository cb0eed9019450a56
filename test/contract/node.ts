import { readNetwork } from '#edge/address.ts'
import type { Network } from '#edge/address.ts'
import { compileTables } from '#edge/compile.ts'
import { createLocalLimiter } from '#edge/local-limiter.ts'
import { startGateway } from '#edge/node/serve.ts'
import type { Environment } from '#edge/variables.ts'
import { createHttp2Client } from './http2-client.ts'
import { createLogbook } from './logbook.ts'
import type { Target } from './suite.ts'
import { tables } from './tables.ts'
import { createWireClient } from './wire-client.ts'
import type { ToHopFields } from './wire-client.ts'

const anyPort = { host: '127.0.0.1', port: 0 }

/** The contract's tables behind a listener of this process; asked over HTTP/1.1, or over HTTP/2 and TLS. */
export async function startNode(
  environment: Environment,
  version: 'HTTP/1.1' | 'HTTP/2' = 'HTTP/1.1',
): Promise<Target & { port: number }> {
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
    ...(version === 'HTTP/2' && { https: { ...anyPort, certificates: 'test/contract/none', development: true } }),
    admin: anyPort,
    accessLog: { write: logbook.write, dropped: () => 0, flush: () => Promise.resolve() },
    report: (line) => void (line.includes('stands in') || process.stderr.write(`${line}\n`)),
  })
  const toHopFields: ToHopFields = ({ from, secure }) => [
    ...(from === undefined ? [] : ([['X-Forwarded-For', from]] as [string, string][])),
    ['X-Forwarded-Proto', secure ? 'https' : 'http'],
  ]
  const client =
    gateway.httpsPort === undefined
      ? createWireClient(gateway.port, toHopFields)
      : createHttp2Client(gateway.httpsPort, toHopFields)
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
