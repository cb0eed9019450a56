import type { LookupAddress } from 'node:dns'
import { describe, expect, it } from 'vitest'
import { limits } from '#edge/limits.ts'
import { createResolver } from '#edge/node/resolve.ts'
import type { FollowedName } from '#edge/node/resolve.ts'

/** A resolver of names whose answers and clock are the test's. */
function createWorld() {
  const world = {
    now: 0,
    asked: [] as string[],
    atOnce: 0,
    mostAtOnce: 0,
    answer: async (): Promise<LookupAddress[]> => [{ address: '10.0.0.1', family: 4 }],
  }
  const resolver = createResolver({
    now: () => world.now,
    lookupAll: async (hostname) => {
      world.asked.push(hostname)
      world.mostAtOnce = Math.max(world.mostAtOnce, ++world.atOnce)
      try {
        return await world.answer()
      } finally {
        world.atOnce--
      }
    },
  })
  return { world, resolver }
}

const addressOf = (name: FollowedName): Promise<string> =>
  new Promise((resolve) =>
    name.lookup('x', { all: true }, (error, found) =>
      resolve(error ? String(error.code) : (found as LookupAddress[]).map(({ address }) => address).join()),
    ),
  )

const fail = (code: string) => (): Promise<never> => Promise.reject(Object.assign(new Error(code), { code }))

describe('the name of a server', () => {
  it('is looked up once for many connections, and again when it is no longer fresh', async () => {
    const { world, resolver } = createWorld()
    const name = resolver.follow('app.example')
    expect(await Promise.all([addressOf(name), addressOf(name)])).toEqual(['10.0.0.1', '10.0.0.1'])
    world.now += limits.lookupFreshMs - 1
    await addressOf(name)
    expect(world.asked).toHaveLength(1)
    world.now += 1
    world.answer = async () => [{ address: '10.0.0.2', family: 4 }]
    expect(await addressOf(name)).toBe('10.0.0.2')
    expect(name.version()).toBe(1)
    expect(resolver.follow('app.example')).toBe(name)
  })

  it('keeps its last good address when looking it up fails, or hangs', async () => {
    const { world, resolver } = createWorld()
    const name = resolver.follow('app.example')
    await addressOf(name)
    world.now += limits.lookupFreshMs
    world.answer = fail('SERVFAIL')
    expect(await addressOf(name)).toBe('10.0.0.1')
    world.now += limits.lookupAgainMs
    world.answer = () => new Promise(() => {})
    expect(await addressOf(name)).toBe('10.0.0.1')
    expect(world.asked).toHaveLength(3)
    expect(name.version()).toBe(0)
  })

  it('that was never found is looked up again soon, not for each connection', async () => {
    const { world, resolver } = createWorld()
    const name = resolver.follow('app.example')
    world.answer = fail('ENOTFOUND')
    expect([await addressOf(name), await addressOf(name)]).toEqual(['ENOTFOUND', 'ENOTFOUND'])
    expect(world.asked).toHaveLength(1)
    world.now += limits.lookupAgainMs
    world.answer = async () => [{ address: '10.0.0.3', family: 4 }]
    expect(await addressOf(name)).toBe('10.0.0.3')
  })

  it('is looked up in the background while it is used', async () => {
    const { world, resolver } = createWorld()
    const name = resolver.follow('app.example')
    await addressOf(name)
    world.now += limits.lookupFreshMs
    name.touch()
    name.touch()
    expect(world.asked).toHaveLength(2)
  })

  it('waits for its turn: few threads are taken at a time, and one that fails gives its place on', async () => {
    const { world, resolver } = createWorld()
    world.answer = fail('EAI_AGAIN')
    const names = Array.from({ length: 20 }, (_, index) => resolver.follow(`h${index}.example`))
    expect(new Set(await Promise.all(names.map(addressOf)))).toEqual(new Set(['EAI_AGAIN']))
    expect(world.asked).toHaveLength(20)
    expect(world.mostAtOnce).toBe(limits.lookupsMax)
  })
})
