/** The faults of upstreams once more, for upstreams that undici asks. */
import { setUpstreamClient } from '../support/gateway.ts'

setUpstreamClient('undici')
await import('./upstream.test.ts')
