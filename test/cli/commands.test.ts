import { afterAll, describe, expect, it, vi } from 'vitest'
import { run as runHere } from '#edge/cli/run.ts'
import { createFolder, runCli, startCli } from '../support/cli.ts'

const secret = 'g0VN7Xl2kq9Lw4TzYb8EhRs1MfUcJp6D'
const shippedSecrets = { HOMEWORK_HELPER_JWT_SECRET: secret, COWRITE_JWT_SECRET: secret }

const shop = `export default {
  name: 'shop',
  upstreams: { core: { servers: ['\${SHOP_CORE:-http://127.0.0.1:8100}'] } },
  keys: { access: { secret: '\${SHOP_SECRET}', algorithms: ['HS256'] } },
  sites: [
    {
      hosts: ['shop.example'],
      https: true,
      routes: [
        { path: '/health', https: false, respond: { status: 200, body: 'OK' } },
        { path: '/api/*', methods: ['POST'], matchHeaders: { 'x-beta': true }, respond: { status: 204 } },
        {
          path: '/api/*',
          limit: [{ by: 'address', requests: 1, per: '1 d' }, { by: 'subject', requests: 1, per: '1 d' }],
          auth: { jwt: 'access', optional: true },
          proxy: { to: 'core', strip: '/api' },
        },
        { path: '/*', files: { root: 'web', spa: true } },
      ],
    },
  ],
}
`

const folder = createFolder({
  'shop.ts': shop,
  '.env': `SHOP_SECRET=${secret}\n`,
  'faulty.ts': `export default {
  name: 'faulty',
  sites: [
    {
      hosts: ['faulty.example'],
      routes: [
        { path: '/a', proxy: { to: 'core' } },
        {
          path: '/b',
          respnd: { status: 200 },
        },
      ],
    },
  ],
}
`,
  'worse.ts': `export default { name: 'worse', sites: [{ hosts: ['faulty.example'], routes: [{ path: '/c' }] }], keys: 5 }\n`,
  'syntax.ts': `export default {\n  name: 'syntax'\n  sites: [],\n}\n`,
  'enum.ts': `enum A { B }\nexport default {}\n`,
  'throwing.ts': `\n\nthrow new Error('no table today')\n`,
  'empty.ts': `export const table = {}\n`,
  'importing.ts': `import x from './nowhere.ts'\nexport default x\n`,
  'computed.ts': `const row = (path: string) => ({ path })
export default { name: 'computed', sites: [{ hosts: ['computed.example'], routes: [row('/a'), row('/b')] }] }\n`,
})
afterAll(folder.remove)

const run = (...args: string[]) => runCli(args, { folder: folder.path })
const runShipped = (...args: string[]) => runCli(args, { env: shippedSecrets })

