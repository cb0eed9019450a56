import type { Exchange } from './exchange.ts'

/** Where a certificate authority asks whether a host is ours (RFC 8555 §8.3). */
const prefix = '/.well-known/acme-challenge/'

export const isChallenge = ({ path }: Exchange): boolean => path.startsWith(prefix)

/** undefined: no authority asks so. A token is base64url (RFC 8555 §8.1), and so never a way into another folder. */
export function readChallengeToken({ path }: Exchange): string | undefined {
  const token = path.slice(prefix.length)
  return /^[\w-]{16,256}$/.test(token) ? token : undefined
}
