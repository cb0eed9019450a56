import type { Exchange } from '../exchange.ts'
import type { Facts } from '../runtime.ts'
import { suggest } from '../shape.ts'
import type { Auth, TokenSource } from '../table.ts'
import type { TokenVerdict } from '../token.ts'
import type { Binding, BoundPolicy, Verdict } from './index.ts'

/** Asks for a JSON Web Token (RFC 7519) that one key has signed; who that is travels upstream (`identity.ts`). */
export function bindAuth({ route, keys, report }: Binding): BoundPolicy | undefined {
  const { auth } = route
  if (!auth) return undefined
  const verifier = keys.get(auth.jwt)
  if (!verifier)
    return void report(
      'auth.jwt',
      `names the key '${auth.jwt}', which is not declared`,
      keys.size > 0 ? suggest(auth.jwt, [...keys.keys()]) : "declare it in the table's 'keys'",
    )
  const sources = [auth.from ?? 'bearer'].flat()
  const wanted = Object.entries(auth.claims ?? {}).map(([name, values]) => ({ name, values: [values].flat() }))

  function check(exchange: Exchange, facts: Facts): Verdict | Promise<Verdict> {
    const token = findToken(sources, exchange)
    if (token === undefined) return auth?.optional ? anonymous : missing
    const verdict = verifier?.verify(token, facts) ?? unknown
    return verdict instanceof Promise ? verdict.then((settled) => settle(exchange, settled)) : settle(exchange, verdict)
  }

  function settle(exchange: Exchange, verdict: TokenVerdict): Verdict {
    if (verdict.outcome === 'unavailable') return unavailable
    if (verdict.outcome === 'refused') return toUnauthorized(verdict.reason)
    const { claims } = verdict.identity
    const unmet = wanted.find(
      ({ name, values }) => ![claims[name]].flat().some((value) => values.includes(String(value))),
    )
    if (unmet) return toForbidden(unmet.name)
    exchange.identity = verdict.identity
    return verified
  }

  return { name: 'auth', describe: describeAuth(auth, sources), check }
}

/** The first source that has a token. */
function findToken(sources: TokenSource[], exchange: Exchange): string | undefined {
  for (const source of sources) {
    const token = readToken(source, exchange)
    if (token !== undefined) return token
  }
  return undefined
}

function readToken(source: TokenSource, { authorization, cookie, query }: Exchange): string | undefined {
  // RFC 6750 §2.1; the scheme's name is not case-sensitive (RFC 9110 §11.1).
  if (source === 'bearer')
    return authorization && /^bearer /i.test(authorization) ? authorization.slice(7).trim() : undefined
  if ('cookie' in source) return readPair(cookie.split(';'), source.cookie)
  return readPair(query.slice(1).split('&'), source.query)
}

/** The value of the first `name=value`; empty counts as none. */
function readPair(pairs: string[], name: string): string | undefined {
  for (const pair of pairs) {
    const text = pair.trim()
    if (text.startsWith(name) && text.charCodeAt(name.length) === 0x3d) return text.slice(name.length + 1) || undefined
  }
  return undefined
}

const verified: Verdict = { outcome: 'pass', reason: 'the token is verified' }
const anonymous: Verdict = { outcome: 'pass', reason: 'no token, and none is needed' }
const unknown: TokenVerdict = { outcome: 'unavailable' }

// RFC 6750 §3: no error code when no token was sent.
const missing: Verdict = {
  outcome: 'refuse',
  reason: 'no token',
  refusal: { code: 'unauthorized', detail: 'Unauthorized', headers: ['WWW-Authenticate', 'Bearer'] },
}

const unavailable: Verdict = {
  outcome: 'refuse',
  reason: 'the keys cannot be had',
  refusal: {
    code: 'keys_unavailable',
    detail: 'the keys that verify tokens cannot be had now',
    headers: ['Retry-After', '5'],
  },
}

const toUnauthorized = (reason: string): Verdict => ({
  outcome: 'refuse',
  reason,
  refusal: {
    code: 'unauthorized',
    detail: 'Unauthorized',
    headers: ['WWW-Authenticate', `Bearer error="invalid_token", error_description="${reason.replace(/"/g, "'")}"`],
  },
})

const toForbidden = (claim: string): Verdict => ({
  outcome: 'refuse',
  reason: `the claim '${claim}' is not one that may`,
  refusal: {
    code: 'forbidden',
    detail: 'Forbidden',
    headers: ['WWW-Authenticate', 'Bearer error="insufficient_scope"'],
  },
})

const describeAuth = ({ jwt, optional }: Auth, sources: TokenSource[]): string =>
  `${optional ? 'optional ' : ''}token of '${jwt}' from ${sources.map(describeSource).join(' or ')}`

function describeSource(source: TokenSource): string {
  if (source === 'bearer') return 'Authorization: Bearer'
  return 'cookie' in source ? `the cookie ${source.cookie}` : `the query's ${source.query}`
}