describe.concurrent('daemun', () => {
  it.each([[[]], [['help']], [['--help']], [['serve', '-h']]])('says how it is used when asked: %j', async (args) => {
    const { code, stdout, stderr } = await run(...args)
    expect([code, stderr]).toEqual([0, ''])
    expect(stdout).toMatch(
      /daemun serve [^]*\n.*daemun reload .*\n.*daemun check .*\n.*daemun routes .*\n.*daemun explain/,
    )
  })

  it.each([
    [
      ['serve', 'shop.ts', '--proxy-protocol', 'http'],
      '✗ --proxy-protocol needs DAEMUN_TRUSTED_HOPS: the networks of the proxies that may connect',
    ],
    [['check', 'shop'], "✗ 'shop' is no table: name files that end with .ts, .js or .mjs"],
    [['check', 'missing.ts'], '✗ missing.ts cannot be opened: there is no such file'],
    [['check', 'syntax.ts'], "✗ syntax.ts:3 cannot be read as a table: Expected ',', got 'ident'"],
    [
      ['check', 'enum.ts'],
      '✗ enum.ts:1 cannot be read as a table: TypeScript enum is not supported in strip-only mode',
    ],
    [['check', 'throwing.ts'], '✗ throwing.ts:3 cannot be read as a table: no table today'],
    [['check', 'empty.ts'], "✗ empty.ts exports no table: write 'export default { … } satisfies Table'"],
    [['purge', '--tag', 'x'], "✗ DAEMUN_ADMIN_TOKEN is not set: changes are asked for with the running gateway's"],
  ])('refuses the command line %j with 2 and a line that helps', async (args, line) => {
    expect(await run(...args)).toEqual({ code: 2, stdout: '', stderr: `${line}\n` })
  })

  it('says what to write where npm has made every file a script', async () => {
    const scripts = createFolder({ 'package.json': '{ "type": "commonjs" }', 'shop.ts': shop, 'shop.mts': shop })
    const { code, stderr } = await runCli(['check', 'shop.ts'], { folder: scripts.path })
    const named = await runCli(['routes', 'shop.mts'], { folder: scripts.path, env: { SHOP_SECRET: secret } })
    scripts.remove()
    expect({ code, named: named.code }).toEqual({ code: 2, named: 0 })
    expect(stderr).toContain(
      '✗ shop.ts:1 cannot be read as a table: its package.json says "type": "commonjs"; write "module" there, or name the table shop.mts',
    )
  })

  it('names every file that cannot be read', async () => {
    const { code, stderr } = await run('check', 'missing.ts', 'shop.ts', 'syntax.ts', 'importing.ts')
    expect(code).toBe(2)
    expect(stderr.split('\n').map((line) => line.slice(0, 14))).toEqual([
      '✗ missing.ts c',
      '✗ syntax.ts:3 ',
      '✗ importing.ts',
      '',
    ])
  })

  it('ends well when its reader has seen enough', async () => {
    const child = startCli(['routes', '--json'], { env: shippedSecrets })
    let stderr = ''
    child.stderr?.on('data', (text: Buffer) => (stderr += String(text)))
    child.stdout?.destroy()
    expect(await new Promise((resolve) => child.once('close', resolve))).toBe(0)
    expect(stderr).toBe('')
  })
})

describe('a command line', () => {
  // No file is read before it is refused, so no process has to be started for it.
  it.each([
    [['chekc'], "✗ there is no command 'chekc': did you mean 'check'?"],
    [
      ['deploy'],
      "✗ there is no command 'deploy': known: serve, reload, check, routes, explain, diff, split, certs, purge, help",
    ],
    [['check', '--htp'], "✗ there is no option '--htp': did you mean '--http'?"],
    [['explain', '--jsn', 'https://h/'], "✗ there is no option '--jsn': did you mean '--json'?"],
    [
      ['serve', '-x'],
      "✗ there is no option '-x': known: --http, --https, --admin, --proxy-protocol, --header, --from, --golden, --log, --last, --json, --url, --prefix, --tag, --workers, --replace, --help",
    ],
    [['check', '--json'], "✗ 'check' does not take --json: it takes no options"],
    [['routes', '--http', ':1'], "✗ 'routes' does not take --http: it takes only --json"],
    [['certs'], "✗ certs wants to know what to do: 'certs dev' or 'certs list'"],
    [['certs', 'lst'], "✗ there is no 'certs lst': did you mean 'list'?"],
    [['certs', 'dev', '--json'], "✗ 'certs dev' does not take --json"],
    [['serve', '--proxy-protocol', 'htp'], "✗ 'htp' is no listener: write --proxy-protocol http, https or http,https"],
    [['serve', '--proxy-protocol', 'https'], '✗ --proxy-protocol https needs --https ADDR:PORT'],
    [['serve', '--http'], "✗ Option '--http <value>' argument missing"],
    [
      ['serve', '--http', '99999'],
      "✗ '99999' is no address to listen on: write ADDR:PORT, such as 127.0.0.1:8080 or 0.0.0.0:80",
    ],
    [
      ['serve', '--admin', '::1:80'],
      "✗ '::1:80' is no address to listen on: write ADDR:PORT, such as 127.0.0.1:8080 or 0.0.0.0:80",
    ],
    [
      ['serve', '--http', 'http://x:80'],
      "✗ 'http://x:80' is no address to listen on: write ADDR:PORT, such as 127.0.0.1:8080 or 0.0.0.0:80",
    ],
    [
      ['purge', '--url', 'https://h/', '--tag', 'x'],
      "✗ purge forgets one of: --url 'https://shop.example/x', --prefix 'https://shop.example/api', --tag product-7",
    ],
    [['check', '--tag', 'x'], "✗ 'check' does not take --tag: it takes no options"],
    [['explain'], "✗ explain takes one request: [METHOD] URL, such as 'GET https://cowrite.example/api/projects'"],
    [
      ['explain', 'get', 'https://h/'],
      "✗ explain takes one request: [METHOD] URL, such as 'GET https://cowrite.example/api/projects'",
    ],
    [
      ['explain', 'GET', 'https://h/', 'x'],
      "✗ explain takes one request: [METHOD] URL, such as 'GET https://cowrite.example/api/projects'",
    ],
    [
      ['explain', 'shop.example/x'],
      "✗ 'shop.example/x' is no URL: write it with http:// or https:// (ws:// or wss:// asks for a WebSocket)",
    ],
    [['explain', 'https://h/', '-H', 'accept'], "✗ 'accept' is no header: write -H 'name: value'"],
    [['explain', 'https://h/', '-H', 'a b: c'], "✗ 'a b: c' is no header: write -H 'name: value'"],
    [['explain', 'https://h/', '-H', 'a: b\r\nc: d'], "✗ 'a: b\r\n✗ c: d' is no header: write -H 'name: value'"],
    [
      ['explain', 'https://h/', '--from', 'home'],
      "✗ 'home' is no address: write --from 203.0.113.7 or --from 2001:db8::7",
    ],
  ])('%j is refused with 2 and a line that helps', async (args, line) => {
    const said = { stdout: '', stderr: '' }
    for (const name of ['stdout', 'stderr'] as const)
      vi.spyOn(process[name], 'write').mockImplementation((text) => ((said[name] += String(text)), true))
    try {
      await runHere(args)
      expect({ code: process.exitCode, ...said }).toEqual({ code: 2, stdout: '', stderr: `${line}\n` })
    } finally {
      process.exitCode = undefined
      vi.restoreAllMocks()
    }
  })
})

