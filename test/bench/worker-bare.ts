import { path } from './work.ts'

/** The least that a Worker in front of an origin does: what is above it is Daemun's. */
export default {
  fetch: (request: Request, { BENCH_ORIGIN }: { BENCH_ORIGIN: string }): Promise<Response> =>
    fetch(`${BENCH_ORIGIN}${path}`, request),
}
