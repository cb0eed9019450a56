import { createHash } from 'node:crypto'
import { createServer } from 'node:http'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { exportJWK, generateKeyPair, SignJWT } from 'jose'
import type { JWTPayload } from 'jose'

/** How the stand-in misbehaves. */
type Trouble = 'none' | 'refuses' | 'breaks' | 'another key' | 'expired'

type Given = Record<string, string>
type Reply = { status: number; body?: unknown; location?: string }

/** The one client that is known here. */
const loginClient = { id: 'moviesir-console', secret: 'a-secret-that-the-provider-knows' }

/**
 * Stands in for Google (OpenID Connect) and GitHub (OAuth). Whoever comes to log in is `person` and is sent back at
 * once. A code works once, for the client, the redirect address and the verifier that it was made for.
 */
export async function startLoginProviders() {
  const [keys, others] = await Promise.all([generateKeyPair('RS256'), generateKeyPair('RS256')])
  const published = { ...(await exportJWK(keys.publicKey)), kid: 'one', alg: 'RS256', use: 'sig' }
  const state = { trouble: 'none' as Trouble, claims: {} as JWTPayload }
  const person = { subject: '1001', email: 'dev@small.example', verified: true, name: '작은 회사' }
  const codes = new Map<string, Given>()
  const accessTokens = new Set<string>()
  /** Every code and token that was handed out: none of them may be anywhere afterwards. */
  const secrets: string[] = []
  let asked = 0

  const server = createServer(async (request, response) => {
    asked += 1
    const url = new URL(request.url ?? '', 'http://provider')
    let text = ''
    for await (const chunk of request) text += String(chunk)
    const form = Object.fromEntries(new URLSearchParams(text))
    const { status, body, location } = await answer(url, form, request.headers.authorization)
    response.writeHead(status, { 'content-type': 'application/json', ...(location && { location }) })
    response.end(body === undefined ? undefined : JSON.stringify(body))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`

  return {
    state,
    person,
    secrets,
    asked: () => asked,
    environment: (console: string) => ({
      GOOGLE_CLIENT_ID: loginClient.id,
      GOOGLE_CLIENT_SECRET: loginClient.secret,
      GOOGLE_REDIRECT_URI: `${console}/auth/google/callback`,
      GOOGLE_ISSUER: url,
      GITHUB_CLIENT_ID: loginClient.id,
      GITHUB_CLIENT_SECRET: loginClient.secret,
      GITHUB_REDIRECT_URI: `${console}/auth/github/callback`,
      GITHUB_SERVER_URL: url,
      GITHUB_API_URL: url,
    }),
    logIn,
    stop,
  }

  /** What a browser does at the provider: the way back, with its code and state. */
  async function logIn(authorizeUrl: string): Promise<{ code: string; state: string }> {
    const answered = await fetch(authorizeUrl, { redirect: 'manual' })
    const back = new URL(answered.headers.get('location') ?? '')
    return { code: back.searchParams.get('code') ?? '', state: back.searchParams.get('state') ?? '' }
  }

  async function answer({ pathname, searchParams }: URL, form: Given, authorization?: string): Promise<Reply> {
    if (state.trouble === 'breaks' && !pathname.endsWith('authorize')) return { status: 502 }
    switch (pathname) {
      case '/.well-known/openid-configuration':
        return ok({
          issuer: url,
          authorization_endpoint: `${url}/o/authorize`,
          token_endpoint: `${url}/token`,
          jwks_uri: `${url}/certs`,
        })
      case '/certs':
        return ok({ keys: [published] })
      case '/o/authorize':
      case '/login/oauth/authorize':
        return sendBack(Object.fromEntries(searchParams))
      case '/token': {
        const given = redeem(form)
        const isRefused = !given || form['grant_type'] !== 'authorization_code'
        return isRefused ? { status: 400, body: { error: 'invalid_grant' } } : ok({ id_token: await sign(given) })
      }
      case '/login/oauth/access_token': {
        if (!redeem(form)) return ok({ error: 'bad_verification_code' })
        const token = keepSecret(`gho_${crypto.randomUUID()}`)
        accessTokens.add(token)
        return ok({ access_token: token, token_type: 'bearer' })
      }
      case '/user':
        return forToken(authorization, { id: Number(person.subject), login: 'small', name: person.name })
      case '/user/emails':
        return forToken(authorization, [
          { email: 'other@small.example', primary: false, verified: true },
          { email: person.email, primary: true, verified: person.verified },
        ])
      default:
        return { status: 404, body: {} }
    }
  }

  function sendBack(given: Given): Reply {
    const isWhole = given['response_type'] === 'code' && given['client_id'] === loginClient.id && given['state']
    if (!isWhole || given['code_challenge_method'] !== 'S256') return { status: 400 }
    const code = keepSecret(crypto.randomUUID())
    codes.set(code, given)
    const back = new URL(given['redirect_uri'] ?? '')
    back.search = new URLSearchParams({ code, state: given['state'] ?? '' }).toString()
    return { status: 302, location: back.href }
  }

  function redeem(form: Given): Given | undefined {
    const given = codes.get(form['code'] ?? '')
    codes.delete(form['code'] ?? '')
    if (!given || state.trouble === 'refuses') return undefined
    const challenge = createHash('sha256')
      .update(form['code_verifier'] ?? '')
      .digest('base64url')
    const isTheirs = form['client_id'] === loginClient.id && form['client_secret'] === loginClient.secret
    const isSame = challenge === given['code_challenge'] && form['redirect_uri'] === given['redirect_uri']
    return isTheirs && isSame ? given : undefined
  }

  async function sign({ nonce }: Given): Promise<string> {
    const now = Math.floor(Date.now() / 1_000)
    const expires = state.trouble === 'expired' ? now - 600 : now + 600
    const { subject: sub, email, verified: email_verified, name } = person
    const claims = { iss: url, aud: loginClient.id, sub, email, email_verified, name, nonce, iat: now, exp: expires }
    const token = new SignJWT({ ...claims, ...state.claims }).setProtectedHeader({ alg: 'RS256', kid: 'one' })
    return keepSecret(await token.sign(state.trouble === 'another key' ? others.privateKey : keys.privateKey))
  }

  function forToken(authorization: string | undefined, body: unknown): Reply {
    return accessTokens.has(authorization?.replace(/^Bearer /, '') ?? '') ? ok(body) : { status: 401, body: {} }
  }

  function keepSecret(secret: string): string {
    secrets.push(secret)
    return secret
  }

  async function stop(): Promise<void> {
    server.closeAllConnections()
    server.close()
    await once(server, 'close')
  }
}

const ok = (body: unknown): Reply => ({ status: 200, body })