describe.concurrent('check', () => {
  it('finds the shipped tables sound', async () => {
    const { code, stdout, stderr } = await runShipped('check')
    expect([code, stderr]).toEqual([0, ''])
    expect(stdout).toMatch(/^✓ 5 tables, \d+ sites, \d+ rows: no faults\n$/)
  })

  it('finds them sound before their secrets exist, and says which are missing', async () => {
    const { code, stdout, stderr } = await runCli(['check'])
    expect([code, stdout.slice(0, 10)]).toEqual([0, '✓ 5 tables'])
    expect(stderr).toMatch(/^note: not set, .*: HOMEWORK_HELPER_JWT_SECRET, COWRITE_JWT_SECRET\n$/)
  })

  it('wants the secrets where NODE_ENV is production', async () => {
    const { code, stderr } = await runCli(['check'], { env: { NODE_ENV: 'production' } })
    expect(code).toBe(2)
    expect(stderr).toBe(
      '✗ homework-helper: keys.api.secret (edge/sites/homework-helper.ts) needs the variable HOMEWORK_HELPER_JWT_SECRET, which is not set: set HOMEWORK_HELPER_JWT_SECRET in the environment or in .env\n✗ cowrite: keys.cowrite.secret (edge/sites/cowrite.ts) needs the variable COWRITE_JWT_SECRET, which is not set: set COWRITE_JWT_SECRET in the environment or in .env\n2 faults\n',
    )
  })

  it('says all faults of all tables at once, with file and line, and ends with 2', async () => {
    expect(await run('check', 'faulty.ts', 'shop.ts', 'worse.ts')).toEqual({
      code: 2,
      stdout: '',
      stderr: `✗ faulty: row '/a' (faulty.ts:7), proxy.to names the upstream 'core', which is not declared: declare it in the table's 'upstreams'
✗ faulty: row '/b' (faulty.ts:8) has an unknown key 'respnd': did you mean 'respond'?
✗ worse: keys (worse.ts) is 5: make it an object
✗ worse: sites[0].hosts (worse.ts) names 'faulty.example', which the site faulty.example of 'faulty' has: give each host to one site
✗ worse: row '/c' (worse.ts:1) has no action: give it exactly one of proxy, files, redirect, respond
5 faults
`,
    })
  })

  it('names the file alone when rows are made by code', async () => {
    const { stderr } = await run('check', 'computed.ts')
    expect(stderr).toContain("computed: row '/a' (computed.ts) has no action")
  })

  it('reads .env in the working folder, and the environment before it', async () => {
    expect(await run('check', 'shop.ts')).toEqual({
      code: 0,
      stdout: '✓ 1 table, 1 site, 4 rows: no faults\n',
      stderr: '',
    })
    const { code, stderr } = await runCli(['check', 'shop.ts'], {
      folder: folder.path,
      env: { SHOP_SECRET: 'changeme' },
    })
    expect([code, stderr]).toEqual([
      2,
      "✗ shop: keys.access.secret (shop.ts) is a published example: make one with 'openssl rand -base64 48'\n1 fault\n",
    ])
  })
})

