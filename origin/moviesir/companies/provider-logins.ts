import { createHash, randomBytes } from 'node:crypto'
import type { OpenAPIHono } from '@hono/zod-openapi'
import { createRoute, z } from '@hono/zod-openapi'
import type { Context } from 'hono'
import { getCookie, setCookie } from 'hono/cookie'
import { jsonAnswer, jsonBody, refusals } from '../../kit/api.ts'
import { OriginError } from '../../kit/error.ts'
import { instantOut } from '../../kit/fields.ts'
import type { Store } from '../store.ts'
import type { Accounts, CompanyEnv } from './accounts.ts'
import { loginOut } from './accounts.ts'
import type { LoginProvider, ProviderName } from './login-providers.ts'
import { labels, providerNames } from './login-providers.ts'

type LoginDependencies = {
  accounts: Accounts
  store: Store
  providers: Partial<Record<ProviderName, LoginProvider>>
  isProduction: boolean
}

/** What is kept between the way to a provider and the way back; `companyId` when a company adds it to its account. */
type Pending = { verifier: string; nonce: string; companyId?: number }

/**
 * Logins of companies with Google and GitHub, under `/b2b/auth/{provider}`, and which of them an account has, under
 * `/b2b/me/identities`. A way to a provider can be come back from once, within ten minutes, in the browser that went.
 */
export function declareProviderLogins(api: OpenAPIHono<CompanyEnv>, dependencies: LoginDependencies): void {
  const { accounts, store, providers, isProduction } = dependencies
  const middleware = accounts.signedIn
  const configured = providerNames.filter((name) => providers[name])

  api.openapi(providersRoute, (c) => c.json({ providers: configured }, 200))

  for (const name of providerNames) {
    api.openapi(startRoute(name), async (c) => c.json({ authorize_url: await begin(c, name) }, 200, noStore))

    api.openapi(callbackRoute(name), async (c) => {
      const { code, state } = c.req.valid('json')
      const provider = find(name)
      const { companyId, ...pending } = await takePending(c, name, state)
      const identity = await provider.identify({ code, ...pending })
      const entered = await accounts.enter(name, identity, companyId)
      if (typeof entered === 'string') throw new OriginError('conflict', problems[entered](labels[name]))
      return c.json(await accounts.toLogin(entered), 200, noStore)
    })

    api.openapi({ ...addRoute(name), middleware }, async (c) =>
      c.json({ authorize_url: await begin(c, name, c.get('company').id) }, 200, noStore),
    )

    api.openapi({ ...removeRoute(name), middleware }, async (c) => {
      const outcome = await accounts.removeIdentity(c.get('company').id, name)
      if (outcome === 'none') throw new OriginError('not_found', '연결된 로그인이 없습니다')
      if (outcome === 'last')
        throw new OriginError('conflict', '마지막 로그인 방법입니다. 먼저 비밀번호를 정해 주세요.')
      return c.body(null, 204)
    })
  }

  api.openapi({ ...identitiesRoute, middleware }, async (c) => {
    const { identities, hasPassword } = await accounts.identities(c.get('company').id)
    return c.json({ identities, has_password: hasPassword, providers: configured }, 200)
  })

  function find(name: ProviderName): LoginProvider {
    const provider = providers[name]
    if (!provider) throw new OriginError('not_found', `${labels[name]} 로그인은 이 서버에 설정되어 있지 않습니다`)
    return provider
  }

  async function begin(c: Context, name: ProviderName, companyId?: number): Promise<string> {
    const provider = find(name)
    const [state, ticket, verifier, nonce] = [random(), random(), random(), random()]
    const url = await provider.authorizeUrl({ state, challenge: toSha256(verifier), nonce })
    const pending: Pending = { verifier, nonce, companyId }
    await store.put(pendingKey(name, state, ticket), JSON.stringify(pending), pendingSeconds)
    setCookie(c, ticketCookie, ticket, {
      path: '/b2b/auth',
      httpOnly: true,
      sameSite: 'Strict',
      secure: isProduction,
      maxAge: pendingSeconds,
    })
    return url
  }

  async function takePending(c: Context, name: ProviderName, state: string): Promise<Pending> {
    const key = pendingKey(name, state, getCookie(c, ticketCookie) ?? '')
    const kept = await store.get(key)
    if (kept === undefined || !(await store.delete(key))) throw isOver()
    return JSON.parse(kept) as Pending
  }
}

