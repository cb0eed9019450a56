import { X509Certificate } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { request } from 'node:https'
import { join } from 'node:path'
import { afterAll, beforeEach, describe, expect, it } from 'vitest'
import { listCerts, showCerts } from '#edge/cli/certs.ts'
import { createPaint } from '#edge/cli/paint.ts'
import { compileTables } from '#edge/compile.ts'
import { makeDevCertificates } from '#edge/node/dev-certificates.ts'
import { issue } from '../support/certificates.ts'
import { createFolder, runCli, serveCli } from '../support/cli.ts'

const toTable = (name: string, hosts: string[]): string =>
  `export default ${JSON.stringify({ name, sites: [{ hosts, routes: [{ path: '/*', respond: { status: 200, body: name } }] }] })}\n`

const folder = createFolder({
  'shop.ts': toTable('shop', ['shop.example', '*.shop.example', '[2001:db8::1]']),
  'news.ts': toTable('news', ['news.example']),
})
const certs = join(folder.path, 'certs')
const read = (...path: string[]): string => readFileSync(join(certs, ...path), 'utf8')
const run = (...args: string[]) => runCli(['certs', ...args], { folder: folder.path })
/** Why there is a new authority, and which certificates are new. */
async function make(tables: Record<string, string[]>, inDays = 0): Promise<unknown[]> {
  const now = Date.now() + inDays * 86_400_000
  const { isNew, leaves } = await makeDevCertificates(certs, new Map(Object.entries(tables)), now)
  return [isNew, ...leaves.map((leaf) => leaf.isNew)]
}

beforeEach(() => rmSync(certs, { recursive: true, force: true }))
afterAll(folder.remove)

describe('certs dev', () => {
  it('makes an authority and a certificate per table, which serve --https shows to who trusts it', async () => {
    const { code, stdout, stderr } = await run('dev', 'shop.ts', 'news.ts')
    expect([code, stderr]).toEqual([0, ''])
    expect(stdout).toMatch(
      /authority {2}certs\/dev\/authority\.pem {2}new: there was none\n {2}shop {7}certs\/dev\/shop\/ {10}new, for 5 hosts\n {2}news/,
    )
    for (const system of ['Debian, Ubuntu', 'macOS', 'Windows', 'Firefox']) expect(stdout).toContain(`  ${system}\n`)

    const served = await serveCli(['--https', ':0', 'shop.ts', 'news.ts'], { folder: folder.path })
    await expect.poll(() => served.stderr(), { timeout: 12_000 }).toMatch(/https on port \d+/)
    const port = Number(/https on port (\d+)/.exec(served.stderr())?.[1])
    const ca = read('dev', 'authority.pem')
    const get = (host: string): Promise<string> =>
      new Promise((resolve, reject) => {
        const asked = request({ port, host: '127.0.0.1', servername: host, headers: { host }, ca }, (answer) => {
          answer.setEncoding('utf8').on('data', resolve)
        })
        asked.on('error', reject).end()
      })
    expect(await get('shop.example')).toBe('shop')
    expect(await get('a.shop.localhost')).toBe('shop')
    expect(await get('news.localhost')).toBe('news')
    await served.stop()
  })

  it('keeps keys to their owner', async () => {
    await make({ shop: ['shop.example'] })
    const keys = readdirSync(certs, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('key.pem'))
    expect(keys.length).toBeGreaterThanOrEqual(2)
    for (const key of keys) expect(statSync(join(certs, key)).mode & 0o777).toBe(0o600)
  })

  it('is what the authority signed, addresses too', async () => {
    await make({ shop: ['shop.example', '*.shop.example', '[2001:db8::1]', '127.0.0.1'] })
    const authority = new X509Certificate(read('dev', 'authority.pem'))
    const leaf = new X509Certificate(read('dev', 'shop', 'fullchain.pem'))
    expect(authority.ca).toBe(true)
    expect(leaf.checkIssued(authority) && leaf.verify(authority.publicKey)).toBe(true)
    expect(leaf.subjectAltName).toBe(
      'DNS:shop.example, DNS:*.shop.example, IP Address:2001:DB8:0:0:0:0:0:1, IP Address:127.0.0.1',
    )
  })

  it('keeps what is good, so that nobody has to be told again', async () => {
    await make({ shop: ['shop.example'] })
    const before = [read('dev', 'authority.pem'), read('dev', 'shop', 'fullchain.pem')]
    expect(await make({ shop: ['shop.example'], news: ['news.example'] })).toEqual([undefined, false, true])
    expect([read('dev', 'authority.pem'), read('dev', 'shop', 'fullchain.pem')]).toEqual(before)
  })

  it('makes anew what lacks a host, what is damaged, and all that an authority signed which is no more', async () => {
    const hosts = ['shop.example', 'more.example']
    await make({ shop: ['shop.example'] })
    expect(await make({ shop: hosts })).toEqual([undefined, true])
    writeFileSync(join(certs, 'dev', 'shop', 'privkey.pem'), issue(['x.example']).key)
    expect(await make({ shop: hosts })).toEqual([undefined, true])
    writeFileSync(join(certs, 'dev', 'authority-key.pem'), issue(['x.example']).key)
    expect(await make({ shop: hosts })).toEqual(['the files of the one before belong together no more', true])
    // One folder for what is shown, and at most one more for who reads what was.
    expect(readdirSync(join(certs, 'dev')).filter((name) => name.startsWith('.shop')).length).toBeLessThanOrEqual(2)
  })

  it('makes anew what ends soon', async () => {
    const shop = ['shop.example']
    expect(await make({ shop })).toEqual(['there was none', true])
    expect(await make({ shop }, 330)).toEqual([undefined, false])
    expect(await make({ shop }, 340)).toEqual([undefined, true])
    expect(await make({ shop }, 3_290)).toEqual(['the one before ends too soon', true])
  })

  it('has no place on a server', async () => {
    const { code, stderr } = await runCli(['certs', 'dev', 'shop.ts'], {
      folder: folder.path,
      env: { NODE_ENV: 'production' },
    })
    expect(code).toBe(2)
    expect(stderr).toContain('NODE_ENV is production')
    expect(existsSync(certs)).toBe(false)
  })

  it('works for the shipped tables before their secrets exist', async () => {
    const { code, stdout } = await runCli(['certs', 'dev'], { env: { DAEMUN_CERTIFICATES: certs } })
    expect(code).toBe(0)
    expect(stdout).toMatch(/moviesir .*new, for 10 hosts/)
  })
})

