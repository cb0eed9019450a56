import { plain } from '#edge/cli/paint.ts'
import { showExplanation } from '#edge/cli/show.ts'
import { compileTables } from '#edge/compile.ts'
import type { CompiledGateway } from '#edge/compile.ts'
import { createLocalLimiter } from '#edge/local-limiter.ts'
import { startGateway } from '#edge/node/serve.ts'
import type { ServeOptions } from '#edge/node/serve.ts'
import type { Table, UpstreamClientName } from '#edge/table.ts'

export interface TestGateway {
  port: number
  /** 0 without TLS. */
  httpsPort: number
  adminUrl: string
  /** The access log, a line each, parsed. */
  log(): Record<string, unknown>[]
  /** All that was written to the log and reported to operators, as text. */
  output(): string
  metrics(): Promise<string>
  /** The value of a gauge or counter, 0 when it is not there; `series` is its name with its labels. */
  metric(series: string): Promise<number>
  /** Resolves when no request is being served and no connection to an upstream is in use. */
  settled(): Promise<void>
  /** Serves by another table from now on. */
  swap(table: Table): Promise<void>
  stop(): Promise<void>
}

const settleMs = 10_000

let upstreamClient: UpstreamClientName | undefined

/** From now on, what asks the upstreams of all gateways that are started here. */
export function setUpstreamClient(name: UpstreamClientName): void {
  upstreamClient = name
}

const withClient = ({ upstreams = {}, ...table }: Table, client: UpstreamClientName): Table => ({
  ...table,
  upstreams: Object.fromEntries(
    Object.entries(upstreams).map(([name, upstream]) => [name, { ...upstream, upstreamClient: client }]),
  ),
})

/** A gateway on loopback with one table, its log kept in memory. */
export async function startTestGateway(table: Table, options: Partial<ServeOptions> = {}): Promise<TestGateway> {
  const compile = (written: Table, previous?: CompiledGateway): Promise<CompiledGateway> => {
    const one = upstreamClient ? withClient(written, upstreamClient) : written
    return compileTables([{ table: one, file: 'test.ts' }], { environment: {}, development: false, previous })
  }
  let compiled = await compile(table)
  const lines: string[] = []
  const reports: string[] = []
  const gateway = await startGateway({
    compiled,
    limiter: createLocalLimiter({ now: Date.now }),
    trustedHops: [],
    showExplanation: (explanation) => showExplanation(explanation, plain),
    http: { host: '127.0.0.1', port: 0 },
    admin: { host: '127.0.0.1', port: 0 },
    accessLog: { write: (line) => void lines.push(line), dropped: () => 0, flush: async () => {} },
    report: (line) => void reports.push(line),
    ...options,
  })

  const metrics = async (): Promise<string> => (await fetch(`${gateway.adminUrl}/metrics`)).text()
  const readMetric = (text: string, series: string): number =>
    Number(
      text
        .split('\n')
        .find((line) => line.startsWith(`${series} `))
        ?.slice(series.length + 1) ?? 0,
    )

  async function settled(): Promise<void> {
    const giveUpAt = performance.now() + settleMs
    for (;;) {
      const text = await metrics()
      if (readMetric(text, 'daemun_open_requests') + readMetric(text, 'daemun_upstream_connections') === 0) return
      if (performance.now() > giveUpAt) throw new Error(`something is still open after ${settleMs} ms:\n${text}`)
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
  }

  return {
    port: gateway.port,
    httpsPort: gateway.httpsPort ?? 0,
    adminUrl: gateway.adminUrl,
    log: () => lines.map((line) => JSON.parse(line) as Record<string, unknown>),
    output: () => [...lines, ...reports].join('\n'),
    metrics,
    metric: async (series) => readMetric(await metrics(), series),
    settled,
    swap: async (next) => {
      compiled = await compile(next, compiled)
      await gateway.swap(compiled)
    },
    stop: gateway.stop,
  }
}
