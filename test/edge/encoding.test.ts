import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { chooseCoding, isCompressible } from '#edge/actions/encoding.ts'
import type { Coding } from '#edge/actions/encoding.ts'

const all: Coding[] = ['br', 'zstd', 'gzip', 'identity']

describe('what Accept-Encoding says', () => {
  it.each([
    [undefined, 'identity'],
    ['', 'identity'],
    ['gzip, deflate, br, zstd', 'br'],
    ['gzip, deflate', 'gzip'],
    ['x-gzip', 'gzip'],
    ['GZIP;Q=1.0', 'gzip'],
    ['br;q=0.5, gzip;q=0.8', 'gzip'],
    ['br;q=0, gzip', 'gzip'],
    ['gzip;q=0.5, identity', 'identity'],
    ['identity;q=0, gzip;q=0.1', 'gzip'],
    ['*', 'br'],
    ['*;q=0, zstd', 'zstd'],
    ['*;q=0.5, br;q=0', 'zstd'],
    ['deflate', 'identity'],
    ['gzip ; q=0.3 , br ; q=0.2', 'gzip'],
    ['br;q=2, gzip', 'gzip'],
    ['br;q=high, gzip', 'gzip'],
    ['br;q=0.1234', 'identity'],
    [',,br,,', 'br'],
  ])('%s: %s', (accept, coding) => {
    expect(chooseCoding(accept, all)).toBe(coding)
  })

  it.each(['identity;q=0', '*;q=0', 'identity;q=0, *;q=0'])('%s takes nothing', (accept) => {
    expect(chooseCoding(accept, ['identity'])).toBeUndefined()
  })

  it('a coding that is refused is never chosen, one that is liked best is', () => {
    const weight = fc.integer({ min: 0, max: 1_000 })
    fc.assert(
      fc.property(fc.record({ br: weight, zstd: weight, gzip: weight, identity: weight }), (weights) => {
        const accept = all.map((coding) => `${coding};q=${(weights[coding] / 1_000).toFixed(3)}`).join(',')
        const best = Math.max(...all.map((coding) => weights[coding]))
        const chosen = chooseCoding(accept, all)
        expect(chosen).toBe(best === 0 ? undefined : all.find((coding) => weights[coding] === best))
      }),
    )
  })

  it('any text is read, and only what there is is chosen', () => {
    const alphabet = fc.constantFrom('br', 'gzip', 'identity', '*', ';', ',', 'q', '=', '0', '1', '.', ' ', 'é')
    fc.assert(
      fc.property(
        fc.array(alphabet).map((parts) => parts.join('')),
        (accept) => {
          expect([undefined, 'gzip', 'identity']).toContain(chooseCoding(accept, ['gzip', 'identity']))
        },
      ),
    )
  })
})

it.each([
  ['text/html; charset=utf-8', true],
  ['application/json', true],
  ['application/problem+json', true],
  ['image/svg+xml', true],
  ['application/wasm', true],
  ['Text/CSS', true],
  ['text/event-stream', false],
  ['Text/Event-Stream; charset=utf-8', false],
  ['application/grpc+json', false],
  ['image/png', false],
  ['font/woff2', false],
  ['application/zip', false],
  ['application/octet-stream', false],
  ['', false],
])('%s is worth being compressed: %s', (type, worth) => {
  expect(isCompressible(type)).toBe(worth)
})
