import { generateKeyPairSync } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { compileTables, ConfigError, toFaultLine } from '#edge/compile.ts'
import type { TableSource } from '#edge/compile.ts'
import { tables } from '#edge/sites/index.ts'
import { tableShape } from '#edge/table-shape.ts'
import type { Table } from '#edge/table.ts'
import { requiredVariables } from '#edge/variables.ts'

const secret = 'g0VN7Xl2kq9Lw4TzYb8EhRs1MfUcJp6D'
const environment = { COWRITE_JWT_SECRET: secret }

/** Both runtimes and the documentation start from this one: `tsc` checks that the types take it, too. */
const sample = {
  name: 'cowrite',
  upstreams: {
    core: { servers: ['${COWRITE_CORE:-http://127.0.0.1:8100}'], connectTimeoutMs: 2_000 },
    sync: { servers: ['${COWRITE_SYNC:-http://127.0.0.1:8102}'] },
  },
  keys: { cowrite: { secret: '${COWRITE_JWT_SECRET}', algorithms: ['HS256'] } },
  sites: [
    {
      hosts: ['cowrite.example'],
      errors: 'nest',
      headers: 'strict',
      routes: [
        { path: '/health', respond: { status: 200, type: 'text/plain', body: 'OK' } },
        {
          path: '/api/auth/*',
          limit: { by: 'address', requests: 10, per: '1 m' },
          proxy: { to: 'core', strip: '/api' },
        },
        {
          path: '/api/*',
          auth: { jwt: 'cowrite' },
          bodyBytesMax: 50_000_000,
          proxy: { to: 'core', strip: '/api' },
        },
        {
          path: '/ws',
          auth: { jwt: 'cowrite', from: { query: 'token' } },
          proxy: { to: 'sync', websocket: true, idleMs: 3_600_000 },
        },
        { path: '/*', files: { root: 'origin/cowrite/web', spa: true } },
      ],
    },
  ],
} satisfies Table

/** Everything that is wrong with some tables, a line each, as people read it. */
async function findFaults(sources: TableSource[], { development = false } = {}): Promise<string[]> {
  try {
    await compileTables(sources, { environment, development })
    return []
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    expect(error.message).toBe(error.faults.map(toFaultLine).join('\n'))
    return error.faults.map((fault) => shorten(toFaultLine(fault)))
  }
}

/** Without the lists of all keys, which are held against the types below. */
const shorten = (line: string): string =>
  line.replace(/(make it an object with \w+).*/, '$1 …').replace(/known: path, .*/, 'known: path …')

const faultsOf = (table: unknown): Promise<string[]> => findFaults([{ table }])

/** A table with one row, or with what is given. */
const withRow = (row: unknown): unknown => withRows([row])
const withRows = (routes: unknown): unknown => withSite({ routes })
const withSite = (site: object): unknown =>
  withTable({ sites: [{ hosts: ['shop.example'], routes: [hello], ...site }] })
const withKey = (key: unknown): unknown => withTable({ keys: { access: key } })
const withTable = (table: object): unknown => ({
  name: 'shop',
  upstreams: { core: { servers: ['http://127.0.0.1:8100'] } },
  keys: { access: { secret, algorithms: ['HS256'] } },
  sites: [{ hosts: ['shop.example'], routes: [hello] }],
  ...table,
})
const side = { servers: ['http://h:1'], weight: 1 }
const hello = { path: '/hello', respond: { status: 200 } }

function toPem(bits: number, exponent = 65_537): string {
  const { publicKey } = generateKeyPairSync('rsa', { modulusLength: bits, publicExponent: exponent })
  return publicKey.export({ type: 'spki', format: 'pem' }).toString()
}

describe('a sound table', () => {
  it('compiles', async () => {
    expect(await faultsOf(sample)).toEqual([])
  })

  it('is each of the shipped ones, once their variables are set', async () => {
    const names = requiredVariables(tables)
    expect(names).toContain('COWRITE_JWT_SECRET')
    const compiled = await compileTables(
      tables.map((table) => ({ table })),
      { environment: Object.fromEntries(names.map((name) => [name, secret])), development: true },
    )
    expect(compiled.sites.length).toBeGreaterThanOrEqual(5)
    expect(Object.isFrozen(compiled)).toBe(true)
  })

  it('is one whose keys are undefined as well as one that leaves them out', async () => {
    expect(await faultsOf(withRow({ ...hello, limit: undefined, methods: undefined }))).toEqual([])
  })

  it('may say everything that a table can say', async () => {
    const row = {
      path: '/api/*',
      methods: ['GET', 'POST', 'M-SEARCH'],
      matchHeaders: { 'x-client': true, accept: 'application/json' },
      https: false,
      limit: [
        { by: 'address', requests: 10, per: '1 s', burst: 20, whenDown: 'closed' },
        { by: 'subject', requests: 1_000, per: '1 d' },
        { by: { header: 'x-api-key' }, requests: 5, per: '10s' },
      ],
      auth: {
        jwt: 'access',
        from: ['bearer', { cookie: 'access' }, { query: 'token' }],
        optional: true,
        claims: { role: ['a', 'b'], type: 'access' },
      },
      bodyBytesMax: 0,
      cache: { control: 'public, max-age=60' },
      headers: { 'X-Frame-Options': 'DENY' },
      errors: 'drf',
      requestHeaders: { set: { 'x-forwarded-prefix': '/api' }, remove: ['cookie'] },
      responseHeaders: { set: { 'x-served-by': 'daemun' }, remove: ['server'] },
      proxy: { to: 'core', strip: '/api', websocket: true, readTimeoutMs: 1, idleMs: 1 },
    }
    const site = {
      hosts: ['shop.example', '*.shop.example', '[::1]', '127.0.0.1', 'localhost'],
      default: true,
      https: { redirect: false, hsts: { maxAgeSeconds: 1, includeSubDomains: true, preload: true } },
      trustedEdges: { secret },
      routes: [row, { path: '/old/*', redirect: { to: 'https://{host}{path}{query}', status: 302 } }],
    }
    expect(await faultsOf(withSite(site))).toEqual([])
  })
})

