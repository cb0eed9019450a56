import type { Table } from '../table.ts'

/** HomeworkHelper: play sessions of games, uploaded by a PC and a phone to a server on the same private network. */
export default {
  name: 'homework-helper',
  upstreams: {
    api: { servers: ['${HOMEWORK_HELPER_API:-http://127.0.0.1:8000}'] },
  },
  keys: {
    // The API signs these tokens, for 30 days; both read the same secret.
    api: { secret: '${HOMEWORK_HELPER_JWT_SECRET}', algorithms: ['HS256'], requiredClaims: ['sub'] },
  },
  sites: [
    {
      // Clients dial the virtual machine's address on a host-only network: plain http, so there is no redirect.
      hosts: ['homework-helper.example', '192.168.56.10'],
      errors: 'fastapi',
      // The pages that the API lets in too: they must be able to read what is refused here.
      cors: {
        origins:
          '${HOMEWORK_HELPER_CORS_ORIGINS:-http://localhost:3000,http://localhost:8000,http://127.0.0.1:8000,http://192.168.56.1:8000}',
        credentials: true,
        methods: ['GET', 'POST', 'PUT', 'PATCH', 'DELETE'],
        headers: ['Authorization', 'Content-Type', 'Idempotency-Key'],
        exposedHeaders: ['Idempotency-Replayed'],
      },
      // Everywhere 10 s: clients give up after 5 to 10, and what comes later reaches nobody.
      routes: [
        // What gives tokens cannot ask for one.
        { path: '/api/v1/auth/*', proxy: { to: 'api', readTimeoutMs: 10_000 } },

        // On this network all clients may share the host's address, so a guesser is slowed down and a household is not.
        {
          path: '/api/v1/auth/login',
          methods: ['POST'],
          limit: { by: 'address', requests: 30, per: '1 m', whenDown: 'closed' },
          bodyBytesMax: 16_384,
          proxy: { to: 'api', readTimeoutMs: 10_000 },
        },
        {
          path: '/api/v1/auth/register',
          methods: ['POST'],
          limit: { by: 'address', requests: 60, per: '1 m', whenDown: 'closed' },
          bodyBytesMax: 16_384,
          proxy: { to: 'api', readTimeoutMs: 10_000 },
        },

        // Everything else of the API needs a token, also what does not exist: a stranger learns nothing by asking.
        { path: '/api/v1/*', auth: { jwt: 'api' }, proxy: { to: 'api', readTimeoutMs: 10_000 } },

        // The API is the whole site, its front page and its documentation included.
        { path: '/*', proxy: { to: 'api', readTimeoutMs: 10_000 } },
      ],
    },
  ],
} satisfies Table
