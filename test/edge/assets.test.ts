import { mkdirSync, mkdtempSync, rmSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs'
import { request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { compileTables } from '../../edge/compile.ts'
import { createLocalLimiter } from '../../edge/local-limiter.ts'
import { startGateway } from '../../edge/node/serve.ts'
import type { RunningGateway } from '../../edge/node/serve.ts'

const folder = mkdtempSync(join(tmpdir(), 'daemun-assets-'))
const root = join(folder, 'web')
let gateway: RunningGateway

beforeAll(async () => {
  mkdirSync(join(root, 'sub', '.git'), { recursive: true })
  mkdirSync(join(root, '.well-known', 'acme-challenge'), { recursive: true })
  const files = {
    'index.html': 'home',
    'app.js': 'let a',
    'sw.js': 'worker',
    'sub/index.html': 'sub',
    '.env': 'secret',
    'sub/.git/config': 'secret',
    '.well-known/security.txt': 'mail',
    '사진.txt': 'photo',
    'data.bin': 'x'.repeat(2_000_000),
  }
  for (const [name, content] of Object.entries(files)) writeFileSync(join(root, name), content)
  writeFileSync(join(folder, 'outside.txt'), 'outside')
  symlinkSync(join(folder, 'outside.txt'), join(root, 'link.txt'))
  const table = {
    name: 'files',
    sites: [
      {
        hosts: ['files.example'],
        routes: [
          { path: '/*', files: { root, spa: true, immutable: ['js'], noStore: ['sw.js'] } },
          { path: '/below/*', files: { root: join(root, 'sub') } },
        ],
      },
    ],
  }
  const compiled = await compileTables([{ table }], { environment: {}, development: false })
  const anyPort = { host: '127.0.0.1', port: 0 }
  const accessLog = { write: () => {}, dropped: () => 0, flush: () => Promise.resolve() }
  gateway = await startGateway({
    compiled,
    limiter: createLocalLimiter({ now: Date.now }),
    trustedHops: [],
    http: anyPort,
    admin: anyPort,
    accessLog,
    report: () => {},
  })
})
afterAll(async () => {
  await gateway.stop()
  rmSync(folder, { recursive: true })
})

describe('files on Node', () => {
  it('names a type, a validator and how long a file may be kept', async () => {
    const page = await get('/')
    expect(page).toMatchObject({ status: 200, body: 'home' })
    expect(page.headers).toMatchObject({
      'content-type': 'text/html; charset=utf-8',
      'cache-control': 'no-cache, no-store, must-revalidate',
    })
    expect((await get('/app.js')).headers['cache-control']).toBe('public, max-age=31536000, immutable')
    expect((await get('/sw.js')).headers['cache-control']).toBe('no-cache, no-store, must-revalidate')
    expect((await get('/%EC%82%AC%EC%A7%84.txt')).body).toBe('photo')
  })

  it('answers 304 to a client that has the file, and HEAD without a body', async () => {
    const { headers } = await get('/app.js')
    const again = await get('/app.js', { 'if-none-match': `W/"other", ${headers['etag']}` })
    expect(again).toMatchObject({ status: 304, body: '' })
    expect(again.headers['content-length']).toBeUndefined()
    expect(await get('/app.js', {}, 'HEAD')).toMatchObject({ status: 200, body: '' })
  })

  it('streams files that are too large for memory', async () => {
    expect((await get('/data.bin')).body).toHaveLength(2_000_000)
  })

  it('answers a navigation with the index, a missing script with 404', async () => {
    expect(await get('/some/page', { accept: 'text/html' })).toMatchObject({ status: 200, body: 'home' })
    expect(await get('/missing.js', { accept: '*/*' })).toMatchObject({ status: 404 })
    expect(await get('/some/page', { 'sec-fetch-mode': 'cors' })).toMatchObject({ status: 404 })
  })

  it('looks below the row’s prefix, and for the index of a folder', async () => {
    expect(await get('/below/')).toMatchObject({ status: 200, body: 'sub' })
    expect(await get('/below/missing')).toMatchObject({ status: 404 })
    expect(await get('/sub/')).toMatchObject({ status: 200, body: 'sub' })
  })

  it('serves no dotfile, no link out of the folder, and /.well-known/', async () => {
    const plain = { 'sec-fetch-mode': 'cors' }
    for (const path of ['/.env', '/sub/.git/config', '/link.txt', '/below/.git/config', '/.well-known/../.env'])
      expect((await get(path, plain)).body).not.toMatch(/secret|outside/)
    expect((await get('/.well-known/security.txt')).body).toBe('mail')
  })

  it('serves a file that came after the start, and one that has changed', async () => {
    expect((await get('/late.txt')).status).toBe(404)
    writeFileSync(join(root, 'late.txt'), 'late')
    expect((await get('/late.txt')).body).toBe('late')
    writeFileSync(join(root, 'late.txt'), 'later')
    utimesSync(join(root, 'late.txt'), 1, 1)
    await expect.poll(async () => (await get('/late.txt')).body, { timeout: 5_000 }).toBe('later')
  })

  it('refuses to be written to', async () => {
    const answer = await get('/app.js', {}, 'POST')
    expect(answer.status).toBe(405)
    expect(answer.headers['allow']).toBe('GET, HEAD')
  })
})

function get(
  path: string,
  headers: Record<string, string> = {},
  method = 'GET',
): Promise<{ status: number; headers: Record<string, string | string[] | undefined>; body: string }> {
  return new Promise((resolve, reject) => {
    const asked = request(
      { port: gateway.port, method, path, headers: { host: 'files.example', ...headers } },
      (answer) => {
        let body = ''
        answer.setEncoding('utf8').on('data', (chunk: string) => (body += chunk))
        answer.on('end', () => resolve({ status: answer.statusCode ?? 0, headers: answer.headers, body }))
      },
    )
    asked.on('error', reject)
    asked.end()
  })
}
