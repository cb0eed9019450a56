/** What vLLM 0.25.1 says, field by field in its order, nulls where it has them. */

export interface Usage {
  prompt: number
  completion: number
}

export interface Answer {
  id: string
  created: number
  model: string
}

const fingerprint = 'vllm-0.25.1-1a2b3c4d'

/** Keys in vLLM's order: prompt, total, completion. */
const toUsage = ({ prompt, completion }: Usage) => ({
  prompt_tokens: prompt,
  total_tokens: prompt + completion,
  completion_tokens: completion,
})

const head = ({ id, created, model }: Answer, object: string) => ({ id, object, created, model })

const toEvent = (value: unknown): string => `data: ${JSON.stringify(value)}\n\n`

/** Comes with the first output, not when the request is accepted. */
export const roleEvent = (answer: Answer, promptIds: number[] | null, usage: Usage | undefined): string =>
  toEvent({
    ...head(answer, 'chat.completion.chunk'),
    choices: [{ index: 0, delta: { role: 'assistant', content: '' }, logprobs: null, finish_reason: null }],
    ...(usage && { usage: toUsage(usage) }),
    prompt_token_ids: promptIds,
    prompt_text: null,
  })

export interface Delta {
  text: string
  logprobs: unknown
  /** null while it goes on. */
  finish: string | null
  ids: number[] | null
  usage: Usage | undefined
  /** Where no usage event follows, the last one carries the fingerprint. */
  isLast: boolean
}

export const chatDelta = (answer: Answer, { text, logprobs, finish, ids, usage, isLast }: Delta): string =>
  toEvent({
    ...head(answer, 'chat.completion.chunk'),
    choices: [
      {
        index: 0,
        delta: { content: text },
        logprobs,
        finish_reason: finish,
        ...(finish !== null && { stop_reason: null }),
        token_ids: ids,
      },
    ],
    ...(usage && { usage: toUsage(usage) }),
    ...(isLast && { system_fingerprint: fingerprint }),
  })

export const textDelta = (
  answer: Answer,
  { text, logprobs, finish, ids, usage, isLast, promptIds }: Delta & { promptIds: number[] | null },
): string =>
  toEvent({
    ...head(answer, 'text_completion'),
    choices: [
      {
        index: 0,
        text,
        logprobs,
        finish_reason: finish,
        stop_reason: null,
        prompt_token_ids: promptIds,
        token_ids: ids,
      },
    ],
    ...(usage && { usage: toUsage(usage) }),
    ...(isLast && { system_fingerprint: fingerprint }),
  })

export const usageEvent = (answer: Answer, object: string, usage: Usage): string =>
  toEvent({ ...head(answer, object), choices: [], usage: toUsage(usage), system_fingerprint: fingerprint })

export const doneEvent = 'data: [DONE]\n\n'

/** As Python's json.dumps writes it: with spaces, unlike the events above. */
export const errorEvent = (message: string, type = 'InternalServerError', code = 500): string =>
  `data: {"error": {"message": ${JSON.stringify(message)}, "type": ${JSON.stringify(type)}, "param": null, "code": ${code}}}\n\n`

export const engineDead = 'EngineCore encountered an issue. See stack trace (above) for the root cause.'

export const chatBody = (
  answer: Answer,
  text: string,
  finish: string,
  usage: Usage,
  ids: number[] | null,
  promptIds: number[] | null,
): string =>
  JSON.stringify({
    ...head(answer, 'chat.completion'),
    choices: [
      {
        index: 0,
        message: {
          role: 'assistant',
          content: text,
          refusal: null,
          annotations: null,
          audio: null,
          function_call: null,
          reasoning: null,
        },
        logprobs: null,
        finish_reason: finish,
        stop_reason: null,
        token_ids: ids,
        routed_experts: null,
      },
    ],
    service_tier: null,
    system_fingerprint: fingerprint,
    usage: { ...toUsage(usage), prompt_tokens_details: null },
    prompt_logprobs: null,
    prompt_token_ids: promptIds,
    prompt_text: null,
    kv_transfer_params: null,
    metrics: null,
  })

