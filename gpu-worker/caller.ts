import type { WorkerCaller } from '#origin/kit/worker-tokens.ts'
import { createWorkerTokenReader } from '#origin/kit/worker-tokens.ts'
import type { Limits } from './limits.ts'

export interface Callers {
  /** The caller of an `Authorization` field, at once where its token is known; undefined when it is not good. */
  read(authorization: string | undefined): WorkerCaller | undefined | Promise<WorkerCaller | undefined>
}

/** Verifies each token once and remembers it until it ends. */
export function createCallers(secret: string, { callersMax }: Limits, now: () => number): Callers {
  const readToken = createWorkerTokenReader(secret)
  const known = new Map<string, { caller: WorkerCaller; endsAt: number }>()

  async function verify(token: string): Promise<WorkerCaller | undefined> {
    const read = await readToken(token)
    if (!read) return undefined
    if (known.size >= callersMax) known.delete(known.keys().next().value as string)
    known.set(token, read)
    return read.caller
  }

  return {
    read(authorization = '') {
      if (!/^bearer [^ ]{1,4096}$/i.test(authorization)) return undefined
      const token = authorization.slice(7)
      const remembered = known.get(token)
      if (!remembered) return verify(token)
      if (remembered.endsAt * 1_000 > now()) return remembered.caller
      known.delete(token)
      return undefined
    },
  }
}
