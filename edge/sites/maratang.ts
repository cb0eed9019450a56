import type { Table } from '../table.ts'

/** Maratang: a story game whose characters a language model speaks for. Players have no accounts. */
export default {
  name: 'maratang',
  upstreams: {
    app: { servers: ['${MARATANG_APP:-http://127.0.0.1:8300}'] },
  },
  sites: [
    {
      hosts: ['maratang.example'],
      https: true,
      errors: 'fastapi',
      // Not 'strict': Unity compiles WebAssembly and makes workers from blobs.
      headers: 'basic',
      routes: [
        // Certificate authorities ask over plain http.
        {
          path: '/.well-known/acme-challenge/*',
          https: false,
          files: { root: 'certs/acme/.well-known/acme-challenge' },
        },

        { path: '/api/*', proxy: { to: 'app' } },
        // Starting a scenario makes the model talk; the client waits 200 s for it.
        { path: '/api/v1/scenario/*', proxy: { to: 'app', readTimeoutMs: 210_000 } },
        // The client waits 200 s for a step and 300 s for a night, and counts a turn when it is cut off: the gateway waits longer.
        { path: '/api/v1/game/*', proxy: { to: 'app', readTimeoutMs: 310_000 } },

        // Documented for probes, which speak plain http; the app answers, so it says more than that the gateway is up.
        { path: '/health', https: false, proxy: { to: 'app', readTimeoutMs: 5_000 } },

        // The language model has no accounts and no limits of its own: it must never be reachable from outside.
        {
          path: '/v1/*',
          respond: { status: 404, type: 'application/json; charset=utf-8', body: '{"detail":"Not Found"}' },
        },

        // Nothing is 'immutable': Unity's files keep their names from build to build, so browsers ask each time (unless
        // the build is set to name them by their hashes).
        { path: '/*', files: { root: 'origin/maratang/web' } },
      ],
    },
  ],
} satisfies Table
