import { hkdfSync, randomBytes } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { limits } from '../limits.ts'
import { replaceFile } from './publish-folder.ts'

/** What the keys of session tickets (RFC 5077, RFC 8446 §4.6.1) come from. */
export interface TicketSecret {
  /** As text, without white space. */
  secret: string
  /** Milliseconds since the epoch. */
  madeAt: number
}

/**
 * The secret in the folder, made anew when it is too old: so that processes which share the folder take up each
 * other's sessions. Where none can be kept, one of this process's own.
 */
export async function readTicketSecret(
  directory: string,
  now: number,
  last: TicketSecret | undefined,
): Promise<TicketSecret> {
  const path = join(directory, 'tickets')
  const there = await read(path)
  if (there && isFresh(there, now)) return there
  const made = { secret: randomBytes(32).toString('hex'), madeAt: now }
  try {
    await replaceFile(path, `${made.secret} ${made.madeAt}\n`, 0o600)
    // When several make one, the last stays; who has read another one reads that at its next look.
    return (await read(path)) ?? made
  } catch {
    return last && isFresh(last, now) ? last : made
  }
}

/** 48 bytes for a site: no other's tickets can be read with them, and the secret cannot be had from them. */
export const toTicketKeys = ({ secret }: TicketSecret, site: string): Buffer =>
  Buffer.from(hkdfSync('sha256', secret, '', `daemun tickets ${site}`, 48))

/** Also when the clock was turned back: a secret from the future would never grow old. */
const isFresh = ({ madeAt }: TicketSecret, now: number): boolean => Math.abs(now - madeAt) < limits.ticketKeyMs

async function read(path: string): Promise<TicketSecret | undefined> {
  const text = await readFile(path, 'utf8').catch(() => '')
  const [, secret, madeAt] = /^([0-9a-f]{64}) (\d+)\n$/.exec(text) ?? []
  return secret === undefined ? undefined : { secret, madeAt: Number(madeAt) }
}
