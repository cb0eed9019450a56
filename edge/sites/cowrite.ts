import type { Table } from '../table.ts'

/** Cowrite: writing novels together. The AI service has no upstream here: only the core may ask it, which counts quotas. */
export default {
  name: 'cowrite',
  upstreams: {
    core: { servers: ['${COWRITE_CORE:-http://127.0.0.1:8100}'], connectTimeoutMs: 2_000 },
    sync: { servers: ['${COWRITE_SYNC:-http://127.0.0.1:8102}'] },
  },
  keys: {
    // Refresh tokens are signed with the same secret and say type 'refresh': they open nothing but /auth/refresh.
    cowrite: {
      secret: '${COWRITE_JWT_SECRET}',
      algorithms: ['HS256'],
      requiredClaims: ['sub'],
      refusedClaims: { type: 'refresh' },
    },
  },
  sites: [
    {
      hosts: ['cowrite.example'],
      https: true,
      errors: 'nest', // The web client reads every body as JSON before it looks at the status.
      headers: 'strict',
      routes: [
        // Load balancers probe without TLS.
        { path: '/health', https: false, respond: { status: 200, type: 'text/plain', body: 'OK' } },

        // Certificate authorities ask over plain http.
        {
          path: '/.well-known/acme-challenge/*',
          https: false,
          files: { root: 'certs/acme/.well-known/acme-challenge' },
        },

        // Passwords, mailed codes and new accounts: slow for whoever guesses.
        {
          path: '/api/auth/*',
          limit: { by: 'address', requests: 10, per: '1 m', whenDown: 'closed' },
          proxy: { to: 'core', strip: '/api' },
        },
        // Each of a page's parallel calls refreshes by itself when the token has run out, and a school has one address.
        {
          path: '/api/auth/refresh',
          methods: ['POST'],
          limit: { by: 'address', requests: 120, per: '1 m', whenDown: 'closed' },
          proxy: { to: 'core', strip: '/api' },
        },
        // These are called while logged in, often on every page: the limit for guessers would lock authors out.
        { path: '/api/auth/me', auth: { jwt: 'cowrite' }, proxy: { to: 'core', strip: '/api' } },
        { path: '/api/auth/sessions/*', auth: { jwt: 'cowrite' }, proxy: { to: 'core', strip: '/api' } },
        { path: '/api/auth/logout', auth: { jwt: 'cowrite' }, proxy: { to: 'core', strip: '/api' } },

        // Backups are imported up to 50 MB, far above nginx's 1 MB, under which long chapters were refused as well.
        {
          path: '/api/*',
          auth: { jwt: 'cowrite' },
          bodyBytesMax: 50_000_000,
          proxy: { to: 'core', strip: '/api' },
        },
        // 50 MiB as the core counts, and the multipart lines around the file.
        {
          path: '/api/backups/import',
          auth: { jwt: 'cowrite' },
          bodyBytesMax: 53_000_000,
          proxy: { to: 'core', strip: '/api', readTimeoutMs: 120_000 },
        },
        // Pictures are addressed from <img>, which sends no token; a script inside an uploaded SVG must not run here.
        {
          path: '/api/media/*',
          methods: ['GET'],
          responseHeaders: { set: { 'content-security-policy': "default-src 'none'; sandbox" } },
          proxy: { to: 'core', strip: '/api' },
        },

        // The core waits 60 s for the AI service, so it, not the gateway, must be the one that gives up.
        { path: '/api/ai/*', auth: { jwt: 'cowrite' }, proxy: { to: 'core', strip: '/api', readTimeoutMs: 120_000 } },
        {
          path: '/api/translations/generate',
          auth: { jwt: 'cowrite' },
          proxy: { to: 'core', strip: '/api', readTimeoutMs: 120_000 },
        },
        {
          path: '/api/audio-assets/generate',
          auth: { jwt: 'cowrite' },
          proxy: { to: 'core', strip: '/api', readTimeoutMs: 120_000 },
        },
        {
          path: '/api/storyboards/generate',
          auth: { jwt: 'cowrite' },
          proxy: { to: 'core', strip: '/api', readTimeoutMs: 120_000 },
        },
        {
          path: '/api/reader-predictions/generate',
          auth: { jwt: 'cowrite' },
          proxy: { to: 'core', strip: '/api', readTimeoutMs: 120_000 },
        },
        {
          path: '/api/research-items/generate',
          auth: { jwt: 'cowrite' },
          proxy: { to: 'core', strip: '/api', readTimeoutMs: 120_000 },
        },

        // Asked directly, the AI service would know neither users nor quotas; so it is not reachable at all.
        {
          path: '/ai/*',
          respond: {
            status: 404,
            type: 'application/json; charset=utf-8',
            body: '{"message":"Not Found","error":"Not Found","statusCode":404}',
          },
        },
        // What services say to each other is nobody else's business.
        {
          path: '/internal/*',
          respond: {
            status: 404,
            type: 'application/json; charset=utf-8',
            body: '{"message":"Not Found","error":"Not Found","statusCode":404}',
          },
        },
        {
          path: '/api/internal/*',
          respond: {
            status: 404,
            type: 'application/json; charset=utf-8',
            body: '{"message":"Not Found","error":"Not Found","statusCode":404}',
          },
        },

        // A WebSocket follows no redirect, so both spellings are served; the service knows '/ws' only.
        {
          path: '/ws',
          auth: { jwt: 'cowrite', from: { query: 'token' } },
          proxy: { to: 'sync', websocket: true, idleMs: 3_600_000 },
        },
        {
          path: '/ws/',
          auth: { jwt: 'cowrite', from: { query: 'token' } },
          proxy: { to: 'sync', path: '/ws', websocket: true, idleMs: 3_600_000 },
        },

        { path: '/*', files: { root: 'origin/cowrite/web', spa: true } },
      ],
    },
  ],
} satisfies Table
