import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { StoredHead } from '#edge/cache/stored-head.ts'
import { createCacheStore } from '#edge/node/cache-store.ts'
import { limits } from '#edge/limits.ts'

const headOf = (more: Partial<StoredHead> = {}): StoredHead => ({
  status: 200,
  headers: [],
  variant: [],
  receivedAt: 0,
  initialAgeMs: 0,
  freshMs: 1_000,
  staleWhileRevalidateMs: 0,
  staleIfErrorMs: 0,
  mustRevalidate: false,
  noCache: false,
  isPublic: false,
  etag: undefined,
  lastModified: undefined,
  tags: [],
  ...more,
})
const entryOf = (url: string, length = 1_000, head: Partial<StoredHead> = {}) => ({
  url,
  row: 'r',
  head: headOf(head),
  body: Buffer.alloc(length),
})
/** Room for so many answers of 1,000 bytes. */
const storeFor = (count: number) => createCacheStore(count * (1_000 + 1_024 + 2))

describe('the store', () => {
  it('lets go of what nobody has asked for, in the order it came', () => {
    const store = storeFor(3)
    for (const url of ['/a', '/b', '/c']) store.put(entryOf(url))
    store.find('/a', 'r', [])
    store.put(entryOf('/d'))
    const left = ['/a', '/b', '/c', '/d'].filter((url) => store.findAny(url, 'r'))
    expect(left).toEqual(['/a', '/c', '/d'])
    expect([store.entries(), store.evictions()]).toEqual([3, 1])
  })

  it('keeps what is wanted through any number of URLs that are asked for once', () => {
    const store = storeFor(10)
    store.put(entryOf('/w'))
    for (let i = 0; i < 1_000; i++) {
      store.put(entryOf(`/${i % 100}`))
      expect(store.find('/w', 'r', [])).toBeDefined()
    }
  })

  it('goes around when all are wanted', () => {
    const store = storeFor(2)
    for (const url of ['/a', '/b']) store.put(entryOf(url))
    for (const url of ['/a', '/b']) store.find(url, 'r', [])
    store.put(entryOf('/c'))
    expect(store.entries()).toBe(2)
    expect(store.findAny('/b', 'r')).toBeDefined()
  })

  it('does not push out everything for an answer that has no room at all', () => {
    const store = storeFor(3)
    store.put(entryOf('/a'))
    store.put(entryOf('/large', 100_000))
    expect([store.entries(), store.findAny('/a', 'r') !== undefined]).toEqual([1, true])
  })

  it('replaces the same variant, tells rows apart, and bounds how many variants a URL has', () => {
    const store = createCacheStore(10_000_000)
    const variantOf = (value: string): Partial<StoredHead> => ({ variant: [['foo', value]] })
    store.put(entryOf('/a', 1, variantOf('1')))
    store.put(entryOf('/a', 2, variantOf('1')))
    store.put({ ...entryOf('/a', 3, variantOf('1')), row: 'other' })
    expect(store.find('/a', 'r', ['Foo', '1'])?.body.length).toBe(2)
    expect(store.find('/a', 'other', ['foo', '1'])?.body.length).toBe(3)
    expect(store.find('/a', 'r', ['foo', '2'])).toBeUndefined()
    for (let i = 0; i < 100; i++) store.put(entryOf('/a', 1, { ...variantOf(`v${i}`), receivedAt: i }))
    expect(store.entries()).toBe(limits.variantsMax + 1)
    expect(store.find('/a', 'r', ['foo', 'v99'])).toBeDefined()
  })

  it('counts what it holds, whatever is done with it', () => {
    const url = fc.constantFrom('/a', '/b', '/c', '/d')
    const action = fc.oneof(
      fc.record({ do: fc.constant('put' as const), url, length: fc.nat(3_000), tag: fc.constantFrom('x', 'y') }),
      fc.record({ do: fc.constant('find' as const), url }),
      fc.record({ do: fc.constant('form' as const), url, length: fc.nat(3_000) }),
      fc.record({ do: fc.constant('update' as const), url, tag: fc.constantFrom('x', 'a longer one') }),
      fc.record({ do: fc.constant('purge' as const), url }),
      fc.record({ do: fc.constant('tag' as const), url, tag: fc.constantFrom('x', 'y') }),
    )
    fc.assert(
      fc.property(fc.array(action, { maxLength: 60 }), (actions) => {
        const store = createCacheStore(8_000)
        for (const one of actions) {
          const found = store.findAny(one.url, 'r')
          if (one.do === 'put') store.put(entryOf(one.url, one.length, { tags: [one.tag] }))
          if (one.do === 'find') store.find(one.url, 'r', [])
          if (one.do === 'form' && found) store.putForm(found, 'br', Buffer.alloc(one.length))
          if (one.do === 'update' && found) store.update(found, headOf({ tags: [one.tag] }))
          if (one.do === 'purge') expect(store.purge({ url: one.url })).toBe(found ? 1 : 0)
          if (one.do === 'tag') store.purge({ tag: one.tag })
          expect(store.bytes()).toBeLessThanOrEqual(8_000)
        }
        const left = store.entries()
        expect(['/a', '/b', '/c', '/d'].reduce((sum, one) => sum + store.purge({ url: one }), 0)).toBe(left)
        expect([store.bytes(), store.entries()]).toEqual([0, 0])
      }),
    )
  })
})
