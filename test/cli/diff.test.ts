import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { readCommandLine } from '#edge/cli/command-line.ts'
import { diffFiles, showDiff } from '#edge/cli/diff.ts'
import { createPaint } from '#edge/cli/paint.ts'
import type { Diff } from '#edge/diff.ts'
import { readConfig } from '#edge/node/config.ts'
import { loadTables } from '#edge/node/load-tables.ts'
import { createFolder, runCli } from '../support/cli.ts'

const table = (rows: string, upstreams = `app: { servers: ['http://127.0.0.1:3000'] }`): string => `export default {
  name: 'shop',
  upstreams: { ${upstreams} },
  keys: { access: { secret: '\${SHOP_SECRET}', algorithms: ['HS256'] } },
  sites: [{ hosts: ['shop.example', '*.shop.example'], routes: [
${rows}
  ] }],
}
`
const api = `    { path: '/api/*', proxy: { to: 'app', strip: '/api' } },`
const rest = `    { path: '/*', respond: { status: 200, body: 'hello' } },`
const logged = (path: string, more = ''): string =>
  `{"time":"t","client":"203.0.113.9","method":"GET","scheme":"https","host":"shop.example","path":"${path}"${more},"status":200}`

const folder = createFolder({
  'old.ts': table(`${api}\n${rest}`),
  'moved.ts': table(`    // A comment moves every row.\n${rest}\n${api}`),
  'limited.ts': table(
    `    { path: '/api/*', limit: { by: 'address', requests: 9, per: '1 s' }, proxy: { to: 'app', strip: '/api' } },\n${rest}`,
  ),
  'behind.ts': table(`    { path: '/api/*', auth: { jwt: 'access' }, proxy: { to: 'app', strip: '/api' } },\n${rest}`),
  'behind-longer.ts': table(
    `    { path: '/api/*', auth: { jwt: 'access' }, proxy: { to: 'app', strip: '/api', readTimeoutMs: 5 } },\n${rest}`,
  ),
  'field.ts': table(
    `    { path: '/api/*', matchHeaders: { 'x-beta': 'yes' }, respond: { status: 204 } },\n${api}\n${rest}`,
  ),
  'server.ts': table(`${api}\n${rest}`, `app: { servers: ['http://127.0.0.1:3000', 'http://127.0.0.1:3001'] }`),
  'deep.ts': table(`${api}\n    { path: '/deep/er', respond: { status: 410 } },\n${rest}`),
  'faulty.ts': table(`    { path: '/api/*', proxy: { to: 'ap' } },`),
  'worse.ts': table(`    { path: '/x', respnd: {} },`),
  'access.log': `${[
    logged('/api/old'),
    ...Array.from({ length: 9 }, () => logged('/api/carts', ',"query":"?token=[redacted]"')),
    logged('/deep/er'),
    '{"time":"t","client":"203.0.113.9","status":400,"error":"malformed_request"}',
    'no JSON',
  ].join('\n')}\n`,
  'empty.log': '',
  'other.log': '127.0.0.1 - - [21/Nov/2026] "GET / HTTP/1.1" 200\n',
  'own.table': '# A comment.\nGET https://shop.example/api/x [x-beta: yes] → respond 204\n',
  'bad.table': 'what is this\n',
})
afterAll(folder.remove)

const run = (...args: string[]) => runCli(['diff', ...args], { folder: folder.path })

/** In this process, which is faster by much. */
async function diff(...args: string[]): Promise<Diff> {
  const line = readCommandLine(['diff', ...args.map((arg) => (arg.includes('.') ? join(folder.path, arg) : arg))])
  const config = { ...readConfig(), environment: { SHOP_SECRET: 'g0VN7Xl2kq9Lw4TzYb8EhRs1MfUcJp6D' } }
  return diffFiles(line, config, await loadTables(line.tables))
}

const factsOf = ({ groups }: Diff) => groups.map(({ differences }) => differences)
const urlsOf = ({ groups }: Diff): string[] =>
  groups.flatMap(({ requests }) => requests.map(({ method, url }) => `${method} ${url}`))

