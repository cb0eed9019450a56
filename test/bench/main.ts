import { benchCache } from './cache.ts'
import { benchFiles } from './files.ts'
import { benchGrowth } from './growth.ts'
import { benchIdle } from './idle.ts'
import { benchGpuOverload } from './gpu-overload.ts'
import { benchGpuRelay } from './gpu-relay.ts'
import { benchProfile } from './profile.ts'
import { benchProxy } from './proxy.ts'
import { benchRecommender } from './recommender.ts'
import { benchReload } from './reload.ts'
import { benchEvents, benchWebSocket } from './streams.ts'
import { benchTls } from './tls.ts'
import { benchUploads } from './uploads.ts'
import { benchWorker } from './worker.ts'

/** What can be measured. Each takes its own options; `--help` lists them. */
const benches: Record<string, { what: string; run: (args: string[]) => Promise<void> }> = {
  proxy: { what: 'CPU per request and latency of the proxied path, beside nginx, HAProxy and Caddy', run: benchProxy },
  files: { what: 'CPU per file of 1 KB, 100 KB and 10 MB, beside nginx', run: benchFiles },
  cache: { what: 'CPU per answer of 1 KB and 100 KB from the cache, beside nginx', run: benchCache },
  tls: { what: 'CPU per request over TLS: full and resumed handshakes, kept connections, HTTP/2', run: benchTls },
  events: { what: 'CPU per event passed on and time to the first, beside nginx', run: benchEvents },
  websocket: { what: 'CPU per WebSocket message passed on, beside nginx', run: benchWebSocket },
  growth: { what: 'CPU per request as a table grows to 10,000 rows or 1,000 hosts', run: benchGrowth },
  idle: { what: 'what 10,000 idle connections cost, beside nginx', run: benchIdle },
  uploads: { what: 'memory and CPU while 1 GB passes to a slow upstream, beside nginx', run: benchUploads },
  reload: { what: 'what reloads under load cost clients, WebSockets and memory', run: benchReload },
  'gpu-relay': { what: "what the GPU worker costs, beside Portkey's gateway", run: benchGpuRelay },
  'gpu-overload': { what: 'the GPU worker asked for three times what the model can do', run: benchGpuOverload },
  recommender: {
    what: 'films recommended over HTTP and through MovieSir, and how long learning takes',
    run: benchRecommender,
  },
  worker: { what: 'size and start of the Worker, and its CPU per request in workerd', run: benchWorker },
  profile: { what: "where the time of Daemun's proxied path goes", run: benchProfile },
}

const [name = '', ...args] = process.argv.slice(2)
const bench = Object.hasOwn(benches, name) ? benches[name] : undefined
if (bench) await bench.run(args)
else {
  const lines = Object.entries(benches).map(([known, { what }]) => `  npm run bench -- ${known.padEnd(13)} ${what}\n`)
  process.stdout.write(`${name === '' ? '' : `there is no bench '${name}'\n`}benches:\n${lines.join('')}`)
  if (name !== '') process.exitCode = 2
}
