import { createHash, randomBytes } from 'node:crypto'
import type { Context, MiddlewareHandler } from 'hono'
import { deleteCookie, getCookie, setCookie } from 'hono/cookie'
import type { ApiEnv } from '../../kit/api.ts'
import type { Sql } from '../../kit/database.ts'
import { OriginError } from '../../kit/error.ts'
import { createTokens } from '../../kit/tokens.ts'
import type { Viewer } from './users.ts'
import { findViewer } from './users.ts'

/** The context of routes that know their viewer. */
export type ViewerEnv = ApiEnv<{ viewer: Viewer }>

export type Logins = ReturnType<typeof createLogins>

const accessSeconds = 30 * 60
const shortAccessSeconds = 60 * 60
const refreshSeconds = 7 * 86_400
/** A second use within this time is two requests that crossed, not a stolen token. */
const graceSeconds = 10

/**
 * Logins in cookies: an access token (HS256, 30 minutes) and, for who wants to be remembered, a refresh token of seven
 * days that is exchanged for its successor once. A refresh token that comes back later ends every token of that login
 * (RFC 9700 §4.14.2).
 */
export function createLogins({ sql, secret, isProduction }: { sql: Sql; secret: string; isProduction: boolean }) {
  const access = createTokens({ secret, lifetimeSeconds: accessSeconds })
  const shortAccess = createTokens({ secret, lifetimeSeconds: shortAccessSeconds })
  const cookie = { path: '/', httpOnly: true, sameSite: 'Lax' as const, secure: isProduction }

  return { start, refresh, end, signedIn: signedIn() }

  /** Sets the cookies of a new login. */
  async function start(c: Context, viewer: Viewer, { remember }: { remember: boolean }): Promise<void> {
    const tokens = remember ? access : shortAccess
    setCookie(c, 'access_token', await tokens.issue(viewer.user_id, { nickname: viewer.nickname }), {
      ...cookie,
      maxAge: remember ? accessSeconds : shortAccessSeconds,
    })
    if (!remember) return forgetRefresh(c)
    await addRefreshToken(c, viewer.user_id, crypto.randomUUID())
  }

  /** Exchanges the refresh token of the request; of many requests with the same one exactly one succeeds. */
  async function refresh(c: Context): Promise<void> {
    const given = getCookie(c, 'refresh_token')
    if (!given) throw refused('리프레시 토큰이 없습니다')
    const hash = toHash(given)
    const [won] = await sql<{ user_id: string; family: string }[]>`
      update b2c.refresh_tokens set used_at = now()
      where token_hash = ${hash} and used_at is null and expires_at > now()
      returning user_id, family`
    if (!won) {
      await sql`delete from b2c.refresh_tokens where family in (
        select family from b2c.refresh_tokens
        where token_hash = ${hash} and used_at < now() - make_interval(secs => ${graceSeconds}))`
      throw refused('유효하지 않은 리프레시 토큰입니다')
    }
    const viewer = await findViewer(sql, won.user_id)
    if (!viewer) throw refused('유효하지 않은 리프레시 토큰입니다')
    setCookie(c, 'access_token', await access.issue(viewer.user_id, { nickname: viewer.nickname }), {
      ...cookie,
      maxAge: accessSeconds,
    })
    await addRefreshToken(c, viewer.user_id, won.family)
  }

  /** Ends the login of the request, on this server and in the browser. */
  async function end(c: Context): Promise<void> {
    const given = getCookie(c, 'refresh_token')
    deleteCookie(c, 'access_token', cookie)
    forgetRefresh(c)
    if (given)
      await sql`delete from b2c.refresh_tokens where family in (
        select family from b2c.refresh_tokens where token_hash = ${toHash(given)})`
  }

  async function addRefreshToken(c: Context, userId: string, family: string): Promise<void> {
    const token = randomBytes(32).toString('base64url')
    await sql`insert into b2c.refresh_tokens (token_hash, family, user_id, expires_at)
      values (${toHash(token)}, ${family}, ${userId}, now() + make_interval(secs => ${refreshSeconds}))`
    setCookie(c, 'refresh_token', token, { ...cookie, maxAge: refreshSeconds })
    setCookie(c, 'remember_me', 'true', { ...cookie, httpOnly: false, maxAge: refreshSeconds })
  }

  function forgetRefresh(c: Context): void {
    deleteCookie(c, 'refresh_token', cookie)
    deleteCookie(c, 'remember_me', { ...cookie, httpOnly: false })
  }

  function signedIn(): MiddlewareHandler<ViewerEnv> {
    return async function authenticates(c, next) {
      const token = getCookie(c, 'access_token')
      if (!token) throw refused('인증이 필요합니다')
      const subject = await access.verify(token)
      const viewer = subject && isUuid(subject) ? await findViewer(sql, subject) : undefined
      if (!viewer) throw refused('유효하지 않은 토큰입니다')
      c.set('viewer', viewer)
      await next()
    }
  }
}

/** Forgets refresh tokens that nobody can use any more. Returns how many. */
export async function forgetOldLogins(sql: Sql): Promise<number> {
  const { count } = await sql`delete from b2c.refresh_tokens where expires_at < now()`
  return count
}

function refused(detail: string): OriginError {
  return new OriginError('unauthenticated', detail)
}

// A random token of 256 bits needs no salt and no slow hash.
function toHash(token: string): string {
  return createHash('sha256').update(token).digest('hex')
}

function isUuid(text: string): boolean {
  return /^[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}$/.test(text)
}
