import { toClientHeaders } from '#edge/actions/headers.ts'
import { readAddress } from '#edge/address.ts'
import { compileTables } from '#edge/compile.ts'
import { createGateway, refuse } from '#edge/gateway.ts'
import { createLocalLimiter } from '#edge/local-limiter.ts'
import type { ProxyPlan } from '#edge/plan.ts'
import type { Runtime } from '#edge/runtime.ts'
import { answerAsOrigin } from '../support/origin.ts'
import type { OriginAnswer } from '../support/origin.ts'
import { createMemoryCache } from './memory-cache.ts'
import { runSuite } from './suite.ts'
import type { ContractRequest, ContractResponse } from './suite.ts'
import { tables } from './tables.ts'

const wire = 'there is no connection in memory'

/** The core alone: what it decides is carried out by a function that stands in for the origin. */
runSuite('memory', {
  async start(environment, origin) {
    const options = { environment, development: true }
    const cache = createMemoryCache()
    const gateway = createGateway(
      await compileTables(
        tables.map((table) => ({ table })),
        options,
      ),
      createMemoryRuntime(origin.url),
    )
    return {
      fetch: async (request) => gateway.handle(toRaw(request), { body: await readBody(request.body) }),
      connectWebSocket: () => Promise.reject(new Error(wire)),
      close: () => Promise.resolve(),
    }

    /** The origin's key set is read where it is; nothing else is fetched. */
    function createMemoryRuntime(originUrl: string): Runtime<{ body: Uint8Array }, ContractResponse> {
      const runtime: Runtime<{ body: Uint8Array }, ContractResponse> = {
        clientAddress({ peer, secure }) {
          const address = readAddress(peer)
          if (!address) throw new Error(`'${peer}' is no address`)
          return { address, scheme: secure ? 'https' : 'http' }
        },
        isEdge: false,
        limiter: createLocalLimiter({ now: Date.now }),
        async fetchText(url) {
          if (url !== `${originUrl}/jwks.json`) throw new Error('nothing is fetched but the key set')
          origin.keySetAsked++
          return JSON.stringify(origin.keySet)
        },
        now: Date.now,
        monotonic: () => performance.now(),
        randomId: () => crypto.randomUUID(),
        answer: ({ status, headers, body, exchange }) =>
          toResponse(
            status,
            [...headers, 'Content-Length', String(Buffer.byteLength(body))],
            exchange.method === 'HEAD' ? '' : body,
          ),
        forward: (plan, { body }) => forward(plan, body),
        readAsset: () => {
          throw new Error('there are no files in memory')
        },
      }

      function forward(plan: ProxyPlan, body: Uint8Array): ContractResponse {
        const { exchange, upstream, headers, target } = plan
        const refusal = {
          code: 'upstream_unreachable',
          detail: 'the upstream cannot be reached',
          limit: { name: 'attempts', value: 1 },
        } as const
        if (upstream.servers[0]?.origin !== originUrl) return runtime.answer(refuse(exchange, refusal), { body })
        const asked = (sent: string[]): OriginAnswer => {
          const answer = answerAsOrigin({ method: exchange.method, target, headers: sent, body })
          if (!answer) throw new Error(`the origin in memory does not know ${target}`)
          return answer
        }
        const pass = (answer: OriginAnswer): ContractResponse =>
          toResponse(
            answer.status,
            toClientHeaders(exchange, plan.response, answer.status, answer.headers),
            answer.body,
          )
        if (!plan.cache) return pass(asked(headers))
        return cache.serve(plan, plan.cache, {
          ask: asked,
          pass,
          respond: toResponse,
          refuse: (why) => runtime.answer(refuse(exchange, why), { body }),
        })
      }

      return runtime
    }
  },
  skips: {
    'tells how long gateway and upstream took, where the site says so': 'the runtime adds it, when it has an answer',
    files: 'files are the business of Node and Workers',
    WebSockets: wire,
    'access log': 'the runtime writes it, when a request has ended',
    upstreams: 'which server is asked, and again, is the business of Node and Workers',
    streaming: `${wire}: bodies are whole`,
  },
})

function toRaw({
  host,
  target,
  method = 'GET',
  headers = [],
  body,
  from = '192.0.2.9',
  secure = false,
}: ContractRequest) {
  const framing =
    body === undefined
      ? []
      : typeof body === 'string'
        ? ['Content-Length', String(Buffer.byteLength(body))]
        : ['Transfer-Encoding', 'chunked']
  return { method, target, version: '1.1', headers: ['Host', host, ...headers.flat(), ...framing], peer: from, secure }
}

async function readBody(body: ContractRequest['body'] = ''): Promise<Uint8Array> {
  if (typeof body === 'string' || body instanceof Uint8Array) return Buffer.from(body)
  const chunks: Uint8Array[] = []
  for await (const chunk of body) chunks.push(chunk)
  return Buffer.concat(chunks)
}

async function* toBody(body: string | Uint8Array): AsyncGenerator<Uint8Array> {
  yield Buffer.from(body)
}

const toResponse = (status: number, headers: string[], body: string | Uint8Array): ContractResponse => ({
  status,
  headers,
  body: toBody(body),
})
