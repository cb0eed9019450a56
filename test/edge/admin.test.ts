import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startTestGateway } from '../support/gateway.ts'
import type { TestGateway } from '../support/gateway.ts'

const table = {
  name: 'shop',
  sites: [{ hosts: ['shop.example'], routes: [{ path: '/*', respond: { status: 200 } }] }],
}
const token = 'Qm9yZWQtb2Ytd3JpdGluZy10b2tlbnMtYWxsLWRheQ=='

describe('the admin listener', () => {
  let open: TestGateway
  let closed: TestGateway

  beforeAll(async () => {
    open = await startTestGateway(table, { adminToken: token })
    closed = await startTestGateway(table)
  })
  afterAll(async () => {
    await Promise.all([open.stop(), closed.stop()])
  })

  const change = (gateway: TestGateway, authorization?: string): Promise<Response> =>
    fetch(`${gateway.adminUrl}/nothing`, { method: 'POST', headers: authorization ? { authorization } : {} })

  it('may be read by whoever reaches it', async () => {
    expect((await fetch(`${open.adminUrl}/healthz`)).status).toBe(200)
    expect((await fetch(`${closed.adminUrl}/metrics`)).status).toBe(200)
  })

  it.each([
    ['without a token', undefined],
    ['with another one', `Bearer ${'x'.repeat(44)}`],
    ['with a part of it', `Bearer ${token.slice(0, -1)}`],
    ['with more than it', `Bearer ${token}x`],
    ['in another scheme', `Basic ${token}`],
  ])('refuses changes that are asked for %s', async (_, authorization) => {
    const answer = await change(open, authorization)
    expect(answer.status).toBe(401)
    expect(answer.headers.get('www-authenticate')).toBe('Bearer')
    expect(await answer.json()).toMatchObject({ code: 'unauthorized' })
  })

  it('lets changes through that are asked for with the token', async () => {
    expect((await change(open, `Bearer ${token}`)).status).toBe(404)
  })

  it('refuses every change when it has no token', async () => {
    const answer = await change(closed, `Bearer ${token}`)
    expect(answer.status).toBe(403)
    expect(await answer.json()).toEqual({
      code: 'no_admin_token',
      detail: 'changes are refused: start the gateway with DAEMUN_ADMIN_TOKEN',
    })
  })
})