/** A table, and all that is wrong with it. */
const cases: [name: string, table: unknown, faults: string[]][] = [
  ['that is a number', 5, ['table: is 5: make it an object with name …']],
  ['that is nothing', null, ['table: is null: make it an object with name …']],
  ['that is a list', [], ['table: is a list: make it an object with name …']],
  ['that is a function', () => sample, ['table: is a function: make it an object with name …']],
  ['that is a Map', new Map(), ['table: is a Map: make it an object with name …']],
  ['that is empty', {}, ["table: has no 'name': add 'name'", "table: has no 'sites': add 'sites'"]],
  [
    'whose name is not one',
    withTable({ name: 'My Shop' }),
    ["My Shop: name is 'My Shop': write lower-case letters, digits and dashes"],
  ],
  [
    'with unknown keys everywhere',
    {
      name: 'shop',
      upstream: {},
      upstreams: { core: { servers: ['http://h:1'], connectTimeout: 1 } },
      keys: { access: { secret, algorithms: ['HS256'], issuers: 'x' } },
      sites: [
        {
          hosts: ['shop.example'],
          host: 'x',
          https: { hsts: { maxAgeSeconds: 1, maxAge: 1 }, redirects: true },
          trustedEdges: { secret, skew: 1 },
          routes: [
            {
              path: '/a',
              auht: {},
              limit: { by: { header: 'x-key', headers: 'x' }, requests: 1, per: '1 s', bursts: 1 },
              auth: { jwt: 'access', from: { cookie: 'c', secure: true }, option: true },
              cache: { control: 'x', controls: 'x' },
              requestHeaders: { sets: {} },
              proxy: { to: 'core', stripe: '/a' },
            },
            { path: '/b', files: { root: 'x', sap: true } },
            { path: '/c', redirect: { to: '/', code: 301 } },
            { path: '/d', respond: { status: 200, headers: {} } },
          ],
        },
      ],
    },
    [
      "shop: has an unknown key 'upstream': did you mean 'upstreams'?",
      "shop: upstreams.core has an unknown key 'connectTimeout': did you mean 'connectTimeoutMs'?",
      "shop: keys.access has an unknown key 'issuers': did you mean 'issuer'?",
      "shop: sites[0] has an unknown key 'host': did you mean 'hosts'?",
      "shop: sites[0].https has an unknown key 'redirects': did you mean 'redirect'?",
      "shop: sites[0].https.hsts has an unknown key 'maxAge': known: maxAgeSeconds, includeSubDomains, preload",
      "shop: sites[0].trustedEdges has an unknown key 'skew': known: secret",
      "shop: row '/a' has an unknown key 'auht': did you mean 'auth'?",
      "shop: row '/a', limit has an unknown key 'bursts': did you mean 'burst'?",
      "shop: row '/a', limit.by has an unknown key 'headers': did you mean 'header'?",
      "shop: row '/a', auth has an unknown key 'option': did you mean 'optional'?",
      "shop: row '/a', auth.from has an unknown key 'secure': known: cookie",
      "shop: row '/a', cache has an unknown key 'controls': did you mean 'control'?",
      "shop: row '/a', requestHeaders has an unknown key 'sets': did you mean 'set'?",
      "shop: row '/a', proxy has an unknown key 'stripe': did you mean 'strip'?",
      "shop: row '/b', files has an unknown key 'sap': did you mean 'spa'?",
      "shop: row '/c', redirect has an unknown key 'code': known: to, status",
      "shop: row '/d', respond has an unknown key 'headers': known: status, type, body",
    ],
  ],
  [
    'whose rows misspell an upstream and a key',
    withRow({ path: '/a', auth: { jwt: 'acces' }, proxy: { to: 'croe' } }),
    [
      "shop: row '/a', proxy.to names the upstream 'croe', which is not declared: did you mean 'core'?",
      "shop: row '/a', auth.jwt names the key 'acces', which is not declared: did you mean 'access'?",
    ],
  ],
  [
    'that names upstreams and keys and declares none',
    withTable({
      upstreams: undefined,
      keys: undefined,
      sites: [{ hosts: ['shop.example'], routes: [{ path: '/a', auth: { jwt: 'access' }, proxy: { to: 'core' } }] }],
    }),
    [
      "shop: row '/a', proxy.to names the upstream 'core', which is not declared: declare it in the table's 'upstreams'",
      "shop: row '/a', auth.jwt names the key 'access', which is not declared: declare it in the table's 'keys'",
    ],
  ],
  [
    'with two actions, and with none',
    withRows([{ path: '/a', proxy: { to: 'core' }, respond: { status: 200 } }, { path: '/b' }]),
    [
      "shop: row '/a' has 2 actions (proxy, respond): give it exactly one of proxy, files, redirect, respond",
      "shop: row '/b' has no action: give it exactly one of proxy, files, redirect, respond",
    ],
  ],
  [
    'whose rows can match no request',
    withRows(
      [
        '/a*',
        '/a/*/b',
        '/:id',
        '/v1/x:do',
        '/{id}',
        '/(a|b)',
        '/a//b',
        '/a/../b',
        '/a%2fb',
        '/%61',
        '/a?b',
        '/a b',
        '/ü',
      ].map((path) => ({
        path,
        respond: { status: 200 },
      })),
    ),
    [
      "shop: row '/a*', path '/a*' can match no request: '*' may only be the last segment",
      "shop: row '/a/*/b', path '/a/*/b' can match no request: '*' may only be the last segment",
      "shop: row '/:id', path '/:id' can match no request: ':' cannot stand in a row's path; there are no parameters",
      "shop: row '/v1/x:do', path '/v1/x:do' can match no request: ':' cannot stand in a row's path; there are no parameters",
      "shop: row '/{id}', path '/{id}' can match no request: '{' cannot stand in a row's path; there are no parameters",
      "shop: row '/(a|b)', path '/(a|b)' can match no request: '(' cannot stand in a row's path; there are no parameters",
      "shop: row '/a//b', path '/a//b' can match no request: the path has an empty segment",
      "shop: row '/a/../b', path '/a/../b' can match no request: the path has a dot segment",
      "shop: row '/a%2fb', path '/a%2fb' can match no request: the path has an escaped slash, backslash or NUL",
      "shop: row '/%61', path '/%61' can match no request: write it as '/a', the form that requests are compared in",
      "shop: row '/a?b', path '/a?b' can match no request: '?' cannot stand in a row's path; there are no parameters",
      "shop: row '/a b', path '/a b' can match no request: the path has a character that must be escaped",
      "shop: row '/ü', path '/ü' can match no request: the path has a character that must be escaped",
    ],
  ],
  [
    'whose methods and fields no request can have',
    withRow({
      path: '/a',
      methods: ['ALL', 'TRACE'],
      matchHeaders: { upgrade: 'websocket', 'x-forwarded-proto': 'https' },
      limit: { by: { header: 'x-real-ip' }, requests: 1, per: '1 s' },
      respond: { status: 200 },
    }),
    [
      "shop: row '/a', methods has 'ALL', which is no method: leave 'methods' out to mean all",
      "shop: row '/a', methods has TRACE, which is never served: drop it",
      "shop: row '/a', matchHeaders names 'upgrade', which is not passed on, so no request has it here: name another field",
      "shop: row '/a', matchHeaders names 'x-forwarded-proto', which is not passed on, so no request has it here: name another field",
      "shop: row '/a', limit.by.header names 'x-real-ip', which is not passed on, so no request has it here: name another field",
    ],
  ],
  [
    'that sets fields which the gateway sets',
    withSite({
      headers: { 'Content-Length': '1' },
      routes: [
        {
          path: '/a',
          requestHeaders: { set: { Host: 'h', 'Transfer-Encoding': 'chunked', 'X-User-Id': '1', 'X-Real-IP': '::1' } },
          responseHeaders: { set: { connection: 'close' } },
          headers: { 'x-request-id': '1' },
          proxy: { to: 'core' },
        },
      ],
    }),
    [
      "shop: sites[0].headers sets 'Content-Length', which the gateway sets itself: drop it",
      "shop: row '/a', requestHeaders.set sets 'Host', which the gateway sets itself: drop it",
      "shop: row '/a', requestHeaders.set sets 'Transfer-Encoding', which the gateway sets itself: drop it",
      "shop: row '/a', requestHeaders.set sets 'X-User-Id', which the gateway sets itself: drop it",
      "shop: row '/a', requestHeaders.set sets 'X-Real-IP', which the gateway sets itself: drop it",
      "shop: row '/a', responseHeaders.set sets 'connection', which the gateway sets itself: drop it",
      "shop: row '/a', headers sets 'x-request-id', which the gateway sets itself: drop it",
    ],
  ],
  [
    'whose origins no browser writes, or that says of them what no browser obeys',
    withSite({
      cors: { origins: ['*', 'https://app.example'], credentials: true, headers: '*' },
      routes: [
        { path: '/a', cors: { origins: 'https://app.example/' }, respond: { status: 200 } },
        { path: '/b', cors: { origins: 'http://app.example:80, https://App.example' }, respond: { status: 200 } },
        { path: '/c', cors: { origins: ['null', '*.app.example'] }, respond: { status: 200 } },
        { path: '/d', cors: { origins: ['https://a.example', '*'] }, respond: { status: 200 } },
        {
          path: '/e',
          cors: { origins: '["https://a.example", "https://b.example"]' },
          responseHeaders: { set: { 'access-control-allow-origin': '*' } },
          respond: { status: 200 },
        },
      ],
    }),
    [
      "shop: sites[0].cors.origins has '*' and others: leave '*' out, or the others",
      "shop: sites[0].cors.credentials cannot go with the origin '*': list the origins whose pages may use them",
      "shop: sites[0].cors.headers cannot be '*' with credentials: list them",
      ...[
        ["'/a', cors.origins is 'https://app.example/'"],
        ["'/b', cors.origins is 'http://app.example:80, https://App.example'"],
        ["'/c', cors.origins[0] is 'null'"],
        ["'/c', cors.origins[1] is '*.app.example'"],
      ].map(
        ([what]) =>
          `shop: row ${what}: write an origin as browsers write it, such as 'https://app.example': no path, no default port, lower case`,
      ),
      "shop: row '/d', cors.origins has '*' and others: leave '*' out, or the others",
      "shop: row '/e', cors says what the row also sets: access-control-allow-origin: drop 'access-control-allow-origin'",
    ],
  ],
  [
    'whose variables are missing, without complaints about what they would bring',
    {
      name: 'shop',
      upstreams: { core: { servers: ['${SHOP_CORE}'] } },
      keys: {
        access: { secret: '${SHOP_SECRET}', algorithms: ['HS256'] },
        partner: { jwks: '${SHOP_JWKS}', algorithms: ['RS256'] },
        old: { publicKey: '${SHOP_PEM}', algorithms: ['RS256'] },
      },
      sites: [
        {
          hosts: ['${SHOP_HOST}', 'shop.example'],
          trustedEdges: { secret: '${SHOP_EDGE}' },
          routes: [
            { path: '/a/*', limit: { by: 'address', requests: 1, per: '${SHOP_PER}' }, proxy: { to: 'core' } },
            { path: '/b/*', auth: { jwt: '${SHOP_KEY}' }, proxy: { to: '${SHOP_UPSTREAM}' } },
            { path: '${SHOP_PATH}', proxy: { to: 'core' } },
          ],
        },
      ],
    },
    [
      'shop: upstreams.core.servers[0] needs the variable SHOP_CORE, which is not set: set SHOP_CORE in the environment or in .env',
      'shop: keys.access.secret needs the variable SHOP_SECRET, which is not set: set SHOP_SECRET in the environment or in .env',
      'shop: keys.partner.jwks needs the variable SHOP_JWKS, which is not set: set SHOP_JWKS in the environment or in .env',
      'shop: keys.old.publicKey needs the variable SHOP_PEM, which is not set: set SHOP_PEM in the environment or in .env',
      'shop: sites[0].hosts[0] needs the variable SHOP_HOST, which is not set: set SHOP_HOST in the environment or in .env',
      'shop: sites[0].trustedEdges.secret needs the variable SHOP_EDGE, which is not set: set SHOP_EDGE in the environment or in .env',
      "shop: row '/a/*', limit.per needs the variable SHOP_PER, which is not set: set SHOP_PER in the environment or in .env",
      "shop: row '/b/*', auth.jwt needs the variable SHOP_KEY, which is not set: set SHOP_KEY in the environment or in .env",
      "shop: row '/b/*', proxy.to needs the variable SHOP_UPSTREAM, which is not set: set SHOP_UPSTREAM in the environment or in .env",
      "shop: row '${SHOP_PATH}', path needs the variable SHOP_PATH, which is not set: set SHOP_PATH in the environment or in .env",
    ],
  ],
  [
    'with something that is no variable',
    withRow({ path: '/a', respond: { status: 200, body: '${not a name}' } }),
    ["shop: row '/a', respond.body has '${not a name}', which is no variable: write '${NAME}' or '${NAME:-default}'"],
  ],
  [
    'whose keys cannot be used as they are',
    withTable({
      keys: {
        none: { algorithms: ['HS256'] },
        both: { secret, jwks: 'https://id.example/keys', algorithms: ['HS256'] },
        three: { secret, publicKey: toPem(2_048), jwks: 'https://id.example/keys', algorithms: ['RS256'] },
        mixed: { secret, algorithms: ['HS256', 'RS256'] },
        'secret-with-rs': { secret, algorithms: ['RS256'] },
        'public-with-hs': { publicKey: toPem(2_048), algorithms: ['HS256'] },
        'set-with-hs': { jwks: 'https://id.example/keys', algorithms: ['HS256'] },
        'rs-for-es': { publicKey: toPem(2_048), algorithms: ['ES256'] },
        small: { publicKey: toPem(1_024), algorithms: ['RS256'] },
        cubic: { publicKey: toPem(2_048, 3), algorithms: ['RS256'] },
        unsigned: { secret, algorithms: ['none'] },
        empty: { secret, algorithms: [] },
        short: { secret: 'Xk2$pQ9!', algorithms: ['HS256'] },
        patient: { secret, algorithms: ['HS256'], clockToleranceSeconds: 3_600 },
      },
    }),
    [
      "shop: keys.unsigned.algorithms[0] is 'none': known: HS256, RS256, ES256, EdDSA",
      'shop: keys.empty.algorithms is empty: give at least 1',
      'shop: keys.patient.clockToleranceSeconds is 3600: write a whole number from 0 to 60',
      "shop: keys.none has nothing to verify with: give it exactly one of 'secret', 'publicKey' and 'jwks'",
      "shop: keys.both has secret and jwks: give it exactly one of 'secret', 'publicKey' and 'jwks'",
      "shop: keys.three has secret and publicKey and jwks: give it exactly one of 'secret', 'publicKey' and 'jwks'",
      'shop: keys.mixed.algorithms mixes secrets (HS256) and public keys (RS256): a public key is no secret: make two keys',
      "shop: keys.secret-with-rs.algorithms RS256 cannot be verified with a 'secret': write HS256",
      "shop: keys.public-with-hs.algorithms HS256 cannot be verified with a 'publicKey': write RS256, ES256 or EdDSA",
      "shop: keys.set-with-hs.algorithms HS256 cannot be verified with a 'jwks': write RS256, ES256 or EdDSA",
      'shop: keys.rs-for-es.publicKey is no key for ES256: give the public key of the signer as PEM (SPKI); RSA with at least 2048 bits and the exponent 65537',
      'shop: keys.small.publicKey is too weak: give the public key of the signer as PEM (SPKI); RSA with at least 2048 bits and the exponent 65537',
      'shop: keys.cubic.publicKey is too weak: give the public key of the signer as PEM (SPKI); RSA with at least 2048 bits and the exponent 65537',
      "shop: keys.short.secret has 8 bytes; 32 are needed: make one with 'openssl rand -base64 48'",
    ],
  ],
  [
    'whose key sets come over plain http',
    withTable({
      keys: Object.fromEntries(
        [
          'http://id.example/',
          'http://localhost:80@id.example/',
          'https://',
          'https://u:p@id.example/',
          'file:///k',
        ].map((jwks, index) => [`k${index}`, { jwks, algorithms: ['RS256'] }]),
      ),
    }),
    ['http://id.example/', 'http://localhost:80@id.example/', 'https://', 'https://u:p@id.example/', 'file:///k'].map(
      (jwks, index) => `shop: keys.k${index}.jwks is '${jwks}': write an https URL (http only on a loopback address)`,
    ),
  ],
  [
    'whose servers are no origins',
    withTable({
      upstreams: {
        core: {
          servers: [
            'http://h:1/path',
            'h:1',
            'http://h:99999',
            'http://1.2.3.4.5',
            'ftp://h',
            'http://u@h',
            'http://h?q',
          ],
        },
      },
    }),
    ['http://h:1/path', 'h:1', 'http://h:99999', 'http://1.2.3.4.5', 'ftp://h', 'http://u@h', 'http://h?q'].map(
      (server, index) =>
        `shop: upstreams.core.servers[${index}] is '${server}': write an origin such as 'http://127.0.0.1:8100', without a path`,
    ),
  ],
  [
    'whose upstreams nobody can have meant',
    withTable({
      upstreams: {
        backups: { servers: [{ url: 'http://h:1', backup: true }] },
        weightless: {
          servers: [
            { url: 'http://h:1', weight: 0 },
            { url: 'http://h:2', weight: 1, backup: true },
          ],
        },
        twice: { servers: ['http://h:1', { url: 'http://h:1/' }] },
        unseen: { servers: ['http://h:1'], balance: { hash: { header: 'X-Real-IP' } } },
        shapes: {
          servers: [5, { weight: 1_001 }],
          balance: 'random',
          health: { path: 'health', everyMs: 1, healthyAfter: 0 },
          inFlightMax: 0,
        },
      },
    }),
    [
      'shop: upstreams.shapes.servers[0] is 5: make it an object with url …',
      "shop: upstreams.shapes.servers[1] has no 'url': add 'url'",
      'shop: upstreams.shapes.servers[1].weight is 1001: write a whole number from 0 to 1000',
      "shop: upstreams.shapes.balance is 'random': known: round-robin, least-connections",
      "shop: upstreams.shapes.health.path is 'health': write a path such as '/health'",
      'shop: upstreams.shapes.health.everyMs is 1: write a whole number from 100 to 3600000',
      'shop: upstreams.shapes.health.healthyAfter is 0: write a whole number from 1 to 100',
      'shop: upstreams.shapes.inFlightMax is 0: write a whole number from 1 to 1000000',
      'shop: upstreams.backups.servers are all backups: leave one that is not',
      'shop: upstreams.weightless.servers have no weight: give one a weight above 0',
      'shop: upstreams.twice.servers name http://h:1 twice: give it more weight instead',
      "shop: upstreams.unseen.balance.hash.header names 'X-Real-IP', which is not passed on, so no request has it here: name another field",
    ],
  ],
  [
    'with splits that cannot be meant',
    withTable({
      upstreams: {
        core: { servers: ['http://h:1'] },
        neither: {},
        both: { servers: ['http://h:1'], split: { sides: { a: side, b: side } } },
        one: { split: { sides: { a: side } } },
        weightless: { split: { sides: { a: { ...side, weight: 0 }, b: { ...side, weight: 0 } } } },
        three: { split: { sides: { a: side, b: side, c: side }, rollout: { to: 'a' } } },
        unknown: { split: { sides: { a: side, b: side }, rollout: { to: 'green', steps: [5, 5, 100] } } },
        twice: { split: { sides: { a: { servers: ['http://h:1', 'http://h:1'], weight: 1 }, b: side } } },
        unseen: { split: { sides: { a: side, b: side }, force: { header: 'X-Forwarded-For' } } },
        shapes: {
          split: {
            sides: { A: { servers: [], weight: -1 }, b: { servers: ['http://h:1'] } },
            sticky: { cookie: 'a b', maxAgeSeconds: 0 },
            rollout: { to: 'b', steps: [0, 101], everyMs: 1 },
          },
        },
      },
    }),
    [
      "shop: upstreams.shapes.split.sides has the key 'A', which is not lower-case letters, digits and dashes: rename it",
      'shop: upstreams.shapes.split.sides.A.servers is empty: give at least 1',
      'shop: upstreams.shapes.split.sides.A.weight is -1: write a whole number from 0 to 1000',
      "shop: upstreams.shapes.split.sides.b has no 'weight': add 'weight'",
      "shop: upstreams.shapes.split.sticky.cookie is 'a b': write a cookie name",
      'shop: upstreams.shapes.split.sticky.maxAgeSeconds is 0: write a whole number from 1 to 34560000',
      'shop: upstreams.shapes.split.rollout.steps[0] is 0: write a whole number from 1 to 100',
      'shop: upstreams.shapes.split.rollout.steps[1] is 101: write a whole number from 1 to 100',
      'shop: upstreams.shapes.split.rollout.everyMs is 1: write a whole number from 1000 to 86400000',
      "shop: upstreams.neither has no 'servers': add 'servers', or 'split' with sides that have them",
      "shop: upstreams.both has both 'servers' and 'split': put the servers into the sides",
      'shop: upstreams.one.split.sides are 1: declare two or more',
      'shop: upstreams.weightless.split.sides have no weight: give one a weight above 0',
      'shop: upstreams.three.split.rollout is for two sides, and there are 3: leave two',
      "shop: upstreams.unknown.split.rollout.to names the side 'green', which is not declared: known: a, b",
      'shop: upstreams.unknown.split.rollout.steps are 5, 5, 100: write them from the smallest to the largest',
      'shop: upstreams.twice.split.sides.a.servers name http://h:1 twice: give it more weight instead',
      "shop: upstreams.unseen.split.force.header names 'X-Forwarded-For', which is not passed on, so no request has it here: name another field",
    ],
  ],
  [
    'that would send again what may not be',
    withRows([
      { path: '/a', methods: ['POST', 'PATCH'], proxy: { to: 'core', retry: { attempts: 3 } } },
      { path: '/b', methods: ['POST'], proxy: { to: 'core', retry: false } },
      { path: '/c', methods: ['GET', 'POST'], proxy: { to: 'core', retry: { statuses: [503] } } },
      { path: '/d', proxy: { to: 'core', retry: { attempts: 1, statuses: [500] } } },
    ]),
    [
      "shop: row '/a', proxy.retry has nothing to send again: no POST or PATCH may be repeated: drop it",
      "shop: row '/d', proxy.retry.attempts is 1: write a whole number from 2 to 10",
      "shop: row '/d', proxy.retry.statuses[0] is 500: write 502, 503 or 504",
    ],
  ],
  [
    'with empty lists',
    withTable({
      upstreams: { core: { servers: [] } },
      sites: [
        { hosts: [], routes: [] },
        { hosts: ['shop.example'], routes: [{ ...hello, methods: [], limit: [] }] },
      ],
    }),
    [
      'shop: upstreams.core.servers is empty: give at least 1',
      'shop: sites[0].hosts is empty: give at least 1',
      'shop: sites[0].routes is empty: give at least 1',
      "shop: row '/hello', methods is empty: give at least 1",
      "shop: row '/hello', limit is empty: give at least 1",
    ],
  ],
  [
    'with wrong types, and says what was there',
    withTable({
      upstreams: { core: { servers: 'http://h:1' }, sync: null, Sync: { servers: ['http://h:1'] } },
      keys: { access: 5 },
      sites: [
        null,
        {
          hosts: ['Shop.Example', 'shop.example:80', 'shop.example'],
          default: 'yes',
          https: 1,
          routes: [
            'x',
            { path: 5, respond: { status: 200 } },
            {
              path: '/a',
              methods: 'GET',
              limit: { by: 'ip', requests: '10', per: '1 week' },
              auth: true,
              bodyBytesMax: 1.5,
              cache: 'forever',
              matchHeaders: { accept: false },
              requestHeaders: { set: { 'x y': 'a\nb' }, remove: 'cookie' },
              proxy: () => 'core',
            },
            { path: '/b', respond: { status: 99, body: new Date(0) } },
            { path: '/c', redirect: { to: 'shop.example', status: 304 } },
            { path: '/d', limit: { by: 'subject', requests: 1, per: '1000 d' }, auth: [], redirect: { to: '/{path}' } },
            { path: '/e', redirect: { to: 'https://shop.example{uri}' } },
          ],
        },
      ],
    }),
    [
      "shop: upstreams.core.servers is 'http://h:1': make it a list: […]",
      'shop: upstreams.sync is null: make it an object with servers …',
      "shop: upstreams has the key 'Sync', which is not lower-case letters, digits and dashes: rename it",
      'shop: keys.access is 5: make it an object with algorithms …',
      'shop: sites[0] is null: make it an object with hosts …',
      "shop: sites[1].hosts[0] is 'Shop.Example': write a lower-case host without port, such as 'shop.example' or '*.shop.example'",
      "shop: sites[1].hosts[1] is 'shop.example:80': write a lower-case host without port, such as 'shop.example' or '*.shop.example'",
      "shop: sites[1].default is 'yes': write true or false",
      'shop: sites[1].https is 1: make it an object with redirect …',
      "shop: sites[1].routes[0] is 'x': make it an object with path …",
      "shop: sites[1].routes[1].path is 5: write a path such as '/ws' or '/api/*'",
      "shop: row '/a', methods is 'GET': make it a list: […]",
      "shop: row '/a', matchHeaders.accept is false: write true",
      "shop: row '/a', limit.by is 'ip': known: address, subject",
      "shop: row '/a', limit.requests is '10': write a whole number from 1 to 1000000000",
      "shop: row '/a', limit.per is '1 week': write a duration such as '1 s', '10 s', '1 m', '1 h' or '1 d', at most '366 d'",
      "shop: row '/a', auth is true: make it an object with jwt …",
      "shop: row '/a', bodyBytesMax is 1.5: write a whole number from 0 to 9007199254740991",
      "shop: row '/a', cache is 'forever': known: no-store, revalidate, immutable, shared",
      "shop: row '/a', requestHeaders.set has the key 'x y', which is not a field name (letters, digits, dashes): rename it",
      "shop: row '/a', requestHeaders.set.x y is 'a\nb': write visible ASCII on one line",
      "shop: row '/a', requestHeaders.remove is 'cookie': make it a list: […]",
      "shop: row '/a', proxy is a function: make it an object with to …",
      "shop: row '/b', respond.status is 99: write a whole number from 200 to 599",
      "shop: row '/b', respond.body is a Date: write text",
      "shop: row '/c', redirect.to is 'shop.example': write a URL or a path, such as 'https://shop.example{path}{query}' or '/new'",
      "shop: row '/c', redirect.status is 304: write 301, 302, 303, 307 or 308",
      "shop: row '/d', limit.per is '1000 d': write a duration such as '1 s', '10 s', '1 m', '1 h' or '1 d', at most '366 d'",
      "shop: row '/d', auth is a list: make it an object with jwt …",
      "shop: row '/d', redirect.to is '/{path}': write a URL or a path, such as 'https://shop.example{path}{query}' or '/new'",
      "shop: row '/e', redirect.to is 'https://shop.example{uri}': write a URL or a path, such as 'https://shop.example{path}{query}' or '/new'",
    ],
  ],
  [
    'of whose rows one has a wrong type, without hiding what is wrong with the others',
    withTable({
      name: 5,
      upstreams: { core: { servers: 'h' } },
      sites: [
        {
          hosts: 5,
          routes: [
            { path: '/a', limit: 5, proxy: { to: 'cor' } },
            { path: '/b', auth: { jwt: 'a' } },
          ],
        },
        { hosts: ['shop.example'], routes: [{ path: '/c', proxy: { to: 'core', strip: '/d' } }, hello, hello] },
      ],
    }),
    [
      'table: name is 5: write lower-case letters, digits and dashes',
      "table: upstreams.core.servers is 'h': make it a list: […]",
      'table: sites[0].hosts is 5: make it a list: […]',
      "table: row '/a', limit is 5: make it an object with by …",
      "table: row '/a', proxy.to names the upstream 'cor', which is not declared: did you mean 'core'?",
      "table: row '/b' has no action: give it exactly one of proxy, files, redirect, respond",
      "table: row '/b', auth.jwt names the key 'a', which is not declared: known: access",
      "table: row '/c', proxy.strip '/d' does not lead '/c': strip only what every path of the row begins with",
      "table: row '/hello' can be reached by no request: 'table /hello' takes all that it matches: drop one of them, move the narrower one up, or tell them apart by methods or matchHeaders",
    ],
  ],
  [
    'whose upstreams and keys are lists, without complaints about what they would declare',
    withTable({
      upstreams: ['http://h:1'],
      keys: ['x'],
      sites: [{ hosts: ['shop.example'], routes: [{ path: '/a', auth: { jwt: 'access' }, proxy: { to: 'core' } }] }],
    }),
    ['shop: upstreams is a list: make it an object', 'shop: keys is a list: make it an object'],
  ],
  [
    'that limits by subject without a token',
    withRow({ path: '/a', limit: [{ by: 'subject', requests: 1, per: '1 s' }], respond: { status: 200 } }),
    ["shop: row '/a', limit counts by subject, but the row has no 'auth': add 'auth', or count by address"],
  ],
  [
    'that keeps what cannot be kept',
    withRows([
      { path: '/a', cache: 'shared', respond: { status: 200 } },
      { path: '/b', cache: {}, proxy: { to: 'core' } },
      { path: '/c', methods: ['POST'], cache: 'shared', proxy: { to: 'core' } },
      { path: '/d', cache: { shared: { vary: ['Cookie', 'X-Real-Ip', 'X-Tenant'] } }, proxy: { to: 'core' } },
      { path: '/e', cache: { shared: { freshMs: -1, entryBytesMax: 0 } }, proxy: { to: 'core' } },
    ]),
    [
      "shop: row '/a', cache is 'shared', and the row has no upstream whose answers could be kept: drop it",
      "shop: row '/b', cache says nothing: give it 'control', 'shared' or both",
      "shop: row '/c', cache is 'shared', and only answers to GET are kept: drop it",
      "shop: row '/d', cache.shared.vary names 'Cookie', which tells clients apart: drop it",
      "shop: row '/d', cache.shared.vary names 'X-Real-Ip', which tells clients apart: drop it",
      "shop: row '/e', cache.shared.freshMs is -1: write a whole number from 0 to 2147483647",
      "shop: row '/e', cache.shared.entryBytesMax is 0: write a whole number from 1 to 1073741824",
    ],
  ],
  [
    'whose proxies send what cannot be sent',
    withRows([
      { path: '/a/*', proxy: { to: 'core', strip: '/b' } },
      { path: '/ab/*', proxy: { to: 'core', strip: '/a' } },
      { path: '/c', proxy: { to: 'core', strip: '/c', path: '/d' } },
      { path: '/e', proxy: { to: 'core', path: '/a/../b' } },
      { path: '/f', proxy: { to: 'core', path: '/a?b' } },
      { path: '/g/*', proxy: { to: 'core', strip: '/g/' } },
    ]),
    [
      "shop: row '/a/*', proxy.strip '/b' does not lead '/a/*': strip only what every path of the row begins with",
      "shop: row '/ab/*', proxy.strip '/a' does not lead '/ab/*': strip only what every path of the row begins with",
      "shop: row '/c', proxy has both 'strip' and 'path': keep one",
      "shop: row '/e', proxy.path '/a/../b' is not in canonical form: write no dot segments, empty segments or needless escapes",
      "shop: row '/f', proxy.path '/a?b' is not in canonical form: write no dot segments, empty segments or needless escapes",
      "shop: row '/g/*', proxy.strip is '/g/': write leading segments such as '/api'",
    ],
  ],
]

