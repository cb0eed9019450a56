import type { Environment } from '../variables.ts'
import { UsageError } from './config.ts'

/** Where spans are sent, by the variables that OpenTelemetry's SDKs know. */
export interface TracingConfig {
  /** The URL of OTLP over HTTP, such as 'http://127.0.0.1:4318/v1/traces'. */
  url: string
  headers: Record<string, string>
  timeoutMs: number | undefined
  sampler: Sampler
  /** Of this service: service.name and what else is told. */
  resource: Record<string, string>
}

interface Sampler {
  /** Whether what a caller has decided counts. */
  parentBased: boolean
  /** Of the traces that begin here, 0 to 1. */
  ratio: number
}

/** undefined: nothing is traced, because no endpoint is set or tracing is turned off. */
export function readTracingConfig(environment: Environment): TracingConfig | undefined {
  const traces = environment['OTEL_EXPORTER_OTLP_TRACES_ENDPOINT']
  const base = environment['OTEL_EXPORTER_OTLP_ENDPOINT']
  const isOff =
    environment['OTEL_SDK_DISABLED']?.toLowerCase() === 'true' || environment['OTEL_TRACES_EXPORTER'] === 'none'
  if (isOff || (!traces && !base)) return undefined
  const protocol =
    environment['OTEL_EXPORTER_OTLP_TRACES_PROTOCOL'] || environment['OTEL_EXPORTER_OTLP_PROTOCOL'] || 'http/json'
  if (protocol !== 'http/json')
    throw new UsageError(
      `OTEL_EXPORTER_OTLP_PROTOCOL is '${protocol}': spans are sent as http/json, which collectors take on port 4318`,
    )
  return {
    url: traces ? readUrl('OTEL_EXPORTER_OTLP_TRACES_ENDPOINT', traces) : toTracesUrl(base ?? ''),
    headers: {
      ...readPairs('OTEL_EXPORTER_OTLP_HEADERS', environment['OTEL_EXPORTER_OTLP_HEADERS']),
      ...readPairs('OTEL_EXPORTER_OTLP_TRACES_HEADERS', environment['OTEL_EXPORTER_OTLP_TRACES_HEADERS']),
    },
    timeoutMs: readTimeout(environment['OTEL_EXPORTER_OTLP_TIMEOUT']),
    sampler: readSampler(environment['OTEL_TRACES_SAMPLER'], environment['OTEL_TRACES_SAMPLER_ARG']),
    resource: {
      ...readPairs('OTEL_RESOURCE_ATTRIBUTES', environment['OTEL_RESOURCE_ATTRIBUTES']),
      ...(environment['OTEL_SERVICE_NAME'] && { 'service.name': environment['OTEL_SERVICE_NAME'] }),
    },
  }
}

const toTracesUrl = (base: string): string =>
  `${readUrl('OTEL_EXPORTER_OTLP_ENDPOINT', base).replace(/\/$/, '')}/v1/traces`

function readUrl(name: string, text: string): string {
  if (!/^https?:\/\/[^/?#@]+/.test(text) || !URL.canParse(text))
    throw new UsageError(`${name} is '${text}', which is no URL: write it as http://127.0.0.1:4318`)
  return text
}

/** 'name=value,name=value', values percent-encoded. Values may be secret: no message has one. */
function readPairs(name: string, text = ''): Record<string, string> {
  const pairs = text.split(',').filter((pair) => pair.trim() !== '')
  return Object.fromEntries(
    pairs.map((pair, index) => {
      const [, key, value] = /^\s*([!#$%&'*+.^_`|~0-9A-Za-z-]+)\s*=\s*(.*?)\s*$/.exec(pair) ?? []
      const decoded = value === undefined ? undefined : decode(value)
      if (key === undefined || decoded === undefined || /[^\t\x20-\x7e]/.test(decoded))
        throw new UsageError(
          `${name} has a fault in its part ${index + 1}: write name=value,name=value, percent-encoded`,
        )
      return [key, decoded]
    }),
  )
}

function decode(value: string): string | undefined {
  try {
    return decodeURIComponent(value)
  } catch {
    return undefined
  }
}

function readTimeout(text: string | undefined): number | undefined {
  if (!text) return undefined
  if (!/^\d{1,7}$/.test(text) || Number(text) === 0)
    throw new UsageError(`OTEL_EXPORTER_OTLP_TIMEOUT is '${text}': write milliseconds`)
  return Number(text)
}

const samplers: Record<string, (ratio: number) => Sampler> = {
  always_on: () => ({ parentBased: false, ratio: 1 }),
  always_off: () => ({ parentBased: false, ratio: 0 }),
  traceidratio: (ratio) => ({ parentBased: false, ratio }),
  parentbased_always_on: () => ({ parentBased: true, ratio: 1 }),
  parentbased_always_off: () => ({ parentBased: true, ratio: 0 }),
  parentbased_traceidratio: (ratio) => ({ parentBased: true, ratio }),
}

function readSampler(name = '', argument = ''): Sampler {
  const sampler = samplers[name || 'parentbased_always_on']
  if (!sampler)
    throw new UsageError(`OTEL_TRACES_SAMPLER is '${name}': write one of ${Object.keys(samplers).join(', ')}`)
  const ratio = argument === '' ? 1 : Number(argument)
  if (!(ratio >= 0 && ratio <= 1))
    throw new UsageError(`OTEL_TRACES_SAMPLER_ARG is '${argument}': write a share from 0 to 1`)
  return sampler(ratio)
}
