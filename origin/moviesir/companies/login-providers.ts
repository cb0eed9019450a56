import { z } from '@hono/zod-openapi'
import { createRemoteJWKSet, errors, jwtVerify } from 'jose'
import type { JWTPayload } from 'jose'
import { OriginError } from '../../kit/error.ts'
import type { LoginClient, MovieSirConfig } from '../config.ts'

export const providerNames = ['google', 'github'] as const
export type ProviderName = (typeof providerNames)[number]

/** What the providers call themselves. */
export const labels = { google: 'Google', github: 'GitHub' } as const satisfies Record<ProviderName, string>

/** Who somebody is at a provider: `subject` never changes there, `email` has been verified by the provider. */
export type Identity = { subject: string; email: string; name: string }

/** A login by authorization code with PKCE (RFC 9700 §2.1). */
export type LoginProvider = {
  /** Where the browser goes to log in. `challenge` is the SHA-256 of the verifier in base64url. */
  authorizeUrl(login: { state: string; challenge: string; nonce: string }): Promise<string>
  /** Who came back with this code; throws a refusal that says what is wrong. */
  identify(login: { code: string; verifier: string; nonce: string }): Promise<Identity>
}

/** The providers that are configured. */
export function createLoginProviders({ google, github }: Pick<MovieSirConfig, 'google' | 'github'>) {
  return {
    ...(google && { google: createGoogle(google) }),
    ...(github && { github: createGitHub(github) }),
  } satisfies Partial<Record<ProviderName, LoginProvider>>
}

const requestMs = 5_000

/** OpenID Connect: the provider's own document says where things are, and an ID token who it is. */
function createGoogle({ issuer, ...client }: NonNullable<MovieSirConfig['google']>): LoginProvider {
  const label = labels.google
  let known: ReturnType<typeof discover> | undefined

  return {
    async authorizeUrl({ state, challenge, nonce }) {
      const { authorization_endpoint } = await endpoints()
      const scope = 'openid email profile'
      return toAuthorizeUrl(
        authorization_endpoint,
        client,
        { scope, state, nonce, prompt: 'select_account' },
        challenge,
      )
    },
    async identify({ code, verifier, nonce }) {
      const { token_endpoint, keys } = await endpoints()
      const form = { ...toTokenForm(client, code, verifier), grant_type: 'authorization_code' }
      const { id_token } = await ask(label, token_endpoint, z.object({ id_token: z.string() }), { form })
      const payload = await read(id_token, keys)
      const claims = googleClaims.safeParse(payload)
      if (!claims.success || payload['nonce'] !== nonce) throw refused(label)
      const { sub, email, email_verified, name } = claims.data
      if (!email || !email_verified) throw unverified(label)
      return { subject: sub, email, name: name ?? '' }
    },
  }

  async function endpoints() {
    known ??= discover()
    return known.catch((error: unknown) => {
      known = undefined
      throw error
    })
  }

  async function discover() {
    const found = await ask(label, new URL('/.well-known/openid-configuration', issuer), googleEndpoints)
    if (found.issuer !== issuer) throw unavailable(label)
    return { ...found, keys: createRemoteJWKSet(new URL(found.jwks_uri), { timeoutDuration: requestMs }) }
  }

  async function read(token: string, keys: ReturnType<typeof createRemoteJWKSet>): Promise<JWTPayload> {
    // Google's tokens name it with the scheme or without.
    const issuers = [issuer, new URL(issuer).host]
    const expected = {
      issuer: issuers,
      audience: client.clientId,
      algorithms: ['RS256'],
      requiredClaims: ['sub', 'exp'],
    }
    try {
      return (await jwtVerify(token, keys, expected)).payload
    } catch (error) {
      throw isBadToken(error) ? refused(label) : unavailable(label, error)
    }
  }
}

