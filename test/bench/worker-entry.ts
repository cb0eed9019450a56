import { createWorker } from '#edge/worker/serve.ts'
import { answerFields, host } from './work.ts'

/** The bench's table on Workers. */
const proxy = { to: 'origin' }

export default createWorker([
  {
    name: 'bench',
    upstreams: { origin: { servers: ['${BENCH_ORIGIN}'] } },
    keys: { people: { publicKey: '${BENCH_KEY}', algorithms: ['ES256'] } },
    sites: [
      {
        hosts: [host],
        headers: answerFields,
        routes: [
          { path: '/api/*', proxy },
          { path: '/signed/*', auth: { jwt: 'people' }, proxy: { ...proxy, path: '/api/items/42' } },
        ],
      },
    ],
  },
])
