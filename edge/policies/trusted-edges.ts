import { verifyEdge } from '../edge-signature.ts'
import type { Exchange } from '../exchange.ts'
import type { Facts } from '../runtime.ts'
import type { Binding, BoundPolicy, Verdict } from './index.ts'

/** Serves only what came through our own edge, and believes what the edge says of the client. */
export function bindTrustedEdges({ site }: Binding): BoundPolicy | undefined {
  const secret = site.trustedEdges?.secret
  if (secret === undefined) return undefined

  async function verify(exchange: Exchange, facts: Facts): Promise<Verdict> {
    const client = await verifyEdge(secret ?? '', exchange, facts.now())
    if (!client) return refused
    exchange.client = client.address
    exchange.scheme = client.scheme
    return signed
  }

  // On the edge itself clients are where they should be; the signature is for the hop behind it.
  return {
    name: 'trusted-edges',
    describe: 'only through the edge',
    check: (exchange, facts) => (facts.isEdge ? edge : verify(exchange, facts)),
  }
}

const edge: Verdict = { outcome: 'pass', reason: 'this is the edge' }
const signed: Verdict = { outcome: 'pass', reason: 'signed by the edge' }
const refused: Verdict = {
  outcome: 'refuse',
  reason: 'no good signature of an edge',
  refusal: { code: 'edge_required', detail: 'this host is served only through its edge' },
}
