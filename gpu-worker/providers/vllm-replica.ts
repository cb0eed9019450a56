import { request } from 'undici'
import type { Lane } from '../admission/pool.ts'
import type { Limits } from '../limits.ts'
import type { Failure } from '../relay/failure.ts'
import type { Model } from './provider.ts'

/** What is known of one vLLM server. Its own /health says yes while it sleeps, so that it is not asked. */
export interface VllmReplica {
  model(): Model | undefined
  /** Why it is not ready; undefined when it is. */
  reason(): string | undefined
  /** The text of token ids. */
  detokenize(ids: number[]): Promise<string>
  succeeded(): void
  failed(failure: Failure): void
  start(): Promise<void>
  stop(): Promise<void>
}

interface Options {
  url: string
  apiKey: string | undefined
  lane: Lane
  /** It gives vectors and no tokens. */
  embeds: boolean
  /** The size of its cache was configured. */
  ownsCacheTokens: boolean
  limits: Limits
  now: () => number
  onChange(state: string): void
}

export function createVllmReplica(options: Options): VllmReplica {
  const { url, apiKey, lane, embeds, ownsCacheTokens, limits, now, onChange } = options
  const headers: Record<string, string> = apiKey === undefined ? {} : { authorization: `Bearer ${apiKey}` }
  let model: Model | undefined
  /** 'unknown' until it has been asked; 'unproven' until it has generated something. */
  let state: 'unknown' | 'down' | 'asleep' | 'unproven' | 'ready' = 'unknown'
  let provenAt = 0
  let heardAt = 0
  let failures = 0
  let timer: NodeJS.Timeout | undefined
  let stopped = false
  let looking: Promise<void> | undefined

  function become(next: typeof state): void {
    if (next === state) return
    state = next
    lane.usable = next === 'ready'
    if (!stopped) onChange(next)
  }

  /** Asks for its state, and for one token when it has not shown for a while that it can. */
  async function look(): Promise<void> {
    try {
      const metrics = await ask('GET', '/metrics')
      heardAt = now()
      readMetrics(metrics)
      if (/^vllm:engine_sleep_state\{[^}]*sleep_state="awake"[^}]*\} 0/m.test(metrics)) return become('asleep')
      model ??= readModel(await ask('GET', '/v1/models'))
      if (state !== 'ready') become('unproven')
      if (state === 'unproven' || (now() - provenAt > limits.provenMs && lane.requests === 0)) await prove()
    } catch (error) {
      // While answers come it is not down, whatever its metrics do; they only tell how full it is.
      const isRefused = error instanceof Error && 'code' in error && error.code === 'ECONNREFUSED'
      if (isRefused || now() - provenAt > limits.provenMs) lose()
    }
    lane.saturated = now() - heardAt > limits.staleMs || waiting > 0
  }

  let waiting = 0
  function readMetrics(text: string): void {
    waiting = Number(/^vllm:num_requests_waiting\{[^}]*\} ([\d.]+)/m.exec(text)?.[1] ?? 0)
    const size = Number(/^vllm:cache_config_info\{[^}]*kv_cache_size_tokens="(\d+)"/m.exec(text)?.[1] ?? 0)
    if (size > 0 && !ownsCacheTokens) lane.tokensMax = size * limits.cacheShare
  }

  async function prove(): Promise<void> {
    if (embeds) await proveVector()
    else await proveToken()
    provenAt = now()
    failures = 0
    become('ready')
  }

  /** One token, greedy: after a start or a wake the weights must be right, not only there. */
  async function proveToken(): Promise<void> {
    const body = JSON.stringify({ model: model?.id, prompt: '1, 2, 3,', max_tokens: 1, temperature: 0 })
    const answer = JSON.parse(await ask('POST', '/v1/completions', body, limits.canaryTimeoutMs)) as {
      choices?: { finish_reason?: string }[]
    }
    const finish = answer.choices?.[0]?.finish_reason
    if (finish !== 'stop' && finish !== 'length') throw new Error(`a canary ended with ${finish}`)
  }

  async function proveVector(): Promise<void> {
    const body = JSON.stringify({ model: model?.id, input: '1, 2, 3' })
    const answer = JSON.parse(await ask('POST', '/v1/embeddings', body, limits.canaryTimeoutMs)) as {
      data?: { embedding?: unknown[] }[]
    }
    if (!answer.data?.[0]?.embedding?.length) throw new Error('a canary has no vector')
  }

  async function ask(
    method: 'GET' | 'POST',
    path: string,
    body?: string,
    timeoutMs = limits.probeTimeoutMs,
  ): Promise<string> {
    const signal = AbortSignal.timeout(timeoutMs)
    const fields = body === undefined ? headers : { ...headers, 'content-type': 'application/json' }
    const answer = await request(url + path, { method, headers: fields, body: body ?? null, signal })
    const text = await answer.body.text()
    if (answer.statusCode !== 200) throw new Error(`${path} answers ${answer.statusCode}`)
    return text
  }

  function lose(): void {
    model = undefined
    become('down')
  }

  function schedule(): void {
    if (stopped) return
    timer = setTimeout(() => {
      looking = look().finally(schedule)
    }, limits.probeMs)
  }

  return {
    model: () => model,
    reason: () => (state === 'ready' ? undefined : `${lane.name} is ${state}`),
    async detokenize(tokens) {
      const body = JSON.stringify({ model: model?.id, tokens })
      return (JSON.parse(await ask('POST', '/detokenize', body)) as { prompt: string }).prompt
    },
    succeeded() {
      provenAt = now()
      failures = 0
    },
    failed({ reason, status }) {
      if (reason === 'status' && status !== undefined && status < 500) return
      failures++
      // Nobody there, or not itself any more: it has to show one token before it is asked again.
      if (reason === 'connect') lose()
      else if (reason === 'abort' || failures >= failuresMax) become('unproven')
    },
    async start() {
      looking = look()
      await looking
      schedule()
    },
    async stop() {
      stopped = true
      clearTimeout(timer)
      await looking
    },
  }
}

/** In a row; then it is out until it has shown that it can. */
const failuresMax = 5

function readModel(text: string): Model | undefined {
  const { data } = JSON.parse(text) as { data: { id: string; owned_by?: string; max_model_len?: number }[] }
  const [first] = data
  return first && { id: first.id, ownedBy: first.owned_by ?? 'vllm', lengthMax: first.max_model_len }
}
