/** Every bound of the GPU worker that its environment does not set, in one place. Reaching one is a named refusal. */
export const limits = {
  /** A request body; above it 413. */
  bodyBytesMax: 4_194_304,
  /** A request body must be complete by then; then 408. */
  bodyTimeoutMs: 10_000,
  /** A request body of the recommender. */
  wishesBytesMax: 262_144,
  /** Requests that are being read, wait or run; above it 503 before the body is read. */
  inFlightMax: 2_048,
  /** What a request may take, where the caller says nothing of it. */
  deadlineMs: 110_000,
  /** Tokens of an answer where the request does not bound them. */
  outputTokensDefault: 1_024,
  outputTokensMax: 32_768,
  /** Answers to one prompt (`n`). */
  choicesMax: 4,
  /** A whole answer of an upstream, and one event of a stream. */
  answerBytesMax: 16_777_216,
  eventBytesMax: 1_048_576,
  /** Events that are held back until something worth committing to has come. */
  heldBytesMax: 262_144,
  /** Text and token ids kept of a stream, to continue it elsewhere; a longer one is not continued. */
  resumeBytesMax: 262_144,
  /** Nothing is sent to the client of a stream for this long, so that the answer can still be a 429 or 503. */
  holdMs: 10_000,
  /** From then on a comment this often. */
  commentMs: 15_000,
  /** To a server's connection. */
  connectTimeoutMs: 2_000,
  /** Below the five seconds after which uvicorn closes an idle connection. */
  upstreamIdleMs: 4_000,
  /** The first token of an answer; at least this long, and less than what is left of the deadline. */
  firstTokenMs: 30_000,
  /** A gap between two events of a stream: this long, or `gapFactor` times the usual gap. */
  gapMs: 5_000,
  gapFactor: 20,
  /** A client that takes nothing of a stream for this long is let go. */
  clientStallMs: 30_000,
  /** How often streams are looked at for the bounds above. */
  lookMs: 250,
  /** What a server may still say after its client has left, so that what it generated is counted exactly. */
  settleMs: 500,
  /** An answer of Redis about a budget; without it, budgets are counted in this process. */
  redisTimeoutMs: 500,
  /** An answer of the recommender's database about whether it is there. */
  databaseTimeoutMs: 1_000,
  /** Attempts at one provider. */
  attemptsMax: 2,
  /** Retries: a share of the requests of the last window, and a few for when there are hardly any. */
  retryShare: 0.1,
  retryFloor: 3,
  retryWindowMs: 10_000,
  /** A server's /metrics and models are looked at this often; after `staleMs` without an answer it counts as full. */
  probeMs: 500,
  probeTimeoutMs: 1_500,
  staleMs: 2_000,
  /** A server that generated nothing for this long is asked for one token before it counts as ready. */
  provenMs: 25_000,
  canaryTimeoutMs: 10_000,
  /** Share of a server's cache that may be promised. */
  cacheShare: 0.9,
  /** Cache of a server that does not say how large its own is. */
  cacheTokensDefault: 200_000,
  /** Share of a server's slots that only the interactive band may take. */
  interactiveShare: 0.125,
  /** A waiting request of a lower band goes first after this, and one in so many grants may. */
  promoteMs: 10_000,
  promoteEvery: 8,
  /** What a tenant's turn in the queue is worth, in tokens. */
  turnTokens: 2_048,
  /** Requests at once to a provider elsewhere. */
  externalInFlightMax: 64,
  /** Failures in a row after which such a provider is left alone for a while. */
  externalFailuresMax: 5,
  externalCoolMs: 15_000,
  /** Schemas and tools of one request. */
  schemaBytesMax: 65_536,
  schemaDepthMax: 12,
  schemaNodesMax: 1_024,
  schemaBranchDepthMax: 3,
  schemaPatternLengthMax: 256,
  /** Inputs of one call for embeddings. */
  inputsMax: 256,
  /** Verified tokens and budgets that are remembered. */
  callersMax: 10_000,
  tenantsMax: 10_000,
  /** Fewer films than this are compared one by one; from then on an HNSW index is built. */
  vectorIndexFilmsMin: 100_000,
  /** So are those that a filter leaves, when they are no more. */
  vectorExactFilmsMax: 10_000,
  /** Rows that the index may hand out to a filter, and at once (`hnsw.max_scan_tuples`, `hnsw.ef_search`). */
  vectorScanTuplesMax: 40_000,
  vectorSearchWidth: 100,
  /** Searches at once on a PostgreSQL server. */
  vectorSearchesMax: 4,
  /** What a search may take, where the caller says nothing of it. */
  vectorDeadlineMs: 5_000,
  /** Share of the searches by the index that are done again exactly, to know what it misses. */
  vectorMonitorShare: 0.01,
  /** A text that is to be embedded is cut to this. */
  textBytesMax: 1_600,
  /** Texts of one request for vectors, what it may take, and how often it is made. */
  embedBatchMax: 32,
  embedTimeoutMs: 60_000,
  embedAttemptsMax: 6,
  embedBackoffMaxMs: 30_000,
}

export type Limits = typeof limits
