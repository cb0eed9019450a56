import { createHash, timingSafeEqual } from 'node:crypto'
import type { MiddlewareHandler } from 'hono'

/**
 * Lets reads through, and changes only with `Authorization: Bearer` and the token (RFC 6750 §2.1). Without a token
 * nothing can be changed at all.
 */
export function requireAdminToken(token: string | undefined): MiddlewareHandler {
  return async function changesNeedToken(context, next) {
    const { method } = context.req
    if (method === 'GET' || method === 'HEAD') return next()
    if (token === undefined)
      return context.json(
        { code: 'no_admin_token', detail: 'changes are refused: start the gateway with DAEMUN_ADMIN_TOKEN' },
        403,
      )
    const [, given] = /^Bearer ([^ ]+)$/i.exec(context.req.header('authorization') ?? '') ?? []
    if (given !== undefined && isSame(given, token)) return next()
    const detail = `changes need 'Authorization: Bearer' with the gateway's DAEMUN_ADMIN_TOKEN`
    return context.json({ code: 'unauthorized', detail }, 401, { 'WWW-Authenticate': 'Bearer' })
  }
}

/** Takes as long for every text: neither where it differs nor its length can be timed. */
const isSame = (given: string, token: string): boolean => timingSafeEqual(digest(given), digest(token))

const digest = (text: string): Buffer => createHash('sha256').update(text).digest()
