import { argon2, randomBytes, timingSafeEqual } from 'node:crypto'
import { promisify } from 'node:util'
import { OriginError } from './error.ts'

export type Passwords = {
  /** A PHC string, `$argon2id$v=19$m=…,t=…,p=…$salt$hash`. */
  hash(password: string): Promise<string>
  /** Whether the password made this PHC string. Without one it takes as long, and is false. */
  verify(password: string, phc: string | undefined): Promise<boolean>
}

type Cost = { memory: number; passes: number; parallelism: number }
type Phc = { cost: Cost; salt: Buffer; hash: Buffer }

const cost: Cost = { memory: 19_456, passes: 2, parallelism: 1 }
const saltBytes = 16
const hashBytes = 32
const derive = promisify(argon2)

/**
 * Argon2id on the thread pool, at most `concurrencyMax` at a time (each takes 19 MiB) with `waitingMax` waiting
 * for a turn; past that `busy` is thrown, which is 503 with Retry-After.
 */
export function createPasswords({ concurrencyMax = 2, waitingMax = 64 } = {}): Passwords {
  const inTurn = createQueue(concurrencyMax, waitingMax)
  const decoy: Phc = { cost, salt: randomBytes(saltBytes), hash: randomBytes(hashBytes) }

  return {
    async hash(password) {
      const salt = randomBytes(saltBytes)
      return toPhc({ cost, salt, hash: await inTurn(() => compute(password, { cost, salt })) })
    },
    async verify(password, phc) {
      const known = phc === undefined ? undefined : fromPhc(phc)
      const expected = known ?? decoy
      const hash = await inTurn(() => compute(password, expected))
      return timingSafeEqual(hash, expected.hash) && known !== undefined
    },
  }
}

function createQueue(concurrencyMax: number, waitingMax: number) {
  let running = 0
  const waiting: (() => void)[] = []

  return async function inTurn<T>(work: () => Promise<T>): Promise<T> {
    if (running >= concurrencyMax) await turn()
    else running += 1
    try {
      return await work()
    } finally {
      const next = waiting.shift()
      if (next) next()
      else running -= 1
    }
  }

  function turn(): Promise<void> {
    if (waiting.length >= waitingMax)
      throw new OriginError('busy', 'Too many logins at once', { headers: { 'Retry-After': '1' } })
    return new Promise((start) => waiting.push(start))
  }
}

function compute(
  password: string,
  { cost: { memory, passes, parallelism }, salt }: Omit<Phc, 'hash'>,
): Promise<Buffer> {
  const message = password.normalize('NFKC')
  return derive('argon2id', { message, nonce: salt, memory, passes, parallelism, tagLength: hashBytes })
}

function toPhc({ cost: { memory, passes, parallelism }, salt, hash }: Phc): string {
  return `$argon2id$v=19$m=${memory},t=${passes},p=${parallelism}$${base64(salt)}$${base64(hash)}`
}

const PHC = /^\$argon2id\$v=19\$m=(\d{1,7}),t=(\d{1,3}),p=(\d{1,2})\$([\w+/]{11,88})\$([\w+/]{43})$/

function fromPhc(text: string): Phc {
  const [, memory, passes, parallelism, salt = '', hash = ''] = PHC.exec(text) ?? []
  if (!memory) throw new OriginError('internal', 'A stored password hash cannot be read')
  return {
    cost: { memory: Number(memory), passes: Number(passes), parallelism: Number(parallelism) },
    salt: Buffer.from(salt, 'base64'),
    hash: Buffer.from(hash, 'base64'),
  }
}

// PHC strings use base64 without padding.
function base64(bytes: Buffer): string {
  return bytes.toString('base64').replace(/=+$/, '')
}
