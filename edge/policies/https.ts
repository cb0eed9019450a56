import type { Exchange } from '../exchange.ts'
import type { Https } from '../table.ts'
import type { Binding, BoundPolicy, Verdict } from './index.ts'

/** Sends http on to https (RFC 9110 §15.4.9) and tells browsers to stay there (RFC 6797). */
export function bindHttps({ site, route }: Binding): BoundPolicy | undefined {
  if (!site.https) return undefined
  const { redirect = true, hsts = { maxAgeSeconds: 63_072_000 } }: Https = site.https === true ? {} : site.https
  const field = hsts && ['Strict-Transport-Security', toHstsValue(hsts)]
  const redirects = redirect && route.https !== false

  function check(exchange: Exchange): Verdict {
    if (exchange.scheme === 'https') {
      // RFC 6797 §7.2: never over http.
      if (field) exchange.answerHeaders.push(...field)
      return secure
    }
    if (!redirects) return allowed
    // Browsers take *.localhost for a secure origin, and no certificate is to be had for it.
    if (exchange.host.endsWith('.localhost')) return twin
    const location = `https://${exchange.host}${exchange.path}${exchange.query}`
    return { outcome: 'redirect', reason: 'came over http', status: 308, location }
  }

  return {
    name: 'https',
    describe: `${redirects ? 'redirect' : 'no redirect'}${field ? `, HSTS ${field[1]}` : ''}`,
    check,
  }
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