describe('a table', () => {
  it.each(cases)('%s', async (_name, table, faults) => {
    expect(await faultsOf(table)).toEqual(faults)
  })

  it('that contains itself', async () => {
    const table: Record<string, unknown> = { name: 'shop' }
    table['sites'] = [table]
    expect((await faultsOf(table))[0]).toBe('shop: sites[0] contains itself: write data that could be JSON')
  })

  const published = [
    'changeme',
    'change_me',
    'change_me_before_this_goes_to_production',
    'your-super-secret-key-change-this-in-production',
    'your_very_long_and_secure_jwt_secret_key_here',
    'django-insecure-change-me',
    'django-insecure-8x!k2#m9$p4@q7&r1*t5(w3)z6',
    'postgres',
    'your-secret-key',
    'a-string-secret-at-least-256-bits-long',
    'your-256-bit-secret',
    '09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7',
    'Please-Change-Me-Before-Production-Use!',
    'replace-this-with-a-long-random-secret',
  ]
  it.each(published)("whose secret is the published '%s'", async (text) => {
    expect(await faultsOf(withKey({ secret: text, algorithms: ['HS256'] }))).toEqual([
      "shop: keys.access.secret is a published example: make one with 'openssl rand -base64 48'",
    ])
    expect(await faultsOf(withSite({ trustedEdges: { secret: text } }))).toEqual([
      "shop: sites[0].trustedEdges.secret is a published example: make one with 'openssl rand -base64 48'",
    ])
  })

  it.each(['0123456789'.repeat(4), 'a'.repeat(64), 'abcdefghijklmnopqrstuvwxyz0123456789', 'abcd1234'.repeat(5)])(
    "whose secret '%s' follows a pattern",
    async (text) => {
      expect(await faultsOf(withKey({ secret: text, algorithms: ['HS256'] }))).toEqual([
        "shop: keys.access.secret follows a simple pattern: make one with 'openssl rand -base64 48'",
      ])
    },
  )

  it('may have secrets of 32 random bytes in any usual spelling', async () => {
    for (let round = 0; round < 200; round++) {
      const bytes = Buffer.from(crypto.getRandomValues(new Uint8Array(32)))
      for (const spelling of ['hex', 'base64', 'base64url'] as const)
        expect(await faultsOf(withKey({ secret: bytes.toString(spelling), algorithms: ['HS256'] }))).toEqual([])
    }
  })

  it('does not print its secrets in a fault', async () => {
    const text = 'planted1planted2planted3'
    const faults = await faultsOf(withTable({ keys: { access: { secret: text, algorithms: ['HS256', 'RS256'] } } }))
    expect(faults).toHaveLength(2)
    expect(faults.join()).not.toContain('planted')
  })
})

