import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startOrigin } from '../support/origin.ts'
import type { Origin } from '../support/origin.ts'
import { startNode } from './node.ts'
import { ask, askEcho, nextId, toEnvironment } from './suite.ts'
import type { ContractRequest, Target } from './suite.ts'
import { createTokens } from './tokens.ts'
import type { Tokens } from './tokens.ts'
import { startWorkerd } from './workerd.ts'

/** A Worker in front of a machine: EDGE_FORWARD=zone asks for the URL as it came, and signs it. */
describe('a zone', () => {
  let origin: Origin
  let tokens: Tokens
  let machine: Awaited<ReturnType<typeof startNode>>
  /** Has another secret than the edge. */
  let stranger: Awaited<ReturnType<typeof startNode>>
  let edge: Target

  beforeAll(async () => {
    ;[origin, tokens] = await Promise.all([startOrigin(), createTokens()])
    const environment = toEnvironment(origin, tokens)
    machine = await startNode({ ...environment, VM_FILES: 'test/contract/origin/shop' })
    stranger = await startNode({ ...environment, EDGE_SECRET: `${crypto.randomUUID()}, another` })
    edge = await startWorkerd({ ...environment, EDGE_FORWARD: 'zone' })
  }, 60_000)

  afterAll(async () => {
    await Promise.all([edge?.close(), machine?.close(), stranger?.close()])
    await origin?.close()
  })

  const through = (request: Omit<ContractRequest, 'host'>): ContractRequest => ({
    host: `127.0.0.1:${machine.port}`,
    ...request,
  })

  it('serves what came through the edge, with the client that the edge saw', async () => {
    const headers: [string, string][] = [
      ['X-Forwarded-For', '192.0.2.66'],
      ['X-Daemun-Edge', 'time=1'],
    ]
    const echo = await askEcho(
      { target: edge },
      through({ target: '/echo/x?q=1&q=%2F', from: '198.51.100.7', headers }),
    )
    expect(echo.target).toBe('/echo/x?q=1&q=%2F')
    expect([echo.field('x-forwarded-for'), echo.field('x-forwarded-proto')]).toEqual(['198.51.100.7', 'http'])
    expect(echo.field('x-daemun-edge')).toBeUndefined()
  })

  it('refuses what came around the edge', async () => {
    const answer = await ask({ target: machine }, through({ target: '/echo/x' }))
    expect([answer.status, answer.json()['code']]).toEqual([403, 'edge_required'])
  })

  it('refuses an edge with another secret', async () => {
    const answer = await ask({ target: edge }, { host: `127.0.0.1:${stranger.port}`, target: '/echo/x' })
    expect([answer.status, answer.json()['code']]).toEqual([403, 'edge_required'])
  })

  it.each(['/echo?', '/echo/[a]|b^c', '/echo/%7e%e2%82%ac', '/echo?x=%7B%7D&y={}|^`', '/echo/a;b=c,d'])(
    'signs %s as it is sent',
    async (target) => {
      expect((await ask({ target: edge }, through({ target }))).status).toBe(200)
    },
  )

  it('leaves the edits of a row to the machine', async () => {
    const echo = await askEcho({ target: edge }, through({ target: '/stripped/echo/x' }))
    expect([echo.target, echo.field('x-row')]).toEqual(['/echo/x', 'stripped'])
    const token = await tokens.sign('HS256')
    const secret = await askEcho(
      { target: edge },
      through({ target: '/secret', headers: [['Authorization', `Bearer ${token}`]] }),
    )
    expect([secret.field('x-user-id'), secret.field('authorization')]).toEqual(['mira', undefined])
  })

  it('refuses at the edge what the table refuses', async () => {
    expect((await ask({ target: edge }, through({ target: '/secret' }))).status).toBe(401)
    const answer = await ask(
      { target: edge },
      through({ target: '/body/x', method: 'POST', body: Buffer.alloc(1_001) }),
    )
    expect(answer.status).toBe(413)
  })

  it('sends bodies on, signed by their head', async () => {
    const echo = await askEcho({ target: edge }, through({ target: '/body/x', method: 'POST', body: 'a body' }))
    expect([echo.method, echo.body]).toEqual(['POST', 'a body'])
  })

  it('asks the machine for files that only it has', async () => {
    expect((await ask({ target: edge }, through({ target: '/vm/source.txt' }))).text).toBe('secret source\n')
  })

  it('lets WebSockets through', async () => {
    const id = nextId()
    const socket = await edge.connectWebSocket(through({ target: `/ws?id=${id}` }))
    expect(socket.status).toBe(101)
    await socket.next()
    socket.send('hello')
    expect(await socket.next()).toBe('hello')
    socket.close(1000)
    await origin.moment(id).reached
  })
})

it('a Worker whose variables are missing says so in its log only', async () => {
  const worker = await startWorkerd({})
  const answer = await ask({ target: worker }, { host: 'shop.example', target: '/row' }).finally(worker.close)
  expect([answer.status, answer.json()]).toEqual([
    500,
    { type: 'about:blank', title: 'Misconfigured', status: 500, code: 'misconfigured' },
  ])
  expect(answer.text).not.toContain('SECRET')
})
