import type { Refusal } from '../error.ts'
import type { Exchange } from '../exchange.ts'
import type { Facts } from '../runtime.ts'
import type { Report } from '../shape.ts'
import type { Route, Site } from '../table.ts'
import type { Verifier } from '../token.ts'
import { bindAuth } from './auth.ts'
import { bindBodySize } from './body-size.ts'
import { bindCors } from './cors.ts'
import { bindHttps } from './https.ts'
import { bindAddressLimit, bindSubjectLimit } from './limit.ts'
import { bindTrustedEdges } from './trusted-edges.ts'

/**
 * The policies in the one order they run in. A policy looks at the exchange and passes it on, perhaps with a note of
 * its own on it, or says how to answer instead. None knows its neighbours.
 */
const policies: Bind[] = [
  bindTrustedEdges, // first: it settles who the client is, which every later policy believes
  bindHttps, // before anything that costs: what came in the clear is only sent elsewhere
  bindCors, // before all that refuse: pages must be able to read that, and a browser that asks first has no token
  bindAddressLimit, // before auth: a bad token must not cost a signature or a key fetch
  bindBodySize, // before auth: what is too large by its own word needs no identity to be refused
  bindAuth,
  bindSubjectLimit, // after auth: it needs the claims
]

type PolicyName = 'trusted-edges' | 'https' | 'cors' | 'limit' | 'body-size' | 'auth'

/** What a policy is made from: a row, its site, and what names in them stand for. */
export interface Binding {
  /** Unique among all rows. */
  id: string
  route: Route
  site: Site
  keys: ReadonlyMap<string, Verifier>
  report: Report
}

/** Makes the policy of a row, or none when the row does not ask for it. */
type Bind = (binding: Binding) => BoundPolicy | undefined

export interface BoundPolicy {
  name: PolicyName
  /** What it asks for, in a few words. */
  describe: string
  check(exchange: Exchange, facts: Facts): Verdict | Promise<Verdict>
}

/** What a policy says of an exchange. `reason` is for people. */
export type Verdict =
  | { outcome: 'pass'; reason: string }
  | { outcome: 'refuse'; reason: string; refusal: Refusal }
  | { outcome: 'redirect'; reason: string; status: number; location: string }
  /** `headers` is flat. */
  | { outcome: 'answer'; reason: string; status: number; headers: string[] }

export const bindPolicies = (binding: Binding): BoundPolicy[] =>
  policies.map((bind) => bind(binding)).filter((policy) => policy !== undefined)