describe('a row is shadowed', () => {
  const shadowed = async (...rows: object[]): Promise<string[]> =>
    (await faultsOf(withRows(rows.map((row) => ({ path: '/a/*', respond: { status: 200 }, ...row }))))).map((line) =>
      line.replace(/: drop one.*/, ''),
    )
  const by = (id: string): string[] => [
    `shop: row '/a/*' can be reached by no request: 'shop ${id}' takes all that it matches`,
  ]

  it('by one before it with the same path', async () => {
    expect(await shadowed({}, {})).toEqual(by('/a/*'))
  })
  it('not by a more specific or a wider path, in whatever order', async () => {
    expect(await shadowed({ path: '/*' }, { path: '/a' }, {}, { path: '/a/b/*' }, { path: '/a/b' })).toEqual([])
  })
  it('not by an exact row of the same path', async () => {
    expect(await shadowed({ path: '/a' }, {})).toEqual([])
  })
  it('when rows before it cover its methods together', async () => {
    expect(await shadowed({ methods: ['GET'] }, { methods: ['POST'] }, { methods: ['POST', 'HEAD'] })).toEqual(
      by('POST /a/*'),
    )
  })
  it('not when one of its methods is left over', async () => {
    expect(await shadowed({ methods: ['GET'] }, { methods: ['GET', 'POST'] }, {})).toEqual([])
  })
  it('by a row for fewer fields before it', async () => {
    expect(await shadowed({}, { matchHeaders: { accept: 'a' } })).toEqual(by('/a/*'))
    expect(await shadowed({ matchHeaders: { Accept: true } }, { matchHeaders: { accept: 'a' } })).toEqual(by('/a/*'))
  })
  it('not by a row for more fields, or for another value', async () => {
    expect(
      await shadowed(
        { matchHeaders: { accept: 'a' } },
        { matchHeaders: { accept: 'b' } },
        { matchHeaders: { accept: true } },
        {},
      ),
    ).toEqual([])
  })
  it('and is named with the lines of both', async () => {
    const table = withRows([hello, hello])
    expect(await findFaults([{ table, file: 'tables/shop.ts', lines: [7, 9] }])).toEqual([
      "shop: row '/hello' (tables/shop.ts:9) can be reached by no request: 'shop /hello' at tables/shop.ts:7 takes all that it matches: drop one of them, move the narrower one up, or tell them apart by methods or matchHeaders",
    ])
  })
})

