import { compileTables, ConfigError, toFaultLine } from '../compile.ts'
import { identify } from '../exchange.ts'
import { createGateway, refuse } from '../gateway.ts'
import type { Gateway } from '../gateway.ts'
import type { Environment } from '../variables.ts'
import type { Bindings } from './limiter.ts'
import type { PlatformContext, WorkerIo } from './platform.ts'
import { createWorkerRuntime, toRaw } from './runtime.ts'

export interface Worker {
  fetch(request: Request, bindings: Bindings, context: PlatformContext): Promise<Response>
}

type WorkerGateway = Gateway<WorkerIo, Response | Promise<Response>>

/** A Worker that serves tables. Variables in them stand for the bindings of the same names. */
export function createWorker(tables: unknown[]): Worker {
  const gateways = new WeakMap<Bindings, Promise<Serve>>()

  return {
    async fetch(request, bindings, context) {
      let serving = gateways.get(bindings)
      if (!serving) {
        serving = start(tables, bindings)
        gateways.set(bindings, serving)
        // Other requests wait for it as well: it must not end with the one that began it.
        context.waitUntil(serving.catch(() => {}))
      }
      try {
        const answering = serving.then((serve) => serve(request, { request, context }))
        // A client that leaves does not end the account of its request.
        context.waitUntil(answering.catch(() => {}))
        return await answering
      } catch (error) {
        console.error(
          error instanceof ConfigError ? `misconfigured:\n${error.faults.map(toFaultLine).join('\n')}` : error,
        )
        return misconfigured()
      }
    },
  }
}

type Serve = (request: Request, io: WorkerIo) => Promise<Response>

/** Once per isolate and set of bindings. */
async function start(tables: unknown[], bindings: Bindings): Promise<Serve> {
  const environment = toEnvironment(bindings)
  const { EDGE_FORWARD: mode = 'upstreams' } = environment
  if (mode !== 'upstreams' && mode !== 'zone') throw new ConfigError([unknownMode(mode)])
  const compiled = await compileTables(
    tables.map((table) => ({ table })),
    { environment, development: environment['NODE_ENV'] === 'development' },
  )
  const runtime = createWorkerRuntime(bindings)
  const gateway: WorkerGateway = createGateway(compiled, runtime)

  return async function serve(request, io) {
    const raw = toRaw(request)
    try {
      return await gateway.handle(raw, io)
    } catch (error) {
      // A fault of ours costs its own request, and says nothing of itself to the client.
      const { exchange } = identify(raw, runtime)
      console.error(`internal error, request ${exchange.requestId}`, error)
      return runtime.answer(refuse(exchange, { code: 'internal', detail: 'something went wrong in the gateway' }), io)
    }
  }
}

/** Variables and secrets; other bindings are no text. */
const toEnvironment = (bindings: Bindings): Environment =>
  Object.fromEntries(
    Object.entries(bindings).filter((entry): entry is [string, string] => typeof entry[1] === 'string'),
  )

const unknownMode = (mode: string) => ({
  table: 'worker',
  at: 'EDGE_FORWARD',
  row: undefined,
  source: undefined,
  problem: `is '${mode}'`,
  fix: "write 'zone', or leave it away to ask the tables' upstreams",
})

const misconfigured = (): Response =>
  new Response('{"type":"about:blank","title":"Misconfigured","status":500,"code":"misconfigured"}', {
    status: 500,
    headers: { 'Content-Type': 'application/problem+json', 'Cache-Control': 'no-store' },
  })
