import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { loadTablesAfresh } from '#edge/node/load-tables-afresh.ts'
import type { ReloadResult } from '#edge/node/reload.ts'
import { createFolder, runCli, serveCli } from '../support/cli.ts'
import type { CliResult, Served } from '../support/cli.ts'
import { get } from '../support/get.ts'

const token = 'Qm9yZWQtb2Ytd3JpdGluZy10b2tlbnMtYWxsLWRheQ=='
const folder = createFolder({})
let served: Served

beforeAll(async () => {
  writeTable('first')
  served = await serveCli(['shop.ts'], { folder: folder.path, env: { DAEMUN_ADMIN_TOKEN: token } })
})
afterAll(async () => {
  expect(await served.stop()).toBe(0)
  folder.remove()
})

const write = (name: string, text: string): void => writeFileSync(join(folder.path, name), text)

/** A table whose one row says what `body.ts` and the variable GREETING say. */
function writeTable(body: string, rows = ''): void {
  write('body.ts', `export const body = '${body}'\n`)
  write(
    'shop.ts',
    `import { body } from './body.ts'
export default {
  name: 'shop',
  sites: [{
    hosts: ['shop.example'],
    routes: [
      { path: '/*', respond: { status: 200, body, type: '\${GREETING:-none}' } },${rows}
    ],
  }],
}
`,
  )
}

const reload = (env: Record<string, string> = { DAEMUN_ADMIN_TOKEN: token }): Promise<CliResult> =>
  runCli(['reload', '--admin', new URL(served.adminUrl).host], { folder: folder.path, env })

/** As `reload`, with the listener's own words. */
async function post(): Promise<{ status: number; result: ReloadResult }> {
  const headers = { authorization: `Bearer ${token}` }
  const response = await fetch(`${served.adminUrl}/reload`, { method: 'POST', headers })
  return { status: response.status, result: (await response.json()) as ReloadResult }
}

async function ask(): Promise<string> {
  const { headers, body } = await get(served.port, 'http://shop.example/')
  return `${headers['content-type']} ${body.toString()}`
}

async function metric(name: string): Promise<number> {
  const text = await (await fetch(`${served.adminUrl}/metrics`)).text()
  return Number(new RegExp(`^${name.replace(/[{}]/g, '\\$&')} (\\S+)$`, 'm').exec(text)?.[1])
}

