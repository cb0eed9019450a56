import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'

/** A span as a collector reads it. */
interface CollectedSpan {
  traceId: string
  spanId: string
  parentSpanId: string | undefined
  traceState: string | undefined
  name: string
  kind: number
  /** Milliseconds. */
  durationMs: number
  attributes: Record<string, string | number>
  isError: boolean
}

export interface Collector {
  /** 'http://127.0.0.1:…' */
  url: string
  spans(): CollectedSpan[]
  /** The fields of each request, and the attributes of the resource that it told of. */
  requests: { path: string; headers: Record<string, unknown>; resource: Record<string, string | number> }[]
  /** What it answers with; undefined: it says nothing. */
  status: number | undefined
  /** Resolves when it has so many spans. */
  has(count: number): Promise<CollectedSpan[]>
  close(): Promise<void>
}

/** Takes spans by OTLP over HTTP with JSON, as a collector would. */
export async function startCollector(): Promise<Collector> {
  const collected: CollectedSpan[] = []
  let heard = Promise.withResolvers<void>()
  const server = createServer(async (request, response) => {
    let text = ''
    for await (const chunk of request) text += String(chunk)
    if (collector.status === undefined) return
    const { resourceSpans } = JSON.parse(text)
    for (const { resource, scopeSpans } of resourceSpans) {
      const path = request.url ?? ''
      collector.requests.push({ path, headers: request.headers, resource: toValues(resource.attributes) })
      if (collector.status < 300) for (const { spans } of scopeSpans) collected.push(...spans.map(toCollected))
    }
    response.writeHead(collector.status, { 'Content-Type': 'application/json' }).end('{}')
    heard.resolve()
    heard = Promise.withResolvers()
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const collector: Collector = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    spans: () => collected,
    requests: [],
    status: 200,
    async has(count) {
      while (collected.length < count) await heard.promise
      return collected
    },
    async close() {
      const closed = once(server, 'close')
      server.close()
      server.closeAllConnections()
      await closed
    },
  }
  return collector
}

interface Sent {
  traceId: string
  spanId: string
  parentSpanId?: string
  traceState?: string
  name: string
  kind: number
  startTimeUnixNano: string
  endTimeUnixNano: string
  attributes: { key: string; value: { stringValue?: string; intValue?: string } }[]
  status: { code?: number }
}

const toCollected = (span: Sent): CollectedSpan => ({
  traceId: span.traceId,
  spanId: span.spanId,
  parentSpanId: span.parentSpanId,
  traceState: span.traceState,
  name: span.name,
  kind: span.kind,
  durationMs: Number(BigInt(span.endTimeUnixNano) - BigInt(span.startTimeUnixNano)) / 1e6,
  attributes: toValues(span.attributes),
  isError: span.status.code === 2,
})

const toValues = (attributes: Sent['attributes']): Record<string, string | number> =>
  Object.fromEntries(
    attributes.map(({ key, value }) => [key, value.stringValue ?? Number(value.intValue)] as [string, string | number]),
  )
