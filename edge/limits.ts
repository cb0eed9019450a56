/** Every bound of the gateway that a table does not set, in one place. Reaching one is a named error (`error.ts`). */
export const limits = {
  /** Request targets above this are 414 (RFC 9110 §15.5.15). */
  targetBytesMax: 8_192,
  /** All field lines of a request together; above it 431. */
  headerBytesMax: 16_384,
  /** What the parser takes of a request head, so that a long target is told from long fields; above it 431. */
  headBytesMax: 32_768,
  /** Field lines of a request; above it 431. */
  headerCountMax: 100,
  /** A client's request head must be complete by then; then 408. */
  headTimeoutMs: 10_000,
  /** How often that is looked at. */
  headCheckMs: 2_000,
  /** A request body slower than this over `bodyRateWindowMs` is cut off. */
  bodyBytesPerSecondMin: 500,
  bodyRateWindowMs: 10_000,
  /** An answer of which the client takes nothing for this long is cut off. */
  clientStallMs: 60_000,
  /** How often clients are looked at for the two bounds above. */
  progressLookMs: 2_000,
  /** Idle connections of clients are kept this long. */
  clientIdleMs: 65_000,
  /** Requests on one connection; then it is closed. */
  requestsPerConnectionMax: 10_000,
  /** Requests that may wait for their turn on one connection; then it is not read from. */
  pipelinedMax: 64,
  /** Behind `--proxy-protocol`, the header of a connection; a longer one, or a later one, closes it. */
  proxyHeaderBytesMax: 2_048,
  proxyHeaderTimeoutMs: 3_000,
  /** A TLS handshake must be done by then; then the connection is closed. */
  handshakeTimeoutMs: 10_000,
  /** A client's first message in it; the name in a longer one is not looked for. */
  clientHelloBytesMax: 16_384,
  /** Certificate files are looked at this often. */
  certificateCheckMs: 2_000,
  /** The key of session tickets is replaced after this. */
  ticketKeyMs: 86_400_000,
  /** An answer of a certificate authority, and all of an order; then it has failed. */
  acmeTimeoutMs: 30_000,
  acmeOrderMs: 300_000,
  /** Such an answer's text. */
  acmeBytesMax: 262_144,
  /** What certificates are ordered for is looked at this often. */
  acmeCheckMs: 60_000,
  /** Open streams on one HTTP/2 connection; further ones are refused (RFC 9113 §5.1.2). */
  streamsPerConnectionMax: 100,
  /** What a client may send ahead on one stream, and on all of a connection together. */
  streamWindowBytes: 65_535,
  connectionWindowBytes: 1_048_576,
  /** Field lines of an HTTP/2 request, which splits cookies (RFC 9113 §8.2.3); above it the stream is reset. */
  headerListPairsMax: 128,
  /** Faulty frames and refused streams on one HTTP/2 connection; then it is closed. */
  invalidFramesMax: 100,
  rejectedStreamsMax: 100,
  /** PING and SETTINGS frames of one HTTP/2 connection within `progressLookMs`; then it is closed. */
  controlFramesMax: 1_000,
  /** Bytes on one HTTP/2 connection that are neither requests nor bodies, above what comes in `…PerSecond`; then it is closed. */
  overheadBytesMax: 1_048_576,
  overheadBytesPerSecond: 32_768,
  /** How long a client may go on sending what nobody reads before its connection is closed, and how long pause. */
  lingerMs: 30_000,
  lingerIdleMs: 3_000,
  /** The default of a row's `bodyBytesMax`. */
  bodyBytesMax: 1_048_576,
  /** An unread body up to this is drained so that the connection can be kept; a longer one closes it. */
  drainBytesMax: 65_536,
  /** The default of an upstream's `connectTimeoutMs`. */
  connectTimeoutMs: 2_000,
  /** The default of a row's `proxy.readTimeoutMs`. */
  readTimeoutMs: 60_000,
  /** The default of a row's `proxy.idleMs`. */
  websocketIdleMs: 3_600_000,
  /** When one side of a WebSocket has closed, the other may still say this long what it has to say. */
  websocketLingerMs: 1_000,
  /** The head of an upstream's answer; above it 502. */
  upstreamHeaderBytesMax: 65_536,
  /** Its field lines; above it 502. */
  upstreamHeaderCountMax: 256,
  /** Informational answers (1xx) of one upstream answer; above it 502. */
  informationalMax: 8,
  /** A connection to an upstream that nobody uses is closed after this; below what origins keep (Node: 5 s). */
  upstreamIdleMs: 4_000,
  /** The default of an upstream's `inFlightMax`. */
  inFlightMax: 1_024,
  /** The default of `sticky.maxAgeSeconds`. */
  stickySeconds: 86_400,
  /** The defaults of `rollout.everyMs`, `minRequests`, `failurePercentMax` and `p99TimesMax`. */
  rolloutEveryMs: 60_000,
  rolloutRequestsMin: 100,
  rolloutFailurePercentMax: 1,
  rolloutP99TimesMax: 2,
  /** Rollouts are judged this often, by what happened since their step began, at most this long ago or `everyMs`. */
  rolloutJudgeMs: 1_000,
  rolloutWindowMs: 30_000,
  /** Fewer failures never take a rollout back, nor does a smaller difference between the sides' slowest hundredths. */
  rolloutFailuresMin: 5,
  rolloutP99MarginMs: 20,
  /** So many failures in a row put a server aside. */
  upstreamFailuresMax: 5,
  /** For how long; twice as long each time, up to `ejectionMsMax`. */
  ejectionMs: 10_000,
  ejectionMsMax: 300_000,
  /** A server this slow on average, and five times slower than all others, is put aside. */
  slowServerMs: 1_000,
  /** The default of an upstream's `slowStartMs`. */
  slowStartMs: 10_000,
  /** The defaults of `health.everyMs`, `timeoutMs`, `healthyAfter` and `unhealthyAfter`. */
  healthEveryMs: 5_000,
  healthTimeoutMs: 2_000,
  healthyAfter: 2,
  unhealthyAfter: 3,
  /** Checks change a server's state at most once in this time. */
  healthChangeMs: 10_000,
  /** The default of `retry.attempts`. */
  retryAttempts: 2,
  /** Of an upstream's requests, so many in a hundred may be sent again, and `retryFloor` in each window. */
  retryBudgetPercent: 10,
  retryFloor: 32,
  retryWindowMs: 10_000,
  /** A server's name is looked up again after this; its last address is used when that takes longer than `lookupWaitMs`. */
  lookupFreshMs: 5_000,
  lookupWaitMs: 200,
  /** A name that cannot be resolved is looked up again after this. */
  lookupAgainMs: 1_000,
  /** Look-ups at a time: they take threads that files need too. */
  lookupsMax: 2,
  /** A token's text; above it 401. */
  tokenBytesMax: 8_192,
  /** Verified tokens that are remembered, per key. */
  rememberedTokensMax: 10_000,
  /** A key set's text; above it the fetch has failed. */
  jwksBytesMax: 262_144,
  /** Keys that are looked at in a key set. */
  jwksKeysMax: 64,
  jwksTimeoutMs: 5_000,
  /** A key set is fetched again after this, and kept for `jwksStaleMs` when that fails; then tokens get 503. */
  jwksFreshMs: 600_000,
  jwksStaleMs: 3_600_000,
  /** An unknown key id causes at most one fetch in this time. */
  jwksCoolDownMs: 30_000,
  /** While no key set was ever had, a fetch is tried again after this. */
  jwksRetryMs: 1_000,
  /** Callers that are counted in this process; the least recently seen is forgotten first. */
  limiterEntriesMax: 100_000,
  /** A command to the shared limiter store; then the store counts as down. */
  limiterTimeoutMs: 50,
  /** Spans that wait to be sent to a collector; further ones are dropped and counted. */
  spansMax: 2_048,
  /** How many are sent together, and how long the first of them waits. */
  spanBatchMax: 512,
  spanDelayMs: 5_000,
  /** A collector that does not take them within this is asked again, after a second and then ever more seldom, up to this. */
  spanTimeoutMs: 10_000,
  spanRetryMsMax: 30_000,
  /** What the operators' page remembers of each row: so many steps of so long, and so many minutes. */
  historyStepMs: 5_000,
  historySteps: 180,
  historyMinutes: 360,
  /** Failed requests that it remembers, and refused ones; the oldest are forgotten. */
  recentMax: 100,
  /** A signature of an edge is good for this long before and after its time. */
  edgeSignatureSkewMs: 60_000,
  /** Files up to this are held in memory, all of them together up to `assetMemoryBytesMax`. */
  assetBytesMax: 1_048_576,
  assetMemoryBytesMax: 67_108_864,
  /** Larger files up to this are held too once they were asked for three times. */
  assetHotBytesMax: 16_777_216,
  /** Files with a hash in their names, of this build and earlier ones, that are held for pages of yesterday. */
  releaseMemoryBytesMax: 67_108_864,
  /** Files of a folder that are looked through for such names. */
  releaseFilesMax: 20_000,
  /** The default of a row's `files.releases`. */
  releases: 3,
  /** Texts shorter than this are sent as they are: encoded they would hardly be smaller. */
  compressBytesMin: 1_024,
  /** Answers of upstreams that are being compressed; further ones are sent as they are. */
  encodersMax: 512,
  /** Answers of upstreams that are kept, all together with their fields; the least wanted go first. */
  cacheBytesMax: 67_108_864,
  /** The default of a row's `cache.shared.entryBytesMax`. */
  entryBytesMax: 1_048_576,
  /** Answers that are on their way into the cache, all together; further ones are not kept. */
  cacheFillBytesMax: 67_108_864,
  /** Answers to one URL that differ by its Vary; the oldest goes first. */
  variantsMax: 32,
  /** The default of a row's `cache.shared.staleIfErrorMs`. */
  staleIfErrorMs: 3_600_000,
  /** How long a request waits for the answer that another one is fetching; then it asks for itself. */
  collapseWaitMs: 5_000,
  /** Requests that wait for one answer; further ones ask for themselves. */
  collapsedMax: 4_096,
  /** For how long nobody waits for the answer to a URL that was not kept, and how many of them are remembered. */
  passMs: 10_000,
  passesMax: 10_000,
  /** Behind a failure, stale answers are sent for this long without asking the upstream again. */
  staleRetryMs: 1_000,
  /** Tables that are read again must be there after this. */
  reloadReadMs: 10_000,
  /** Memory that reading them may take. */
  reloadMemoryMegabytesMax: 256,
  /** After a reload, WebSockets of rows that have changed are told to come again within this. */
  reloadGraceMs: 5_000,
  /** A worker must take requests, or by other tables, after this. */
  workerStartMs: 30_000,
  /** A worker whose event loop has not turned for this long is ended. */
  workerStallMs: 10_000,
  /** A worker that has not told what it has counted by then: what it told last is shown. */
  workerTellMs: 2_000,
  /** A worker that lived this long did not fail at its start. */
  workerProvenMs: 10_000,
  /** One that did is followed by the next after twice as long each time, at most this. */
  workerRestartMsMax: 10_000,
  /** So many in a row, and no other worker alive: the program ends. */
  workerFailuresMax: 10,
  /** A stop is announced for so long, to connections that then ask once more, before idle ones are closed. */
  drainAnnounceMs: 500,
  /** Open requests may end for this long after a stop was asked for. */
  drainMs: 30_000,
} as const
