import { lookup as systemLookup } from 'node:dns'
import type { LookupAddress } from 'node:dns'
import type { LookupFunction } from 'node:net'
import { limits } from '../limits.ts'

/** Addresses of names. The system does not say how long one is good, so each is looked up again every few seconds. */
export interface Resolver {
  follow(hostname: string): FollowedName
}

/** A name whose addresses are kept: the last good ones when looking up fails or takes long. */
export interface FollowedName {
  /** For sockets. */
  lookup: LookupFunction
  /** Grows when the addresses have changed. */
  version(): number
  /** Looks the name up again in the background when it is time. */
  touch(): void
}

export interface ResolverOptions {
  now: () => number
  /** All addresses of a name. */
  lookupAll?: (hostname: string) => Promise<LookupAddress[]>
}

export function createResolver({ now, lookupAll = askSystem }: ResolverOptions): Resolver {
  const names = new Map<string, FollowedName>()
  const inTurn = createTurnstile(limits.lookupsMax)

  function follow(hostname: string): FollowedName {
    const known = names.get(hostname)
    if (known) return known
    const name = createName(() => inTurn(() => lookupAll(hostname)), now)
    names.set(hostname, name)
    return name
  }

  return { follow }
}

function createName(find: () => Promise<LookupAddress[]>, now: () => number): FollowedName {
  let addresses: LookupAddress[] | undefined
  let error: unknown
  let askedAt = Number.NEGATIVE_INFINITY
  let pending: Promise<void> | undefined
  let version = 0

  const isFresh = (): boolean => now() - askedAt < (error === undefined ? limits.lookupFreshMs : limits.lookupAgainMs)

  function refresh(): Promise<void> {
    pending ??= look().finally(() => {
      askedAt = now()
      pending = undefined
    })
    return pending
  }

  async function look(): Promise<void> {
    try {
      const found = await find()
      if (addresses && toText(addresses) !== toText(found)) version++
      addresses = found
      error = undefined
    } catch (reason) {
      error = reason
    }
  }

  async function resolve(): Promise<LookupAddress[]> {
    if (!isFresh()) await (addresses ? Promise.race([refresh(), wait(limits.lookupWaitMs)]) : refresh())
    if (addresses) return addresses
    throw error
  }

  const answer = async (all: boolean | undefined, callback: Parameters<LookupFunction>[2]): Promise<void> => {
    const found = await resolve().catch((reason: NodeJS.ErrnoException) => reason)
    if (found instanceof Error) return callback(found, '', 0)
    if (all) return callback(null, found)
    callback(null, found[0]?.address ?? '', found[0]?.family)
  }

  return {
    lookup: (_hostname, { all }, callback) => void answer(all, callback),
    version: () => version,
    touch: () => {
      if (!isFresh()) void refresh()
    },
  }
}

const toText = (addresses: LookupAddress[]): string =>
  addresses
    .map(({ address }) => address)
    .sort()
    .join()

const askSystem = (hostname: string): Promise<LookupAddress[]> =>
  new Promise((resolve, reject) =>
    systemLookup(hostname, { all: true }, (error, found) => (error ? reject(error) : resolve(found))),
  )

const wait = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms).unref())

/** Lets so many through at a time. */
function createTurnstile(max: number): <Result>(task: () => Promise<Result>) => Promise<Result> {
  const waiting: (() => void)[] = []
  let inside = 0
  return async (task) => {
    if (inside >= max) await new Promise<void>((resolve) => waiting.push(resolve))
    else inside++
    try {
      return await task()
    } finally {
      const next = waiting.shift()
      if (next) next()
      else inside--
    }
  }
}
