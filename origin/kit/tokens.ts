import { createSecretKey } from 'node:crypto'
import { errors, jwtVerify, SignJWT } from 'jose'

export type Tokens = {
  /** A bearer token for the subject. */
  issue(subject: string): Promise<string>
  /** The subject of a good token; undefined for any other text. */
  verify(token: string): Promise<string | undefined>
}

/** HS256 tokens that live for `lifetimeSeconds`. Nothing but HS256 is accepted, `none` least of all. */
export function createTokens({ secret, lifetimeSeconds }: { secret: string; lifetimeSeconds: number }): Tokens {
  const key = createSecretKey(Buffer.from(secret))
  return {
    issue(subject) {
      const token = new SignJWT().setProtectedHeader({ alg: 'HS256', typ: 'JWT' }).setSubject(subject)
      return token.setIssuedAt().setExpirationTime(`${lifetimeSeconds} s`).sign(key)
    },
    async verify(token) {
      try {
        const { payload } = await jwtVerify(token, key, { algorithms: ['HS256'], requiredClaims: ['sub', 'exp'] })
        return payload.sub
      } catch (error) {
        if (error instanceof errors.JOSEError) return undefined
        throw error
      }
    },
  }
}
