import { createSecretKey } from 'node:crypto'
import { errors, jwtVerify, SignJWT } from 'jose'

/** How urgent a request is, most urgent first: a game's turn, a person who reads along, work that nobody waits for. */
export const bands = ['interactive', 'standard', 'batch'] as const
export type Band = (typeof bands)[number]

/** Whoever asks the GPU worker, as a signed token says it. */
export type WorkerCaller = {
  /** Whose budget, share of the queue and prefix cache it is. */
  tenant: string
  band: Band
  /** Nothing of it may leave for a provider elsewhere. */
  local: boolean
  /** Its prefixes may be shared in the cache with other tenants that say so: for one system prompt of all. */
  sharedPrefix: boolean
}

const audience = 'gpu-worker'

/** A bearer token for the GPU worker, HS256 with the secret that both sides have, good for `lifetimeSeconds`. */
export function issueWorkerToken(
  secret: string,
  { tenant, band = 'standard', local = false, sharedPrefix = false }: { tenant: string } & Partial<WorkerCaller>,
  lifetimeSeconds = 300,
): Promise<string> {
  return new SignJWT({ band, ...(local && { local }), ...(sharedPrefix && { sharedPrefix }) })
    .setProtectedHeader({ alg: 'HS256', typ: 'JWT' })
    .setAudience(audience)
    .setSubject(tenant)
    .setIssuedAt()
    .setExpirationTime(`${lifetimeSeconds} s`)
    .sign(createSecretKey(Buffer.from(secret)))
}

/** The caller of a good token and when the token ends, in seconds since the epoch; undefined for any other text. */
export function createWorkerTokenReader(secret: string) {
  const key = createSecretKey(Buffer.from(secret))
  return async function readWorkerToken(token: string): Promise<{ caller: WorkerCaller; endsAt: number } | undefined> {
    try {
      const { payload } = await jwtVerify(token, key, {
        algorithms: ['HS256'],
        audience,
        requiredClaims: ['sub', 'exp'],
      })
      const { sub: tenant = '', exp = 0, band = 'standard', local = false, sharedPrefix = false } = payload
      if (tenant === '' || tenant.length > 200 || !isBand(band)) return undefined
      return { caller: { tenant, band, local: local !== false, sharedPrefix: sharedPrefix === true }, endsAt: exp }
    } catch (error) {
      if (error instanceof errors.JOSEError) return undefined
      throw error
    }
  }
}

function isBand(value: unknown): value is Band {
  return bands.some((band) => band === value)
}