export const textBody = (
  answer: Answer,
  text: string,
  finish: string,
  usage: Usage,
  ids: number[] | null,
  promptIds: number[] | null,
): string =>
  JSON.stringify({
    ...head(answer, 'text_completion'),
    choices: [
      {
        index: 0,
        text,
        logprobs: null,
        finish_reason: finish,
        stop_reason: null,
        token_ids: ids,
        prompt_logprobs: null,
        prompt_token_ids: promptIds,
      },
    ],
    service_tier: null,
    system_fingerprint: fingerprint,
    usage: { ...toUsage(usage), prompt_tokens_details: null },
    kv_transfer_params: null,
  })

export const errorBody = (code: number, type: string, message: string, param: string | null = null): string =>
  JSON.stringify({ error: { message, type, param, code } })

export const otherTask = (path: string): string =>
  `The model does not support ${{ '/v1/embeddings': 'Embeddings', '/v1/completions': 'Completions' }[path] ?? 'Chat Completions'} API`

export const modelsBody = (model: string, created: number, lengthMax: number): string =>
  JSON.stringify({
    object: 'list',
    data: [
      {
        id: model,
        object: 'model',
        created,
        owned_by: 'vllm',
        root: `kakaocorp/${model}`,
        parent: null,
        max_model_len: lengthMax,
        permission: [
          {
            id: 'modelperm-1a2b3c4d',
            object: 'model_permission',
            created,
            allow_create_engine: false,
            allow_sampling: true,
            allow_logprobs: true,
            allow_search_indices: false,
            allow_view: true,
            allow_fine_tuning: false,
            organization: '*',
            group: null,
            is_blocking: false,
          },
        ],
      },
    ],
  })

export interface MetricValues {
  model: string
  running: number
  waiting: number
  awake: boolean
  kvUsage: number
  kvTokens: number
  promptTokens: number
  generatedTokens: number
  finished: Record<string, number>
  firstTokens: number
  betweenTokens: number
}

export function metricsText(values: MetricValues): string {
  const labels = `engine="0",model_name="${values.model}"`
  const gauge = (name: string, help: string, value: number): string =>
    `# HELP vllm:${name} ${help}\n# TYPE vllm:${name} gauge\nvllm:${name}{${labels}} ${toFloat(value)}\n`
  const counter = (name: string, value: number): string =>
    `# TYPE vllm:${name}_total counter\nvllm:${name}_total{${labels}} ${toFloat(value)}\n`
  const states = [
    ['awake', values.awake],
    ['weights_offloaded', !values.awake],
    ['discard_all', false],
  ] as const
  return [
    gauge('num_requests_running', 'Number of requests in model execution batches.', values.running),
    gauge('num_requests_waiting', 'Number of requests waiting to be processed.', values.waiting),
    '# TYPE vllm:num_requests_waiting_by_reason gauge\n',
    `vllm:num_requests_waiting_by_reason{${labels},reason="capacity"} ${toFloat(values.waiting)}\n`,
    `vllm:num_requests_waiting_by_reason{${labels},reason="deferred"} 0.0\n`,
    '# TYPE vllm:engine_sleep_state gauge\n',
    ...states.map(
      ([state, is]) => `vllm:engine_sleep_state{${labels},sleep_state="${state}"} ${toFloat(is ? 1 : 0)}\n`,
    ),
    gauge('kv_cache_usage_perc', 'KV-cache usage. 1 means 100 percent usage.', values.kvUsage),
    counter('prompt_tokens', values.promptTokens),
    counter('generation_tokens', values.generatedTokens),
    '# TYPE vllm:request_success_total counter\n',
    ...['stop', 'length', 'abort', 'error'].map(
      (reason) =>
        `vllm:request_success_total{engine="0",finished_reason="${reason}",model_name="${values.model}"} ${toFloat(values.finished[reason] ?? 0)}\n`,
    ),
    '# TYPE vllm:time_to_first_token_seconds histogram\n',
    `vllm:time_to_first_token_seconds_count{${labels}} ${toFloat(values.firstTokens)}\n`,
    '# TYPE vllm:inter_token_latency_seconds histogram\n',
    `vllm:inter_token_latency_seconds_count{${labels}} ${toFloat(values.betweenTokens)}\n`,
    '# TYPE vllm:cache_config_info gauge\n',
    `vllm:cache_config_info{block_size="16",engine="0",kv_cache_size_tokens="${values.kvTokens}",kv_cache_max_concurrency="25.0"} 1.0\n`,
  ].join('')
}

const toFloat = (value: number): string => (Number.isInteger(value) ? `${value}.0` : String(value))
