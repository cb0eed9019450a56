import { createSecretKey } from 'node:crypto'
import { errors, jwtVerify, SignJWT } from 'jose'
import type { JWTPayload } from 'jose'

export type Tokens = {
  /** A bearer token for the subject, with whatever claims are given besides. */
  issue(subject: string, claims?: JWTPayload): Promise<string>
  /** The subject of a good token; undefined for any other text, and for one whose claim `type` is not the wanted one. */
  verify(token: string): Promise<string | undefined>
  /** All claims of a token that `verify` accepts. */
  read(token: string): Promise<JWTPayload | undefined>
}

type TokensOptions = {
  secret: string
  lifetimeSeconds: number
  /** What these tokens are for, in their claim `type`: one secret then serves several kinds that never pass for another. */
  type?: string
}

/** HS256 tokens that live for `lifetimeSeconds`. Nothing but HS256 is accepted, `none` least of all. */
export function createTokens({ secret, lifetimeSeconds, type }: TokensOptions): Tokens {
  const key = createSecretKey(Buffer.from(secret))
  return {
    issue(subject, claims = {}) {
      const token = new SignJWT({ ...claims, ...(type && { type }) })
        .setProtectedHeader({ alg: 'HS256', typ: 'JWT' })
        .setSubject(subject)
      return token.setIssuedAt().setExpirationTime(`${lifetimeSeconds} s`).sign(key)
    },
    verify: async (token) => (await read(token))?.sub,
    read,
  }

  async function read(token: string): Promise<JWTPayload | undefined> {
    try {
      const { payload } = await jwtVerify(token, key, { algorithms: ['HS256'], requiredClaims: ['sub', 'exp'] })
      return payload['type'] === type ? payload : undefined
    } catch (error) {
      if (error instanceof errors.JOSEError) return undefined
      throw error
    }
  }
}