const tags = ['b2b']
const noStore = { 'Cache-Control': 'no-store' }
const ticketCookie = 'login_ticket'
const pendingSeconds = 600

const random = () => randomBytes(32).toString('base64url')
const toSha256 = (text: string) => createHash('sha256').update(text).digest('base64url')

// By the state and the browser's ticket together: neither is any good without the other, and neither is kept.
const pendingKey = (name: ProviderName, state: string, ticket: string) =>
  `b2b-login:${name}:${toSha256(`${state} ${ticket}`)}`

const problems = {
  'email taken': (label: string) =>
    `이미 가입된 이메일입니다. 그 계정으로 로그인한 뒤 계정 페이지에서 ${label} 로그인을 연결해 주세요.`,
  'linked elsewhere': (label: string) => `이 ${label} 계정은 다른 회사에 연결되어 있습니다.`,
  'linked already': (label: string) => `이미 다른 ${label} 계정이 연결되어 있습니다.`,
}

function isOver(): OriginError {
  return new OriginError('bad_request', '로그인 시간이 지났거나 다른 브라우저에서 시작했습니다. 다시 시도해 주세요.')
}

const provider = z.enum(providerNames)
const goingOut = jsonAnswer(
  z.object({ authorize_url: z.string().openapi({ format: 'uri' }) }).openapi('LoginStart'),
  'Where to send the browser; a cookie ties the way back to it',
)
const notConfigured = { 404: { ...refusals[404], description: 'This provider is not configured' } }
const unavailable = { 503: { ...refusals[404], description: 'The provider cannot be reached' } }

const providersRoute = createRoute({
  method: 'get',
  path: '/b2b/auth/providers',
  tags,
  summary: 'Which providers one can log in with here.',
  responses: { 200: jsonAnswer(z.object({ providers: z.array(provider) }), 'The providers') },
})

const startRoute = (name: ProviderName) =>
  createRoute({
    method: 'post',
    path: `/b2b/auth/${name}/start`,
    tags,
    summary: `Begin a login with ${labels[name]}.`,
    responses: { 200: goingOut, ...notConfigured, ...unavailable },
  })

const callbackRoute = (name: ProviderName) =>
  createRoute({
    method: 'post',
    path: `/b2b/auth/${name}/callback`,
    tags,
    summary: `Finish a login with ${labels[name]}: with what it gave the browser. A new company gets an account.`,
    request: { body: jsonBody(z.object({ code: z.string().min(1).max(2_048), state: z.string().min(1).max(200) })) },
    responses: {
      200: jsonAnswer(loginOut, 'The token'),
      400: { ...refusals[409], description: 'The login is over, was begun in another browser, or was not confirmed' },
      403: { ...refusals[403], description: 'The provider has not verified the address' },
      ...notConfigured,
      409: { ...refusals[409], description: 'The address, or the account at the provider, is another account’s' },
      422: refusals[422],
      ...unavailable,
    },
  })

const identitiesRoute = createRoute({
  method: 'get',
  path: '/b2b/me/identities',
  tags,
  summary: 'How one can log in.',
  responses: {
    200: jsonAnswer(
      z.object({
        identities: z.array(z.object({ provider, created_at: instantOut })),
        has_password: z.boolean(),
        providers: z.array(provider).openapi({ description: 'those that are configured here' }),
      }),
      'The ways',
    ),
    401: refusals[401],
  },
})

const addRoute = (name: ProviderName) =>
  createRoute({
    method: 'post',
    path: `/b2b/me/identities/${name}`,
    tags,
    summary: `Begin to add ${labels[name]} to one’s ways to log in.`,
    responses: { 200: goingOut, 401: refusals[401], ...notConfigured, ...unavailable },
  })

const removeRoute = (name: ProviderName) =>
  createRoute({
    method: 'delete',
    path: `/b2b/me/identities/${name}`,
    tags,
    summary: `Log in with ${labels[name]} no more.`,
    responses: {
      204: { description: 'Removed' },
      401: refusals[401],
      404: refusals[404],
      409: { ...refusals[409], description: 'There is no other way to log in' },
    },
  })
