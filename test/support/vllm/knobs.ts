/** What goes wrong, and after how many tokens. */
export interface Injection {
  token: number
  kind:
    | 'errorEvent'
    | 'abort'
    | 'reset'
    | 'stall'
    | 'truncateNoDone'
    | 'garbageLine'
    | 'http500'
    | 'http503'
    | 'engineDead'
}

/** How the double behaves; all of it may be changed while it runs. Times are milliseconds. */
export interface Knobs {
  model: string
  ttft: { mean: number; sd: number; perToken: number }
  itl: { mean: number; sd: number }
  maxNumSeqs: number
  kvTokens: number
  modelLengthMax: number
  /** How many tokens an answer has, unless the request allows fewer. */
  outputTokens: number
  finish: 'stop' | 'tool_calls' | 'repetition'
  /** Tokens that a slow reader has not taken are sent as one delta. */
  mergeDeltas: boolean
  /** Tokens end inside characters; their text is withheld until the character is whole. */
  splitUtf8Across: boolean
  /** How the bytes of a stream are cut into HTTP chunks and TCP segments. */
  chunkBoundary: 'event' | 'random' | '1byte'
  injectAt: Injection | undefined
  /** Only so many requests are injected into; undefined: all. */
  injectTimes: number | undefined
  sleepState: 'awake' | 'asleep'
  /** Before the port is opened. */
  startupDelay: number
  shutdownTimeout: number
  /** 0.25: the queue has no end. 0.29: beyond `maxNumQueuedReqs` it says 503. */
  version: '0.25' | '0.29'
  maxNumQueuedReqs: number
  /** /metrics goes on saying what it said. */
  metricsStale: boolean
  /** Before the head of an answer. */
  slowHeaders: number
  /** What /v1 wants as a bearer token. */
  apiKey: string | undefined
  priorityScheduling: boolean
  /** Every chunk says the usage, asked or not. */
  forceIncludeUsage: boolean
  /** What its model is for. */
  tasks: 'all' | 'generate' | 'embed'
  /** Length of the vectors of texts. */
  vectorLength: number
  /** So many requests for vectors are answered with 503 first. */
  vectorFailures: number
}

export const defaultKnobs: Knobs = {
  model: 'kanana-8b',
  ttft: { mean: 0, sd: 0, perToken: 0 },
  itl: { mean: 0, sd: 0 },
  maxNumSeqs: 64,
  kvTokens: 205_000,
  modelLengthMax: 8_192,
  outputTokens: 16,
  finish: 'stop',
  mergeDeltas: false,
  splitUtf8Across: false,
  chunkBoundary: 'event',
  injectAt: undefined,
  injectTimes: undefined,
  sleepState: 'awake',
  startupDelay: 0,
  shutdownTimeout: 0,
  version: '0.25',
  maxNumQueuedReqs: 8,
  metricsStale: false,
  slowHeaders: 0,
  apiKey: undefined,
  priorityScheduling: false,
  forceIncludeUsage: false,
  tasks: 'all',
  vectorLength: 8,
  vectorFailures: 0,
}

/** What became of one request. */
export interface Record {
  id: string
  /** Milliseconds of `performance.now()`. */
  receivedAt: number
  firstByteAt: number | undefined
  endedAt: number | undefined
  promptTokens: number
  /** Generated so far, whoever read them. */
  tokens: number
  abortedAtToken: number | undefined
  bytesSent: number
  maxSocketBuffered: number
  finish: string | undefined
  body: { [key: string]: unknown }
  headers: { [name: string]: string | string[] | undefined }
}
