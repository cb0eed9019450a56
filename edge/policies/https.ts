import type { Exchange } from '../exchange.ts'
import type { Facts } from '../runtime.ts'
import type { Https } from '../table.ts'
import type { Binding, BoundPolicy, Verdict } from './index.ts'

/** Sends http on to https (RFC 9110 §15.4.9) and tells browsers to stay there (RFC 6797). */
export function bindHttps({ site, route }: Binding): BoundPolicy | undefined {
  if (!site.https) return undefined
  const { redirect = true, hsts = { maxAgeSeconds: 63_072_000 } }: Https = site.https === true ? {} : site.https
  const field = hsts && ['Strict-Transport-Security', toHstsValue(hsts)]
  const redirects = redirect && route.https !== false

  function check(exchange: Exchange, facts: Facts): Verdict {
    if (exchange.scheme === 'https') {
      // RFC 6797 §7.2: never over http. A twin stays on both: its browser would go to the plain port with https.
      if (field && !exchange.host.endsWith('.localhost')) exchange.answerHeaders.push(...field)
      return secure
    }
    if (!redirects) return allowed
    // Browsers take *.localhost for a secure origin, and no public authority has a certificate for it.
    if (exchange.host.endsWith('.localhost')) return twin
    const location = `https://${exchange.host}${toPort(exchange, facts)}${exchange.path}${exchange.query}`
    return { outcome: 'redirect', reason: 'came over http', status: 308, location }
  }

  return {
    name: 'https',
    describe: `${redirects ? 'redirect' : 'no redirect'}${field ? `, HSTS ${field[1]}` : ''}`,
    check,
  }
}

/**
 * Whoever came to the plain port under the number it has here finds https here under its own number too. Any other
 * number was mapped by something in front, which has https where it belongs.
 */
function toPort({ host, authority }: Exchange, { ports }: Facts): string {
  if (!ports || ports.https === 443) return ''
  const cameTo = Number(authority.slice(host.length + 1) || 80)
  return cameTo === ports.http ? `:${ports.https}` : ''
}

const secure: Verdict = { outcome: 'pass', reason: 'came over https' }
const allowed: Verdict = { outcome: 'pass', reason: 'http is allowed here' }
const twin: Verdict = { outcome: 'pass', reason: 'a .localhost twin is not redirected' }

const toHstsValue = ({
  maxAgeSeconds,
  includeSubDomains,
  preload,
}: Exclude<Https['hsts'], false | undefined>): string =>
  `max-age=${maxAgeSeconds}${includeSubDomains ? '; includeSubDomains' : ''}${preload ? '; preload' : ''}`
