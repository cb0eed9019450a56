import type { Table } from '../table.ts'

/** SPC: statistical process control for a factory. Flower, the workers and the database have no upstream: they are private. */
export default {
  name: 'spc',
  upstreams: {
    backend: { servers: ['${SPC_BACKEND:-http://127.0.0.1:8400}'] },
  },
  sites: [
    {
      // Ports 80 and 443 serve the same: machines on a shop floor speak plain http, so there is no redirect.
      hosts: ['spc.example'],
      errors: 'drf',
      headers: {
        'x-frame-options': 'SAMEORIGIN', // The administration shows its own pages in frames.
        'x-content-type-options': 'nosniff',
        'x-xss-protection': '1; mode=block',
      },
      routes: [
        { path: '/health', respond: { status: 200, type: 'text/plain', body: 'healthy\n' } },

        // Measurements are imported in bulk, and analyses run for minutes.
        {
          path: '/api/*',
          limit: { by: 'address', requests: 10, per: '1 s', burst: 20 },
          bodyBytesMax: 100_000_000,
          proxy: { to: 'backend', readTimeoutMs: 300_000 },
        },
        // Passwords: slow for whoever guesses, and shut when nobody can count.
        {
          path: '/api/auth/login/*',
          methods: ['POST'],
          limit: { by: 'address', requests: 10, per: '1 m', whenDown: 'closed' },
          bodyBytesMax: 16_384,
          proxy: { to: 'backend' },
        },

        {
          path: '/admin/*',
          limit: { by: 'address', requests: 30, per: '1 s', burst: 20 },
          bodyBytesMax: 100_000_000,
          proxy: { to: 'backend', readTimeoutMs: 120_000 },
        },
        {
          path: '/admin/login/*',
          methods: ['POST'],
          limit: { by: 'address', requests: 10, per: '1 m', whenDown: 'closed' },
          bodyBytesMax: 16_384,
          proxy: { to: 'backend', readTimeoutMs: 120_000 },
        },

        // A control room leaves its screens open over the weekend.
        { path: '/ws/*', proxy: { to: 'backend', websocket: true, idleMs: 604_800_000 } },

        // The backend's own style sheets and scripts, collected when it is built.
        {
          path: '/static/*',
          cache: { control: 'public, max-age=2592000, immutable' },
          files: { root: 'origin/spc/web/static' },
        },
        // Uploads appear while the gateway runs, so the backend hands them out; what is inside them must not run here.
        {
          path: '/media/*',
          cache: { control: 'public, max-age=604800' },
          responseHeaders: { set: { 'content-security-policy': "default-src 'none'; sandbox" } },
          proxy: { to: 'backend' },
        },

        // A service worker or manifest that browsers kept would pin an old release.
        {
          path: '/*',
          limit: { by: 'address', requests: 30, per: '1 s', burst: 50 },
          files: {
            root: 'origin/spc/web',
            spa: true,
            immutable: ['js', 'css', 'png', 'jpg', 'jpeg', 'gif', 'ico', 'svg', 'woff', 'woff2'],
            noStore: ['sw.js', 'service-worker.js', 'manifest.json', 'manifest.webmanifest'],
          },
        },
      ],
    },
  ],
} satisfies Table
