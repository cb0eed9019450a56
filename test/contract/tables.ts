import type { Table } from '#edge/table.ts'

/** A row for each fact. What differs from run to run, such as ports and keys, comes from variables. */
const shop: Table = {
  name: 'shop',
  upstreams: {
    origin: { servers: ['${ORIGIN}'] },
    dead: { servers: ['http://127.0.0.1:1'] },
    half: { servers: ['http://127.0.0.1:1', '${ORIGIN}'] },
    sides: {
      split: {
        sides: {
          blue: { servers: ['${ORIGIN}'], weight: 75 },
          green: { servers: ['http://127.0.0.1:1'], weight: 25 },
        },
        sticky: { cookie: 'shop-side', maxAgeSeconds: 60 },
        force: { header: 'X-Side' },
      },
    },
    'first-dead': { servers: ['http://127.0.0.1:1', { url: '${ORIGIN}', backup: true }] },
  },
  keys: {
    secret: {
      secret: '${SECRET}',
      algorithms: ['HS256'],
      issuer: ['https://id.example', 'https://id2.example'],
      audience: 'shop',
      requiredClaims: ['sub'],
    },
    rsa: { publicKey: '${RSA_PEM}', algorithms: ['RS256'] },
    ec: { publicKey: '${EC_PEM}', algorithms: ['ES256'] },
    ed: { publicKey: '${ED_PEM}', algorithms: ['EdDSA'] },
    set: { jwks: '${KEY_SET}', algorithms: ['RS256', 'ES256', 'EdDSA'] },
  },
  sites: [
    {
      hosts: ['shop.example'],
      routes: [
        { path: '/row', respond: { status: 200, body: 'exact' } },
        { path: '/row/*', respond: { status: 200, body: 'prefix' } },
        { path: '/row/deep/*', respond: { status: 200, body: 'longer prefix' } },
        { path: '/row/deep/*', methods: ['POST'], respond: { status: 200, body: 'POST' } },
        { path: '/row/field/*', matchHeaders: { 'x-beta': 'yes' }, respond: { status: 200, body: 'field' } },
        { path: '/row/field/*', matchHeaders: { 'x-any': true }, respond: { status: 200, body: 'any field' } },
        { path: '/row/get', methods: ['GET'], respond: { status: 200, body: 'GET only' } },
        { path: '/only', methods: ['GET', 'PUT'], respond: { status: 200, body: 'only' } },
        { path: '/only', methods: ['DELETE'], respond: { status: 200, body: 'delete' } },

        { path: '/echo/*', proxy: { to: 'origin' } },
        { path: '/stripped/*', proxy: { to: 'origin', strip: '/stripped' } },
        { path: '/renamed/*', proxy: { to: 'origin', path: '/echo/renamed' } },
        { path: '/answers/*', proxy: { to: 'origin' } },
        { path: '/status/*', proxy: { to: 'origin' } },
        { path: '/wire/*', bodyBytesMax: 10_000_000, proxy: { to: 'origin' } },
        { path: '/wire/silent', proxy: { to: 'origin', readTimeoutMs: 250 } },
        { path: '/wire/stall', proxy: { to: 'origin', readTimeoutMs: 250 } },
        { path: '/cache/*', cache: 'shared', proxy: { to: 'origin' } },
        {
          path: '/cache/ruled/*',
          cache: { shared: { freshMs: 60_000, vary: ['X-Tenant'], entryBytesMax: 100 }, control: 'no-cache' },
          proxy: { to: 'origin' },
        },
        { path: '/dead', proxy: { to: 'dead' } },
        { path: '/half/*', proxy: { to: 'half', path: '/echo/half' } },
        { path: '/first-dead/*', proxy: { to: 'first-dead', path: '/echo/dead' } },
        { path: '/sides/*', proxy: { to: 'sides', path: '/echo/sides' } },
        { path: '/in-time/*', proxy: { to: 'origin', path: '/echo/in-time', timeoutMs: 5_000 } },
        { path: '/late', proxy: { to: 'origin', path: '/wire/silent', timeoutMs: 250 } },
        { path: '/body/*', bodyBytesMax: 1_000, proxy: { to: 'origin' } },

        { path: '/auth/secret', auth: { jwt: 'secret' }, proxy: { to: 'origin' } },
        { path: '/auth/RS256', auth: { jwt: 'rsa' }, proxy: { to: 'origin' } },
        { path: '/auth/ES256', auth: { jwt: 'ec' }, proxy: { to: 'origin' } },
        { path: '/auth/EdDSA', auth: { jwt: 'ed' }, proxy: { to: 'origin' } },
        { path: '/auth/set', auth: { jwt: 'set' }, proxy: { to: 'origin' } },
        { path: '/auth/cookie', auth: { jwt: 'secret', from: { cookie: 'session' } }, proxy: { to: 'origin' } },
        { path: '/auth/query', auth: { jwt: 'secret', from: { query: 'token' } }, proxy: { to: 'origin' } },
        {
          path: '/auth/any',
          auth: { jwt: 'secret', from: ['bearer', { cookie: 'session' }] },
          proxy: { to: 'origin' },
        },
        { path: '/auth/optional', auth: { jwt: 'secret', optional: true }, proxy: { to: 'origin' } },
        {
          path: '/auth/claims',
          auth: { jwt: 'secret', claims: { role: ['admin', 'owner'] } },
          proxy: { to: 'origin' },
        },

        { path: '/limit/address', limit: { by: 'address', requests: 2, per: '1 h' }, proxy: { to: 'origin' } },
        { path: '/limit/field', limit: { by: { header: 'X-Key' }, requests: 2, per: '1 h' }, proxy: { to: 'origin' } },
        {
          path: '/limit/subject',
          auth: { jwt: 'secret' },
          limit: { by: 'subject', requests: 2, per: '1 h' },
          proxy: { to: 'origin' },
        },
        {
          path: '/limit/burst',
          limit: { by: { header: 'x-key' }, requests: 1, per: '1 h', burst: 3 },
          proxy: { to: 'origin' },
        },
        {
          path: '/limit/two',
          limit: [
            { by: { header: 'x-key' }, requests: 1, per: '1 h' },
            { by: { header: 'x-other' }, requests: 5, per: '1 h' },
          ],
          proxy: { to: 'origin' },
        },
        {
          path: '/limit/before-auth',
          auth: { jwt: 'secret' },
          limit: { by: { header: 'x-key' }, requests: 1, per: '1 h' },
          proxy: { to: 'origin' },
        },

        {
          path: '/edits/request',
          requestHeaders: {
            set: { 'X-Tier': 'gold', 'User-Agent': 'gateway' },
            remove: ['x-secret', 'Accept-Language'],
          },
          proxy: { to: 'origin' },
        },
        {
          path: '/edits/response',
          responseHeaders: {
            set: { 'X-Origin': 'edited', 'X-Added': 'yes' },
            remove: ['Content-Type', 'Referrer-Policy'],
          },
          proxy: { to: 'origin' },
        },
        { path: '/edits/strict', headers: 'strict', proxy: { to: 'origin' } },
        { path: '/edits/none', headers: 'none', proxy: { to: 'origin' } },
        { path: '/edits/own', headers: { 'X-Frame-Options': 'DENY', 'X-Own': '1' }, proxy: { to: 'origin' } },
        { path: '/edits/cached', cache: 'no-store', proxy: { to: 'origin', path: '/answers/cached' } },
        { path: '/edits/cached-error', cache: 'immutable', proxy: { to: 'origin', path: '/answers/cached-error' } },
        { path: '/edits/control', cache: { control: 'max-age=5' }, respond: { status: 200, body: 'x' } },

        { path: '/go/*', redirect: { to: 'https://{host}/new{path}{query}' } },
        { path: '/see', redirect: { to: '/elsewhere', status: 303 } },
        { path: '/tea', respond: { status: 418, type: 'text/html', body: '<p>tea</p>' } },
        { path: '/nothing', respond: { status: 204 } },

        { path: '/ws', auth: { jwt: 'secret', from: { query: 'token' } }, proxy: { to: 'origin', websocket: true } },
        { path: '/ws-open/*', proxy: { to: 'origin', strip: '/ws-open', websocket: true } },
        { path: '/ws-closed', proxy: { to: 'origin', path: '/echo/plain' } },
        { path: '/ws-dead', proxy: { to: 'dead', websocket: true } },
      ],
    },
    {
      hosts: ['timed.example'],
      serverTiming: true,
      routes: [
        { path: '/echo', proxy: { to: 'origin' } },
        { path: '/tea', respond: { status: 418 } },
      ],
    },
    { hosts: ['*.shop.example'], routes: [{ path: '/*', respond: { status: 200, body: 'wildcard' } }] },
    { hosts: ['*.eu.shop.example'], routes: [{ path: '/*', respond: { status: 200, body: 'longer wildcard' } }] },
    { hosts: ['api.shop.example'], routes: [{ path: '/*', respond: { status: 200, body: 'exact host' } }] },
    {
      hosts: ['pages.example'],
      cors: {
        origins: ['https://app.example', '${PAGES:-http://127.0.0.1:3000, http://localhost:3000}'],
        credentials: true,
        methods: ['GET', 'POST', 'PUT'],
        headers: ['Authorization', 'Content-Type', 'X-Key'],
        exposedHeaders: ['X-Origin'],
        maxAgeSeconds: 60,
      },
      routes: [
        { path: '/echo/*', proxy: { to: 'origin' } },
        { path: '/answers/*', proxy: { to: 'origin' } },
        { path: '/here', respond: { status: 200, body: 'here' } },
        { path: '/auth', auth: { jwt: 'secret' }, proxy: { to: 'origin' } },
        {
          path: '/limit',
          limit: { by: { header: 'x-key' }, requests: 1, per: '1 h' },
          respond: { status: 200, body: 'once' },
        },
        { path: '/body', bodyBytesMax: 10, proxy: { to: 'dead' } },
        { path: '/dead', proxy: { to: 'dead' } },
        { path: '/only', methods: ['GET', 'OPTIONS'], respond: { status: 200, body: 'only' } },
        { path: '/beta', matchHeaders: { 'x-beta': true }, respond: { status: 200, body: 'beta' } },
        { path: '/beta', respond: { status: 200, body: 'all' } },
        {
          path: '/public',
          cors: { origins: '*', headers: '*' },
          respond: { status: 200, body: 'public' },
        },
        { path: '/own/*', cors: false, proxy: { to: 'origin', strip: '/own' } },
        { path: '/own', cors: false, proxy: { to: 'origin', path: '/answers/cors' } },
      ],
    },
    {
      hosts: ['files.example'],
      routes: [
        { path: '/*', files: { root: '${FILES:-}origin/shop/web', spa: true, immutable: ['js'], noStore: ['sw.js'] } },
        { path: '/plain/*', files: { root: '${FILES:-}origin/shop/web' } },
        { path: '/other/*', files: { root: '${FILES:-}origin/shop' } },
        {
          path: '/docs/*',
          cache: { control: 'max-age=60' },
          headers: 'strict',
          files: { root: '${FILES:-}origin/shop/web/docs' },
        },
      ],
    },
    {
      hosts: ['secure.example'],
      https: { hsts: { maxAgeSeconds: 60, includeSubDomains: true } },
      routes: [
        { path: '/*', proxy: { to: 'origin', path: '/echo/secure' } },
        { path: '/health', https: false, respond: { status: 200, body: 'OK' } },
      ],
    },
    {
      hosts: ['behind.example', 'beside.example'],
      trustedEdges: { secret: '${EDGE_SECRET}' },
      https: true,
      routes: [{ path: '/*', proxy: { to: 'origin' } }],
    },
    {
      // Found by its address: for an edge that asks for the URL as it came.
      hosts: ['127.0.0.1'],
      trustedEdges: { secret: '${EDGE_SECRET}' },
      routes: [
        { path: '/*', proxy: { to: 'origin' } },
        {
          path: '/stripped/*',
          requestHeaders: { set: { 'X-Row': 'stripped' } },
          proxy: { to: 'origin', strip: '/stripped' },
        },
        { path: '/body/*', bodyBytesMax: 1_000, proxy: { to: 'origin' } },
        {
          path: '/secret',
          auth: { jwt: 'secret' },
          requestHeaders: { remove: ['Authorization'] },
          proxy: { to: 'origin', path: '/echo' },
        },
        { path: '/vm/*', files: { root: '${VM_FILES:-certs/none}' } },
        { path: '/ws', proxy: { to: 'origin', websocket: true } },
      ],
    },
  ],
}

/** The same rows in each shape of errors. */
const shapes: Table = {
  name: 'shapes',
  upstreams: { dead: { servers: ['http://127.0.0.1:1'] } },
  sites: (['problem', 'nest', 'fastapi', 'drf'] as const).map((shape) => ({
    hosts: [`${shape}.example`],
    errors: shape,
    routes: [
      { path: '/dead', proxy: { to: 'dead' } },
      { path: '/body', bodyBytesMax: 10, proxy: { to: 'dead' } },
      {
        path: '/limit',
        limit: { by: { header: 'x-key' }, requests: 1, per: '1 h' },
        respond: { status: 200, body: 'once' },
      },
    ],
  })),
}

export const tables = [shop, shapes]