describe.concurrent('routes', () => {
  it('shows rows in order of precedence, and once what holds for a site', async () => {
    expect(await run('routes', 'shop.ts')).toEqual({
      code: 0,
      stdout: `shop.example  shop  shop.ts
  https: redirect, HSTS max-age=63072000; errors as problem
  :10  any   /health  respond 200              also over http
  :11  POST  /api/*   respond 204              with x-beta
  :12  any   /api/*   proxy core (strip /api)  limit address 1/1 d; limit subject 1/1 d; optional token of access
  :18  any   /*       files web (spa)
`,
      stderr: '',
    })
  })

  it('fits 120 columns for the shipped tables', async () => {
    const { stdout } = await runShipped('routes')
    expect(stdout.split('\n').filter((line) => line.length > 120)).toEqual([])
    expect(stdout).not.toContain('\u001B')
    expect(stdout.match(/redirect, HSTS/g)).toHaveLength(stdout.match(/^ {2}https:/gm)?.length ?? 0)
  })

  it('gives machines all of it', async () => {
    const { stdout } = await run('routes', 'shop.ts', '--json')
    expect(JSON.parse(stdout)).toMatchObject([
      {
        table: 'shop',
        hosts: ['shop.example'],
        routes: [{ path: '/health', source: 'shop.ts:10', does: 'respond 200' }, {}, {}, {}],
      },
    ])
  })
})

