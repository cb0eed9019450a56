import type { Table } from '../table.ts'

/** MovieSir: films for the time one has. Four sites over one backend; the AI engine has no upstream, only the backend asks it. */
export default {
  name: 'moviesir',
  // Orders nothing until somebody says in whose name.
  tls: {
    acme: {
      email: '${ACME_EMAIL:-}',
      directory: '${ACME_DIRECTORY:-https://acme-v02.api.letsencrypt.org/directory}',
    },
  },
  upstreams: {
    // Tokens are checked there, as are CORS and the quotas of API keys: its clients know its words for them.
    backend: { servers: ['${MOVIESIR_API:-http://127.0.0.1:8200}'] },
  },
  sites: [
    {
      // The landing page.
      hosts: ['moviesir.cloud', 'www.moviesir.cloud'],
      https: { hsts: { maxAgeSeconds: 63_072_000, includeSubDomains: true } },
      errors: 'fastapi',
      routes: [
        // Certificate authorities ask over plain http: for who orders by other means than `tls.acme`.
        {
          path: '/.well-known/acme-challenge/*',
          https: false,
          files: { root: 'certs/acme/.well-known/acme-challenge' },
        },
        {
          path: '/*',
          files: {
            root: 'origin/moviesir/web/landing',
            spa: true,
            immutable: ['js', 'css', 'png', 'jpg', 'jpeg', 'gif', 'ico', 'svg', 'woff', 'woff2'],
            noStore: ['sw.js'], // The service worker decides what else is kept: it must be able to change.
          },
        },
      ],
    },
    {
      // The app for viewers.
      hosts: ['demo.moviesir.cloud'],
      https: { hsts: { maxAgeSeconds: 63_072_000, includeSubDomains: true } },
      errors: 'fastapi',
      routes: [
        {
          path: '/.well-known/acme-challenge/*',
          https: false,
          files: { root: 'certs/acme/.well-known/acme-challenge' },
        },

        { path: '/api/*', proxy: { to: 'backend' } },
        { path: '/auth/*', proxy: { to: 'backend' } },
        { path: '/onboarding/*', proxy: { to: 'backend' } },
        { path: '/movies/*', proxy: { to: 'backend' } },
        { path: '/users/*', proxy: { to: 'backend' } },
        { path: '/mypage/*', proxy: { to: 'backend' } },
        { path: '/recommendation/*', proxy: { to: 'backend' } },
        { path: '/registration/*', proxy: { to: 'backend' } },

        // Passwords and mailed codes of six digits: slow for whoever guesses, and shut when nobody can count.
        {
          path: '/auth/login',
          methods: ['POST'],
          limit: { by: 'address', requests: 10, per: '1 m', whenDown: 'closed' },
          bodyBytesMax: 16_384,
          proxy: { to: 'backend' },
        },
        {
          path: '/auth/signup/*',
          methods: ['POST'],
          limit: { by: 'address', requests: 10, per: '1 m', whenDown: 'closed' },
          bodyBytesMax: 16_384,
          proxy: { to: 'backend' },
        },

        // The app has pages at these two paths as well: loaded afresh they are pages, not the backend's JSON.
        {
          path: '/onboarding/*',
          methods: ['GET'],
          matchHeaders: { 'sec-fetch-mode': 'navigate' },
          files: { root: 'origin/moviesir/web/demo', spa: true },
        },
        {
          path: '/movies/*',
          methods: ['GET'],
          matchHeaders: { 'sec-fetch-mode': 'navigate' },
          files: { root: 'origin/moviesir/web/demo', spa: true },
        },

        {
          path: '/*',
          files: {
            root: 'origin/moviesir/web/demo',
            spa: true,
            immutable: ['js', 'css', 'png', 'jpg', 'jpeg', 'gif', 'ico', 'svg', 'woff', 'woff2'],
            noStore: ['sw.js'],
          },
        },
      ],
    },
    {
      // The console for companies.
      hosts: ['console.moviesir.cloud'],
      https: { hsts: { maxAgeSeconds: 63_072_000, includeSubDomains: true } },
      errors: 'fastapi',
      routes: [
        {
          path: '/.well-known/acme-challenge/*',
          https: false,
          files: { root: 'certs/acme/.well-known/acme-challenge' },
        },

        { path: '/b2b/*', proxy: { to: 'backend' } },
        // POST only: a browser's question before it (CORS) is not a guess.
        {
          path: '/b2b/auth/*',
          methods: ['POST'],
          limit: { by: 'address', requests: 10, per: '1 m', whenDown: 'closed' },
          bodyBytesMax: 16_384,
          proxy: { to: 'backend' },
        },

        {
          path: '/*',
          files: {
            root: 'origin/moviesir/web/console',
            spa: true,
            immutable: ['js', 'css', 'png', 'jpg', 'jpeg', 'gif', 'ico', 'svg', 'woff', 'woff2'],
            noStore: ['sw.js'],
          },
        },
      ],
    },
    {
      // The API for companies, and what it is.
      hosts: ['api.moviesir.cloud'],
      https: { hsts: { maxAgeSeconds: 63_072_000, includeSubDomains: true } },
      errors: 'fastapi',
      // Anybody's pages, with a key or a token in a field, never with cookies; refusals of ours too.
      cors: { origins: '*', headers: '*' },
      routes: [
        {
          path: '/.well-known/acme-challenge/*',
          https: false,
          files: { root: 'certs/acme/.well-known/acme-challenge' },
        },

        { path: '/v1/*', proxy: { to: 'backend' } },
        { path: '/swagger/*', proxy: { to: 'backend' } },
        { path: '/redoc/*', proxy: { to: 'backend' } },
        { path: '/openapi.json', proxy: { to: 'backend' } },

        // The console calls these from its own domain.
        { path: '/b2b/*', proxy: { to: 'backend' } },
        {
          path: '/b2b/auth/*',
          methods: ['POST'],
          limit: { by: 'address', requests: 10, per: '1 m', whenDown: 'closed' },
          bodyBytesMax: 16_384,
          proxy: { to: 'backend' },
        },

        {
          path: '/*',
          files: {
            root: 'origin/moviesir/web/api',
            spa: true,
            immutable: ['js', 'css', 'png', 'jpg', 'jpeg', 'gif', 'ico', 'svg', 'woff', 'woff2'],
            noStore: ['sw.js'],
          },
        },
      ],
    },
  ],
} satisfies Table