describe('diff', () => {
  it('ends with 0 when every request is treated the same, wherever its row stands', async () => {
    const { code, stdout } = await run('old.ts', 'moved.ts')
    expect([code, stdout]).toEqual([0, '✓ 34 requests: no difference\n'])
  })

  it('says what differs, for which requests, grouped by row, and ends with 1', async () => {
    const { code, stdout, stderr } = await run('old.ts', 'limited.ts')
    expect(code).toBe(1)
    expect(stdout).toBe(`16 of 34 requests are treated differently

shop /api/*  old.ts:6 → shop /api/*  limited.ts:6
  limit  - -
         + address 9/1 s
  GET https://shop.example/api
  GET http://shop.example/api
  POST https://shop.example/api
  POST http://shop.example/api
  and 12 more
`)
    expect(stderr).toMatch(/^note: not set, stands for a random value here.*: SHOP_SECRET\n$/)
  })

  it('looks behind tokens', async () => {
    expect(factsOf(await diff('behind.ts', 'behind-longer.ts'))).toEqual([
      [{ fact: 'readTimeoutMs', old: '60000', new: '5' }],
    ])
    const asked = factsOf(await diff('old.ts', 'behind.ts'))
    expect(asked).toEqual([[{ fact: 'auth', old: '-', new: "token of 'access' from Authorization: Bearer" }]])
  })

  it('asks with the fields that a row asks for', async () => {
    const found = await diff('old.ts', 'field.ts')
    expect(factsOf(found)[0]).toContainEqual({ fact: 'action', old: 'proxy app', new: 'respond 204' })
    expect(found.groups[0]?.requests[0]?.fields).toEqual([['x-beta', 'yes']])
  })

  it('sees through names to servers', async () => {
    const facts = factsOf(await diff('old.ts', 'server.ts')).flat()
    expect(facts).toContainEqual({
      fact: 'servers',
      old: 'http://127.0.0.1:3000',
      new: 'http://127.0.0.1:3000, http://127.0.0.1:3001',
    })
  })

  it('asks every row of both tables on all hosts', async () => {
    const urls = urlsOf(await diff('deep.ts', 'old.ts'))
    expect(urls).toEqual(urlsOf(await diff('old.ts', 'deep.ts')))
    expect(urls).toContain('POST http://daemun-probe.shop.example/deep/er')
  })

  it('takes the last lines of an access log, counts what was asked often, and shows it first', async () => {
    const found = await diff('old.ts', 'limited.ts', '--log', 'access.log')
    expect(found.groups[0]?.requests.filter(({ from }) => from === 'log')).toEqual([
      { method: 'GET', url: 'https://shop.example/api/carts?token=[redacted]', fields: [], from: 'log', count: 9 },
      { method: 'GET', url: 'https://shop.example/api/old', fields: [], from: 'log', count: 1 },
    ])
    const last = await diff('old.ts', 'limited.ts', '--log', 'access.log', '--last', '4')
    expect(last.groups[0]?.requests.filter(({ from }) => from === 'log')).toMatchObject([{ count: 1 }])
    expect(showDiff(found, createPaint(process.stdout))).toContain(
      'GET https://shop.example/api/carts?token=[redacted]  in the log 9 times\n',
    )
  })

  it('takes golden rows from a file, and those of a shipped system by itself', async () => {
    const found = await diff('old.ts', 'field.ts', '--golden', 'own.table')
    expect(found.groups[0]?.requests).toContainEqual({
      method: 'GET',
      url: 'https://shop.example/api/x',
      fields: [['x-beta', 'yes']],
      from: 'golden',
      count: 1,
    })
    const shipped = readCommandLine(['diff', 'edge/sites/spc.ts', 'edge/sites/maratang.ts'])
    const { groups } = await diffFiles(shipped, readConfig(), await loadTables(shipped.tables))
    expect(groups.some(({ requests }) => requests.some((one) => one.from === 'golden'))).toBe(true)
  })

  it('says the faults of both tables at once', async () => {
    await expect(diff('faulty.ts', 'worse.ts')).rejects.toMatchObject({
      faults: [
        { problem: "names the upstream 'ap', which is not declared" },
        { problem: "has an unknown key 'respnd'" },
      ],
    })
  })

  it.each([
    [['old.ts'], 'diff takes two tables: daemun diff old.ts new.ts'],
    [['old.ts', 'old.ts', 'old.ts'], 'diff takes two tables: daemun diff old.ts new.ts'],
    [['old.ts', 'old.ts', '--last', '0'], "'0' is no number of lines: write --last 1000"],
    [['old.ts', 'old.ts', '--log', 'missing.log'], 'FOLDER/missing.log cannot be read: there is no such file'],
    [
      ['old.ts', 'old.ts', '--log', 'other.log'],
      'FOLDER/other.log has no request in its last 1 lines: is it an access log of daemun serve?',
    ],
    [['old.ts', 'old.ts', '--golden', 'missing.table'], 'FOLDER/missing.table cannot be read: there is no such file'],
    [
      ['old.ts', 'old.ts', '--golden', 'bad.table'],
      "FOLDER/bad.table: 'what is this' is no row: write 'METHOD URL → OUTCOME'",
    ],
  ])('refuses %j with a line that helps', async (args, said) => {
    await expect(diff(...args)).rejects.toThrow(said.replaceAll('FOLDER', folder.path))
  })

  it('ends with 2 at a fault', async () => {
    const { code, stderr } = await run('old.ts', 'faulty.ts')
    expect([code, stderr.split('\n').at(-2)]).toEqual([2, '1 fault'])
  })
})