describe.concurrent('explain', () => {
  const explain = (...args: string[]) => run('explain', 'shop.ts', ...args)

  it('says site, row, what was passed over, policies, action, and fields both ways', async () => {
    const { code, stdout, stderr } = await explain(
      'POST',
      'https://shop.example/api/carts?x=1',
      '-H',
      'X-User-Id: root',
      '--from',
      '192.0.2.1',
    )
    expect([code, stderr]).toEqual([0, ''])
    expect(stdout.replaceAll(/[\da-f]{8}-[\da-f-]{27}/g, '<id>')).toBe(
      `POST https://shop.example/api/carts?x=1 from 192.0.2.1

  site      shop.example  table shop, errors as problem
  row       shop /api/*  shop.ts:12
  before it
    :10  /health      the path is not '/health'
    :11  POST /api/*  asks for the field x-beta
  policies
    ✓ https      redirect, HSTS max-age=63072000                        came over https
    ✓ limit      address 1/1 d                                          within the limit
    ✓ body-size  at most 1048576 bytes                                  no body
    ✓ auth       optional token of 'access' from Authorization: Bearer  no token, and none is needed
    ✓ limit      subject 1/1 d                                          within the limit
  action    proxy core /carts?x=1  at http://127.0.0.1:8100
  limits    connectTimeoutMs 2000, readTimeoutMs 60000, bodyBytesMax 1048576
  request
    + X-Forwarded-For: 192.0.2.1
    + X-Forwarded-Proto: https
    + X-Forwarded-Host: shop.example
    + X-Real-IP: 192.0.2.1
    + X-Request-Id: <id>
    - X-User-Id
  answer
    + Strict-Transport-Security: max-age=63072000
    + RateLimit-Policy: "address";q=1;w=86400
    + RateLimit: "address";r=0;t=86400
    + RateLimit-Policy: "subject";q=1;w=86400
    + RateLimit: "subject";r=0;t=86400
    + X-Request-Id: <id>
    ? X-Content-Type-Options: nosniff
    ? X-Frame-Options: SAMEORIGIN
    ? Referrer-Policy: strict-origin-when-cross-origin
    - hop-by-hop fields, x-request-id, x-daemun-edge, ratelimit, ratelimit-policy, strict-transport-security

  + added   ? added unless the answer has it   - removed
`,
    )
  })

  it('says the same to machines', async () => {
    const { stdout } = await explain('POST', 'https://shop.example/api/carts?x=1', '-H', 'X-User-Id: root', '--json')
    expect(JSON.parse(stdout)).toMatchObject({
      request: {
        method: 'POST',
        scheme: 'https',
        host: 'shop.example',
        path: '/api/carts',
        query: '?x=1',
        client: '203.0.113.7',
      },
      site: { table: 'shop', hosts: ['shop.example'], errors: 'problem' },
      row: { id: 'shop /api/*', source: 'shop.ts:12' },
      passedOver: [
        { id: 'shop /health', source: 'shop.ts:10', reason: "the path is not '/health'", near: false },
        { id: 'shop POST /api/*', source: 'shop.ts:11', reason: 'asks for the field x-beta', near: true },
      ],
      policies: [
        { name: 'https', outcome: 'pass' },
        { name: 'limit', asks: 'address 1/1 d', outcome: 'pass' },
        { name: 'body-size', outcome: 'pass' },
        { name: 'auth', outcome: 'pass' },
        { name: 'limit', asks: 'subject 1/1 d', outcome: 'pass' },
      ],
      action: {
        kind: 'proxy',
        upstream: 'core',
        servers: ['http://127.0.0.1:8100'],
        target: '/carts?x=1',
        websocket: false,
      },
      requestHeaders: { removed: ['X-User-Id'] },
      limits: { connectTimeoutMs: 2_000, readTimeoutMs: 60_000, bodyBytesMax: 1_048_576 },
    })
  })

  it('says why a token is refused, and what was not asked after that', async () => {
    const { code, stdout } = await explain('https://shop.example/api/x', '-H', 'Authorization: Bearer a.b.c')
    expect(code).toBe(0)
    expect(stdout).toMatch(
      /✗ auth .* the token is malformed\n {4}· limit .* an earlier policy has answered\n {2}action {4}refuse 401 unauthorized {2}Unauthorized\n/,
    )
  })

  it('redirects what comes in the clear', async () => {
    const { stdout } = await explain('http://shop.example/api/x?y')
    expect(stdout).toMatch(/→ https .* came over http\n/)
    expect(stdout).toContain('action    redirect 308 https://shop.example/api/x?y\n')
  })

  it('takes a path as a client would send it: what is refused when serving is refused here', async () => {
    const { stdout } = await explain('https://shop.example/api/../x?y')
    expect(stdout).toContain('GET https://shop.example/api/../x?y from')
    expect(stdout).toContain('refuse 400 ambiguous_path  Ambiguous path: the path has a dot segment\n')
    expect(stdout).not.toContain('before it')
    expect(stdout).not.toContain(':12')
  })

  it.each([
    [['https://nowhere.example/'], 'none has this host', 'refuse 421 unknown_host'],
    [['https://shop.localhost/health'], 'shop.example  table shop', 'respond 200  OK'],
    [['https://shop.example/index.html'], 'shop /*', 'files /index.html  below web, index.html for pages'],
    [['TRACE', 'https://shop.example/'], 'none', 'refuse 405 method_not_allowed'],
    [['https://shop.example/', '-H', 'Host: other.example'], 'none has this host', 'refuse 421 unknown_host'],
    [['https://shop.example/', '-H', 'X_User_Id: 1'], 'none', 'refuse 400 malformed_request'],
    [['https://shop.example/%zz'], 'none', 'refuse 400 ambiguous_path'],
  ])('of %j is %s, %s', async (args, site, action) => {
    const { code, stdout } = await explain(...args)
    expect(code).toBe(0)
    expect(stdout).toContain(site)
    expect(stdout).toContain(action)
    expect(stdout.endsWith('\n')).toBe(true)
    expect(stdout).not.toMatch(/ \n/)
  })

  it('shows no colour in a pipe, and colours when they are forced', async () => {
    const coloured = async (env: Record<string, string>): Promise<boolean> =>
      (await runCli(['explain', 'shop.ts', 'https://shop.example/'], { folder: folder.path, env })).stdout.includes(
        '\u001B[',
      )
    const environments: Record<string, string>[] = [{}, { FORCE_COLOR: '1' }, { NO_COLOR: '1' }]
    const shown = await Promise.all(environments.map(coloured))
    expect(shown).toEqual([false, true, false])
  })

  it('answers for the .localhost twin outside production only', async () => {
    const env = { NODE_ENV: 'production' }
    const { stdout } = await runCli(['explain', 'shop.ts', 'https://shop.localhost/'], { folder: folder.path, env })
    expect(stdout).toContain('unknown_host')
  })
})
