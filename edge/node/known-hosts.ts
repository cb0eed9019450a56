import type { MiddlewareHandler } from 'hono'
import { readHost } from '../exchange.ts'

/**
 * Refuses requests whose Host is a name that was not declared. A page from elsewhere can make its own name point here
 * (DNS rebinding) and would then read with its reader's browser; an address or 'localhost' it cannot take. Whether all
 * is well may be asked by any name.
 */
export function requireKnownHost(names: string[]): MiddlewareHandler {
  return async function hostIsKnown(context, next) {
    const host = readHost(context.req.header('host') ?? '')?.host
    if (host !== undefined && (isLocal(host) || names.includes(host))) return next()
    if (context.req.path === '/healthz' || context.req.path === '/readyz') return next()
    return context.json(
      {
        code: 'unknown_host',
        detail: `operators ask by address or as localhost; to ask as '${host ?? ''}', name it in DAEMUN_ADMIN_HOSTS`,
      },
      421,
    )
  }
}

const isLocal = (host: string): boolean =>
  host === 'localhost' || host.startsWith('[') || /^\d{1,3}(\.\d{1,3}){3}$/.test(host)

/** The name in lower case; undefined: it is none, or has a port. */
export function readHostName(text: string): string | undefined {
  const name = text.trim().toLowerCase()
  return readHost(name)?.authority === name && !name.includes(':') ? name : undefined
}