describe('hosts', () => {
  const site = (...hosts: string[]): object => ({ hosts, routes: [hello] })
  const claims = (tableHosts: string[][][], development = false): Promise<string[]> =>
    findFaults(
      tableHosts.map((sites, index) => ({
        table: { name: `t${index}`, sites: sites.map((hosts) => site(...hosts)) },
        file: `t${index}.ts`,
      })),
      { development },
    )

  it('stand once in a list', async () => {
    expect(await claims([[['a.example', 'a.example']]], true)).toEqual([
      "t0: sites[0].hosts (t0.ts) names 'a.example' twice: drop one",
    ])
  })
  it('belong to one site of a table', async () => {
    expect(await claims([[['a.example'], ['b.example', 'a.example']]], true)).toEqual([
      "t0: sites[1].hosts (t0.ts) names 'a.example', which the site a.example of 't0' has: give each host to one site",
    ])
  })
  it('belong to one table', async () => {
    expect(await claims([[['*.a.example']], [['*.a.example', 'x.a.example']]])).toEqual([
      "t1: sites[0].hosts (t1.ts) names '*.a.example', which the site *.a.example of 't0' has: give each host to one site",
    ])
  })
  it('belong to one site also through their .localhost twins, in development only', async () => {
    expect(await claims([[['a.example']], [['a.shop']], [['a.localhost']]], true)).toEqual([
      "t1: sites[0].hosts (t1.ts) names 'a.shop', whose twin in development is 'a.localhost', which the site a.example of 't0' has, as the twin of 'a.example' in development: give each host to one site",
      "t2: sites[0].hosts (t2.ts) names 'a.localhost', which the site a.example of 't0' has, as the twin of 'a.example' in development: give each host to one site",
    ])
    expect(await claims([[['a.example']], [['a.shop']], [['a.localhost']]])).toEqual([])
  })
  it('may share a twin within one site', async () => {
    expect(await claims([[['a.example', 'a.shop', 'a.localhost']]], true)).toEqual([])
  })
  it('are written as requests are compared', async () => {
    expect(await claims([[['[0:0:0:0:0:0:0:1]', `${'a'.repeat(63)}.`.repeat(4) + 'example']]])).toEqual([
      "t0: sites[0].hosts (t0.ts) names '[0:0:0:0:0:0:0:1]', which no request can ask for: write '[::1]'",
      `t0: sites[0].hosts (t0.ts) names '${`${'a'.repeat(63)}.`.repeat(4)}example', which no request can ask for: write a host`,
    ])
  })
  it('have one site that answers for all others', async () => {
    const table = (name: string, host: string) => ({ name, sites: [{ hosts: [host], default: true, routes: [hello] }] })
    const sources = [{ table: table('a', 'a.example') }, { table: table('b', 'b.example') }]
    expect(await findFaults(sources)).toEqual(['b: sites[0].default is set on a second site: keep it on one'])
  })
})

