import { fetch } from 'undici'
import { limits } from '../limits.ts'
import type { Gauge } from '../metrics.ts'
import type { Plan } from '../plan.ts'
import type { Outcome } from '../runtime.ts'
import { toSpans } from '../spans.ts'
import type { OtlpSpan } from '../spans.ts'
import type { Tracing } from '../trace-context.ts'
import type { Environment } from '../variables.ts'
import { readTracingConfig } from './tracing-config.ts'
import type { TracingConfig } from './tracing-config.ts'

/** Records traces and sends their spans to a collector, in batches and beside the requests. */
export interface Tracer extends Tracing {
  /** A request ended whose trace is recorded. */
  finish(plan: Plan, outcome: Outcome, durationMs: number): void
  gauges(): Gauge[]
  /** Sends what is left, once; resolves when that is done or has failed. */
  close(): Promise<void>
}

export interface TracerOptions extends TracingConfig {
  /** Takes what operators should hear of. */
  report: (line: string) => void
  /** Default limits.spanDelayMs. */
  delayMs?: number
  /** The first wait for a collector that is down. Default 1,000. */
  retryMs?: number
}

export function createTracer(options: TracerOptions): Tracer {
  const { sampler, report, delayMs = limits.spanDelayMs, retryMs = 1_000 } = options
  let waiting: OtlpSpan[] = []
  let timer: NodeJS.Timeout | undefined
  let sending: Promise<void> | undefined
  let failures = 0
  let closed = false
  const totals = { sent: 0, dropped: 0 }

  function finish(plan: Plan, outcome: Outcome, durationMs: number): void {
    const spans = toSpans(plan, outcome, durationMs)
    if (waiting.length + spans.length > limits.spansMax) {
      totals.dropped += spans.length
      return
    }
    waiting.push(...spans)
    // While a collector is down, its time to be asked again is kept.
    if (failures === 0 && waiting.length >= limits.spanBatchMax) start()
    else timer ??= setTimeout(start, delayMs).unref()
  }

  function start(): void {
    clearTimeout(timer)
    timer = undefined
    sending ??= sendAll().finally(() => {
      sending = undefined
      if (waiting.length > 0 && !closed) timer ??= setTimeout(start, failures > 0 ? waitMs() : delayMs).unref()
    })
  }

  /** Until nothing waits, or the collector fails. */
  async function sendAll(): Promise<void> {
    while (waiting.length > 0) {
      const batch = waiting.slice(0, limits.spanBatchMax)
      const result = await send(batch, options)
      if (result.outcome === 'later') {
        if (failures++ === 0) report(`traces: the collector does not take spans: ${result.cause}`)
        return
      }
      waiting = waiting.slice(batch.length)
      if (result.outcome === 'refused') {
        totals.dropped += batch.length
        report(`traces: the collector refused ${batch.length} spans: ${result.cause}`)
        continue
      }
      totals.sent += batch.length
      if (failures > 0) report('traces: the collector takes spans again')
      failures = 0
    }
  }

  const waitMs = (): number => Math.min(limits.spanRetryMsMax, retryMs * 2 ** (failures - 1))

  function sample(traceId: string, parentSampled: boolean | undefined): boolean {
    if (sampler.parentBased && parentSampled !== undefined) return parentSampled
    // The last 56 bits are random (Trace Context, level 2, §5.1): every service that takes this share takes the same.
    return Number.parseInt(traceId.slice(18), 16) < sampler.ratio * 2 ** 56
  }

  return {
    sample,
    finish,
    gauges: () => [
      { name: 'daemun_spans_sent_total', help: 'Spans that a collector took.', type: 'counter', value: totals.sent },
      {
        name: 'daemun_spans_dropped_total',
        help: 'Spans that were dropped because no collector took them.',
        type: 'counter',
        value: totals.dropped,
      },
    ],
    close: async () => {
      closed = true
      clearTimeout(timer)
      await sending
      if (waiting.length > 0 && failures === 0) await sendAll()
      totals.dropped += waiting.length
      waiting = []
    },
  }
}

/** 'later': the same may be taken another time (OTLP 1.x, Failures: Retryable Response Codes). */
type Sent = { outcome: 'taken' } | { outcome: 'refused' | 'later'; cause: string }

async function send(spans: OtlpSpan[], { url, headers, timeoutMs, resource }: TracerOptions): Promise<Sent> {
  try {
    const answer = await fetch(url, {
      method: 'POST',
      headers: { ...headers, 'Content-Type': 'application/json' },
      body: JSON.stringify(toRequest(spans, resource)),
      redirect: 'manual',
      signal: AbortSignal.timeout(timeoutMs ?? limits.spanTimeoutMs),
    })
    await answer.body?.cancel()
    if (answer.ok) return { outcome: 'taken' }
    return { outcome: retryable.has(answer.status) ? 'later' : 'refused', cause: `status ${answer.status}` }
  } catch (error) {
    return { outcome: 'later', cause: toCause(error) }
  }
}

const retryable: ReadonlySet<number> = new Set([408, 429, 502, 503, 504])

/** The system's word for it, which has nothing of the request in it. */
function toCause(error: unknown): string {
  const inner = error instanceof Error && error.cause instanceof Error ? error.cause : error
  if (inner instanceof Error && 'code' in inner && typeof inner.code === 'string') return inner.code
  return inner instanceof Error ? inner.name : 'unknown'
}

const toRequest = (spans: OtlpSpan[], resource: Record<string, string>) => ({
  resourceSpans: [
    {
      resource: {
        attributes: Object.entries({ 'service.name': 'daemun', ...resource }).map(([key, stringValue]) => ({
          key,
          value: { stringValue },
        })),
      },
      scopeSpans: [{ scope: { name: 'daemun' }, spans }],
    },
  ],
})

/** undefined: the environment names no collector, and nothing is traced. */
export function openTracer(environment: Environment, report: (line: string) => void): Tracer | undefined {
  const tracing = readTracingConfig(environment)
  return tracing && createTracer({ ...tracing, report })
}