/** OAuth without ID tokens: who it is, is asked with the access token, which is then forgotten. */
function createGitHub({ serverUrl, apiUrl, ...client }: NonNullable<MovieSirConfig['github']>): LoginProvider {
  const label = labels.github
  return {
    async authorizeUrl({ state, challenge }) {
      const scope = 'read:user user:email'
      return toAuthorizeUrl(`${serverUrl}/login/oauth/authorize`, client, { scope, state }, challenge)
    },
    async identify({ code, verifier }) {
      const form = toTokenForm(client, code, verifier)
      const { access_token: token } = await ask(label, `${serverUrl}/login/oauth/access_token`, githubToken, { form })
      // A code that is wrong is told with 200 as well.
      if (!token) throw refused(label)
      const [user, emails] = await Promise.all([
        ask(label, `${apiUrl}/user`, githubUser, { token }),
        ask(label, `${apiUrl}/user/emails`, githubEmails, { token }),
      ])
      const email = emails.find(({ primary, verified }) => primary && verified)?.email
      if (!email) throw unverified(label)
      return { subject: String(user.id), email, name: user.name ?? user.login }
    },
  }
}

const googleEndpoints = z.object({
  issuer: z.string(),
  authorization_endpoint: z.url(),
  token_endpoint: z.url(),
  jwks_uri: z.url(),
})
const googleClaims = z.object({
  sub: z.string().min(1).max(255),
  email: z.email().max(254).optional(),
  email_verified: z.boolean().optional(),
  name: z.string().optional(),
})
const githubToken = z.object({ access_token: z.string().optional() })
const githubUser = z.object({ id: z.int(), login: z.string(), name: z.string().nullish() })
const githubEmails = z.array(z.object({ email: z.email().max(254), primary: z.boolean(), verified: z.boolean() }))

function toAuthorizeUrl(
  endpoint: string,
  { clientId, redirectUri }: LoginClient,
  query: Record<string, string>,
  challenge: string,
): string {
  const url = new URL(endpoint)
  const pkce = { code_challenge: challenge, code_challenge_method: 'S256' }
  const all = { response_type: 'code', client_id: clientId, redirect_uri: redirectUri, ...pkce, ...query }
  for (const [name, value] of Object.entries(all)) url.searchParams.set(name, value)
  return url.href
}

function toTokenForm({ clientId, clientSecret, redirectUri }: LoginClient, code: string, verifier: string) {
  return {
    code,
    code_verifier: verifier,
    client_id: clientId,
    client_secret: clientSecret,
    redirect_uri: redirectUri,
  }
}

type Question = { form?: Record<string, string>; token?: string }

/** What a provider answers. What it says of a refusal goes nowhere: it may repeat what it was sent. */
async function ask<S extends z.ZodType>(
  label: string,
  url: string | URL,
  schema: S,
  { form, token }: Question = {},
): Promise<z.output<S>> {
  const headers = { accept: 'application/json', 'user-agent': 'moviesir' }
  const answer = await fetch(url, {
    headers: token === undefined ? headers : { ...headers, authorization: `Bearer ${token}` },
    ...(form && { method: 'POST', body: new URLSearchParams(form) }),
    redirect: 'error',
    signal: AbortSignal.timeout(requestMs),
  }).catch((error: unknown) => {
    throw unavailable(label, error)
  })
  const body: unknown = await answer.json().catch(() => undefined)
  if (answer.status >= 400 && answer.status < 500 && answer.status !== 429) throw refused(label)
  const result = schema.safeParse(body)
  if (!answer.ok || !result.success) throw unavailable(label)
  return result.data
}

// Everything else that jose throws is about fetching the keys.
function isBadToken(error: unknown): boolean {
  return (
    error instanceof errors.JWTClaimValidationFailed ||
    error instanceof errors.JWTExpired ||
    error instanceof errors.JWTInvalid ||
    error instanceof errors.JWSInvalid ||
    error instanceof errors.JWSSignatureVerificationFailed ||
    error instanceof errors.JOSEAlgNotAllowed ||
    error instanceof errors.JWKSNoMatchingKey
  )
}

function refused(label: string): OriginError {
  return new OriginError('bad_request', `${label}에서 로그인을 확인하지 못했습니다. 다시 시도해 주세요.`)
}

function unverified(label: string): OriginError {
  return new OriginError('forbidden', `${label}에 확인된 이메일이 없습니다. ${label}에서 이메일을 확인해 주세요.`)
}

function unavailable(label: string, cause?: unknown): OriginError {
  const headers = { 'Retry-After': '5' }
  return new OriginError('service_unavailable', `${label}에 연결할 수 없습니다. 잠시 후 다시 시도해 주세요.`, {
    headers,
    cause,
  })
}