describe('all faults', () => {
  it('of all tables are found at once, each with its file and line', async () => {
    const sources = [
      { table: withRows([hello, { path: '/x', proxy: { to: 'x' } }]), file: 'a.ts', lines: [5, 8] },
      {
        table: withRows([
          { path: '/y', prox: 1 },
          { path: '/z', color: 1 },
        ]),
        file: 'b.ts',
        lines: [6, 7],
      },
      { table: 5, file: 'c.ts', lines: [] },
    ]
    expect(await findFaults(sources)).toEqual([
      "shop: row '/x' (a.ts:8), proxy.to names the upstream 'x', which is not declared: known: core",
      "shop: name (b.ts) 'shop' is the name of another table too: rename one",
      "shop: sites[0].hosts (b.ts) names 'shop.example', which the site shop.example of 'shop' has: give each host to one site",
      "shop: row '/y' (b.ts:6) has an unknown key 'prox': did you mean 'proxy'?",
      "shop: row '/z' (b.ts:7) has an unknown key 'color': known: path …",
      "shop: row '/z' (b.ts:7) has no action: give it exactly one of proxy, files, redirect, respond",
      'c.ts: is 5: make it an object with name …',
    ])
  })

  it('name the file alone when rows were not found in it', async () => {
    const table = withRows([{ path: '/y' }])
    expect(await findFaults([{ table, file: 'b.ts', lines: [1, 2, 3] }])).toEqual([
      "shop: row '/y' (b.ts) has no action: give it exactly one of proxy, files, redirect, respond",
    ])
  })
})