describe('a reload', () => {
  it('serves by the table, what it imports and .env as they are now', async () => {
    expect(await ask()).toBe('none first')
    writeTable('two')
    write('.env', 'GREETING=text/hello\n')
    expect(await reload()).toEqual({ code: 0, stdout: '✓ generation 2 is served\n', stderr: '' })
    expect(await ask()).toBe('text/hello two')
    write('.env', '')
    expect(await post()).toEqual({ status: 200, result: { outcome: 'swapped', generation: 3, notes: [] } })
    expect(await ask()).toBe('none two')
    expect(served.stderr()).toContain('reload: generation 3 is served\n')
    expect(await metric('daemun_config_generation')).toBe(3)
    expect(await metric('daemun_config_reloads_total{outcome="swapped"}')).toBe(2)
  })

  it('is asked for with SIGHUP too', async () => {
    writeTable('by signal')
    served.child.kill('SIGHUP')
    while ((await ask()) !== 'none by signal') await new Promise((resolve) => setTimeout(resolve, 20))
  })

  it('says what takes a restart', async () => {
    write('.env', 'DAEMUN_TRUSTED_HOPS=10.0.0.0/8\n')
    const { result } = await post()
    expect(result).toMatchObject({ notes: ['DAEMUN_TRUSTED_HOPS has changed, which takes a restart'] })
    write('.env', '')
  })

  it('of a faulty table changes nothing, names every fault with its line, and ends with 2', async () => {
    writeTable('good')
    await post()
    const generation = await metric('daemun_config_generation')
    writeTable(
      'bad',
      `\n      { path: '/x', respnd: { status: 200 } },\n      { path: 'y', respond: { status: 200 } },`,
    )
    expect(await reload()).toEqual({
      code: 2,
      stdout: '',
      stderr: `nothing has changed, generation ${generation} is served on
✗ shop: row '/x' (shop.ts:8) has an unknown key 'respnd': did you mean 'respond'?
✗ shop: row 'y' (shop.ts:9), path is 'y': write a path such as '/ws' or '/api/*'
2 faults
`,
    })
    expect(await ask()).toBe('none good')
    expect(served.stderr()).toContain(`reload: refused, generation ${generation} is served on\nshop: row `)
    expect(await metric('daemun_config_generation')).toBe(generation)
    expect(await metric('daemun_config_last_reload_successful')).toBe(0)
    expect(await metric('daemun_config_reloads_total{outcome="refused"}')).toBe(1)
    writeTable('better')
    expect((await post()).status).toBe(200)
    expect(await metric('daemun_config_last_reload_successful')).toBe(1)
  })

  it('of a table with a thousand rows, ten times what all shipped ones have, serves the last of them', async () => {
    const rows = Array.from(
      { length: 999 },
      (_, at) => `{ path: '/row-${at}/*', respond: { status: 200, body: '${at}' } },`,
    )
    writeTable('big', rows.join('\n'))
    expect((await post()).status).toBe(200)
    expect(await ask()).toBe('none big')
    expect((await get(served.port, 'http://shop.example/row-998/x')).body.toString()).toBe('998')
    writeTable('bigger', [...rows, "{ path: '/row-999', respnd: { status: 200 } },"].join('\n'))
    const { status, result } = await post()
    expect(status).toBe(422)
    expect(result).toMatchObject({ faults: [{ source: 'shop.ts:1006' }] })
    expect(await ask()).toBe('none big')
  })

  it.each([
    ['is no program', 'export default {', /^shop\.ts:1 cannot be read as a table: /],
    ['throws', "throw new Error('broken')", /^shop\.ts:1 cannot be read as a table: broken/],
    ['is gone', "export { default } from './nowhere.ts'", /^shop\.ts cannot be read as a table: .*nowhere/],
    ['exports nothing', 'export const table = {}', /^shop\.ts exports no table: write 'export default/],
    ['is no data', 'export default { name: () => 1 }', /^a table is data, and has no functions: /],
    ['ends the program', 'process.exit(0)', /^shop\.ts cannot be read: the thread that reads them has ended/],
    [
      'takes too much memory',
      "const all = []; for (;;) all.push('x'.repeat(64).split(''))",
      /^shop\.ts cannot be read: it takes more memory than 256 MB \(reloadMemoryMegabytesMax\)/,
    ],
  ])('of a table that %s changes nothing', async (_, text, fault) => {
    const before = await ask()
    write('shop.ts', text)
    const { status, result } = await post()
    expect(status).toBe(422)
    expect(result).toMatchObject({ outcome: 'refused', faults: [], problems: [expect.stringMatching(fault)] })
    expect(await ask()).toBe(before)
  })

  it('gives a table up that takes too long', async () => {
    write('endless.ts', 'for (;;) {}')
    await expect(loadTablesAfresh([join(folder.path, 'endless.ts')], { readMs: 500 })).rejects.toThrow(
      /endless\.ts cannot be read: it takes longer than 500 ms \(reloadReadMs\)/,
    )
  })
})

describe('daemun reload', () => {
  it.each([
    [
      'that it needs the token',
      {},
      "✗ DAEMUN_ADMIN_TOKEN is not set: changes are asked for with the running gateway's\n",
    ],
    [
      'that its token is another',
      { DAEMUN_ADMIN_TOKEN: token.split('').reverse().join('') },
      / has another DAEMUN_ADMIN_TOKEN\n$/,
    ],
  ])('says %s', async (_, env, said) => {
    const generation = await metric('daemun_config_generation')
    expect(await reload(env)).toEqual({ code: 2, stdout: '', stderr: expect.stringMatching(said) })
    expect(await metric('daemun_config_generation')).toBe(generation)
  })

  it('says that no gateway answers, and what it has reached that is none', async () => {
    const env = { DAEMUN_ADMIN_TOKEN: token }
    expect(await runCli(['reload', '--admin', '127.0.0.1:1'], { env })).toMatchObject({
      code: 2,
      stderr: "✗ no gateway's admin listener answers on 127.0.0.1:1: name it with --admin ADDR:PORT\n",
    })
    expect(await runCli(['reload', '--admin', `127.0.0.1:${served.port}`], { env })).toMatchObject({
      code: 2,
      stderr: `✗ what answers on 127.0.0.1:${served.port} is no admin listener of this version: it says 421 to /reload\n`,
    })
  })
})