describe('certs list', () => {
  const put = (name: string, { certificate, key }: { certificate: string; key: string }): void => {
    mkdirSync(join(certs, 'live', name), { recursive: true })
    writeFileSync(join(certs, 'live', name, 'fullchain.pem'), certificate)
    writeFileSync(join(certs, 'live', name, 'privkey.pem'), key)
  }
  const hosts = ['ok', 'expiring', 'expired', 'mismatched', 'other', 'missing', 'x.wild'].map((one) => `${one}.example`)

  beforeEach(() => {
    writeFileSync(join(folder.path, 'all.ts'), toTable('all', hosts))
    put('ok.example', issue(['ok.example'], { from: -10, to: 80.5 }))
    put('expiring.example', issue(['expiring.example'], { from: -70, to: 20.5 }))
    put('expired.example', issue(['expired.example'], { from: -90, to: -1 }))
    put('mismatched.example', { ...issue(['mismatched.example']), key: issue(['mismatched.example']).key })
    put('other.example', issue(['another.example']))
    put('wild', issue(['*.wild.example']))
  })

  it('says what each host shows, and ends with 1 when something must be done', async () => {
    const { code, stdout, stderr } = await run('list', 'all.ts', '--json')
    expect([code, stderr]).toEqual([1, ''])
    const listed = JSON.parse(stdout) as Record<string, unknown>[]
    expect(listed.map(({ host, state, daysLeft, issuer }) => [host, state, daysLeft, issuer])).toEqual([
      ['ok.example', 'ok', 80, 'Test authority'],
      ['expiring.example', 'expiring', 20, 'Test authority'],
      ['expired.example', 'expired', -1, 'Test authority'],
      ['mismatched.example', 'mismatched', 89, 'Test authority'],
      ['other.example', 'mismatched', 89, 'Test authority'],
      ['missing.example', 'missing', null, null],
      ['x.wild.example', 'ok', 89, 'Test authority'],
    ])
    expect(listed.map(({ action }) => action)).toEqual([
      null,
      'less than a third of its life is left: get a new one',
      expect.stringMatching(/^it expired on \d{4}-\d\d-\d\d$/),
      'privkey.pem is not the key of the certificate',
      'it is for another.example',
      expect.stringMatching(/^put fullchain\.pem and privkey\.pem into certs\/live\/missing\.example\//),
      null,
    ])
  })

  it('stands in columns', async () => {
    const table = { name: 'all', sites: [{ hosts, routes: [{ path: '/*', respond: { status: 200 } }] }] }
    const compiled = await compileTables([{ table }], { environment: {}, development: false })
    const listed = await listCerts({ certificates: certs, development: false }, compiled)
    const lines = showCerts(listed, createPaint(process.stdout)).split('\n')
    const column = lines[0]?.indexOf('issuer') ?? 0
    expect(lines[1]?.slice(column)).toMatch(/^Test authority +80 {2}✓ ok +\S+\/live\/ok\.example$/)
    expect(lines.join('\n')).toContain('7 hosts, for 5 of them something must be done')
    expect(showCerts(listed.slice(0, 1), createPaint(process.stdout))).toContain('1 host, all is well')
  })
})