describe('the types and the shape say the same', () => {
  const text = readFileSync(new URL('../../edge/table.ts', import.meta.url), 'utf8')

  /** The keys of an interface, with those of the interfaces that it extends. */
  function keysOf(name: string): string[] {
    const [, parents = '', body = ''] =
      new RegExp(`export interface ${name}(?: extends ([\\w, ]+))? \\{\\n(.*?)\\n\\}`, 's').exec(text) ?? []
    const own = [...body.matchAll(/^ {2}(\w+)\??:/gm)].map((match) => match[1] ?? '')
    return [...parents.split(', ').filter(Boolean).flatMap(keysOf), ...own].sort()
  }

  /** The keys that the shape knows somewhere: those it does not complain of when they are all there. */
  function knownAt(at: string, wrap: (value: unknown) => unknown): string[] {
    const fixes: string[] = []
    tableShape(wrap(5), '', (where, _problem, fix) => where === at && fixes.push(fix))
    return fixes
      .join()
      .replace('make it an object with ', '')
      .split(/, | and /)
      .sort()
  }

  const inRow = (row: object): unknown => ({ sites: [{ routes: [row] }] })
  const places: [string, string, (value: unknown) => unknown][] = [
    ['Table', '', (value) => value],
    ['Tls', 'tls', (value) => ({ tls: value })],
    ['Acme', 'tls.acme', (value) => ({ tls: { acme: value } })],
    ['Upstream', 'upstreams.x', (value) => ({ upstreams: { x: value } })],
    ['Split', 'upstreams.x.split', (value) => ({ upstreams: { x: { split: value } } })],
    ['Side', 'upstreams.x.split.sides.a', (value) => ({ upstreams: { x: { split: { sides: { a: value } } } } })],
    ['Sticky', 'upstreams.x.split.sticky', (value) => ({ upstreams: { x: { split: { sticky: value } } } })],
    ['Rollout', 'upstreams.x.split.rollout', (value) => ({ upstreams: { x: { split: { rollout: value } } } })],
    ['Server', 'upstreams.x.servers[0]', (value) => ({ upstreams: { x: { servers: [value] } } })],
    ['Health', 'upstreams.x.health', (value) => ({ upstreams: { x: { health: value } } })],
    ['Key', 'keys.x', (value) => ({ keys: { x: value } })],
    ['Site', 'sites[0]', (value) => ({ sites: [value] })],
    ['Https', 'sites[0].https', (value) => ({ sites: [{ https: value }] })],
    ['TrustedEdges', 'sites[0].trustedEdges', (value) => ({ sites: [{ trustedEdges: value }] })],
    ['Cors', 'sites[0].cors', (value) => ({ sites: [{ cors: value }] })],
    ['Cors', 'sites[0].routes[0].cors', (value) => inRow({ cors: value })],
    ['Route', 'sites[0].routes[0]', (value) => ({ sites: [{ routes: [value] }] })],
    ['Limit', 'sites[0].routes[0].limit', (value) => inRow({ limit: value })],
    ['Auth', 'sites[0].routes[0].auth', (value) => inRow({ auth: value })],
    ['HeaderEdits', 'sites[0].routes[0].requestHeaders', (value) => inRow({ requestHeaders: value })],
    ['HeaderEdits', 'sites[0].routes[0].responseHeaders', (value) => inRow({ responseHeaders: value })],
    ['Proxy', 'sites[0].routes[0].proxy', (value) => inRow({ proxy: value })],
    ['Cache', 'sites[0].routes[0].cache', (value) => inRow({ cache: value })],
    ['SharedCache', 'sites[0].routes[0].cache.shared', (value) => inRow({ cache: { shared: value } })],
    ['Retry', 'sites[0].routes[0].proxy.retry', (value) => inRow({ proxy: { retry: value } })],
    ['Files', 'sites[0].routes[0].files', (value) => inRow({ files: value })],
    ['Redirect', 'sites[0].routes[0].redirect', (value) => inRow({ redirect: value })],
    ['Respond', 'sites[0].routes[0].respond', (value) => inRow({ respond: value })],
  ]

  it.each(places)('of %s at %s', (name, at, wrap) => {
    expect(keysOf(name).length).toBeGreaterThan(0)
    expect(knownAt(at, wrap)).toEqual(keysOf(name))
  })

  it('and no interface is left out', () => {
    const names = [...text.matchAll(/^export interface (\w+)/gm)].map((match) => match[1] ?? '')
    const parents = ['Policies', 'Actions']
    expect(names.filter((name) => !parents.includes(name)).sort()).toEqual(
      [...new Set(places.map(([name]) => name))].sort(),
    )
  })

  it('of the words that may be chosen from', () => {
    const words = (name: string): string[] =>
      [...(new RegExp(`export type ${name} = (.*)`).exec(text)?.[1] ?? '').matchAll(/'([^']+)'/g)].map(
        (match) => match[1] ?? '',
      )
    const taken = (wrap: (value: string) => unknown, at: string, candidates: string[]): string[] =>
      candidates.filter((candidate) => {
        let refused = false
        tableShape(wrap(candidate), '', (where) => (refused ||= where === at))
        return !refused
      })
    const all = ['Algorithm', 'ErrorShape', 'HeadersPreset', 'CachePreset'].flatMap(words)
    expect(taken((value) => ({ keys: { x: { algorithms: [value] } } }), 'keys.x.algorithms[0]', all)).toEqual(
      words('Algorithm'),
    )
    expect(taken((value) => ({ sites: [{ errors: value }] }), 'sites[0].errors', all)).toEqual(words('ErrorShape'))
    expect(taken((value) => ({ sites: [{ headers: value }] }), 'sites[0].headers', all)).toEqual(words('HeadersPreset'))
    expect(taken((value) => inRow({ cache: value }), 'sites[0].routes[0].cache', all)).toEqual(words('CachePreset'))
  })
})
