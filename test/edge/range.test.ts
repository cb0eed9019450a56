import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { readRange } from '#edge/actions/range.ts'

describe('what a Range field asks of 10 bytes', () => {
  it.each([
    ['bytes=0-0', { start: 0, end: 0 }],
    ['bytes=2-5', { start: 2, end: 5 }],
    ['bytes=2-', { start: 2, end: 9 }],
    ['bytes=2-999', { start: 2, end: 9 }],
    ['bytes=-3', { start: 7, end: 9 }],
    ['bytes=-999', { start: 0, end: 9 }],
    ['Bytes= 1-2 ', { start: 1, end: 2 }],
    ['bytes=9-', { start: 9, end: 9 }],
    [`bytes=1-${'9'.repeat(400)}`, { start: 1, end: 9 }],
    ['bytes=10-', 'unsatisfiable'],
    [`bytes=${'9'.repeat(400)}-`, 'unsatisfiable'],
    ['bytes=-0', 'unsatisfiable'],
    ['bytes=5-2', 'whole'],
    ['bytes=-', 'whole'],
    ['bytes=', 'whole'],
    ['bytes=a-b', 'whole'],
    ['bytes=1.5-2', 'whole'],
    ['bytes=--1', 'whole'],
    ['bytes=0-1,3-4', 'whole'],
    [`bytes=${'0-0,'.repeat(1_000)}0-0`, 'whole'],
    ['lines=0-1', 'whole'],
    ['bytes 0-1', 'whole'],
    ['', 'whole'],
  ])('%s', (field, range) => {
    expect(readRange(field, 10)).toEqual(range)
  })
})

it('an empty file has no bytes to ask for', () => {
  expect(readRange('bytes=0-', 0)).toBe('unsatisfiable')
  expect(readRange('bytes=-5', 0)).toBe('whole')
})

it('a range is the bytes that counting them one by one finds', () => {
  const bound = fc.option(fc.integer({ min: 0, max: 30 }), { nil: undefined })
  fc.assert(
    fc.property(bound, bound, fc.integer({ min: 1, max: 20 }), (first, last, size) => {
      const bytes = Array.from({ length: size }, (_, index) => index)
      const asked = bytes.filter((index) =>
        first === undefined ? index >= size - (last ?? 0) : index >= first && index <= (last ?? size),
      )
      const range = readRange(`bytes=${first ?? ''}-${last ?? ''}`, size)
      const isSyntax = first === undefined ? last !== undefined : last === undefined || last >= first
      const found = asked.length === 0 ? 'unsatisfiable' : { start: asked[0], end: asked.at(-1) }
      expect(range).toEqual(isSyntax ? found : 'whole')
    }),
  )
})
