import { expect } from 'vitest'
import { ask, askEcho } from '../suite.ts'
import type { Case } from '../suite.ts'

const host = 'shop.example'
const id = '4bf92f3577b34da6a3ce929d0e0e4736'
const parent = '00f067aa0ba902b7'
const valid = `00-${id}-${parent}-01`

/** What cannot be read as a traceparent, and why. */
const faulty: Record<string, string> = {
  'capital letters': valid.toUpperCase(),
  'a trace id of zeros': `00-${'0'.repeat(32)}-${parent}-01`,
  'a parent id of zeros': `00-${id}-${'0'.repeat(16)}-01`,
  'the version ff': `ff-${id}-${parent}-01`,
  'too few digits': `00-${id.slice(1)}-${parent}-01`,
  'more than version 00 has': `${valid}-more`,
  'no flags': `00-${id}-${parent}`,
  'what is no hexadecimal': `00-${id.replace('4', 'g')}-${parent}-01`,
  nothing: '',
}

export const traces: Case[] = [
  {
    name: 'passes a trace on as it came',
    async check(world) {
      for (const traceparent of [
        valid,
        `00-${id}-${parent}-00`,
        `00-${id}-${parent}-03`,
        `cc-${id}-${parent}-01-what-comes`,
      ]) {
        const headers: [string, string][] = [
          ['traceparent', traceparent],
          ['tracestate', 'rojo=00f067aa0ba902b7,congo=t61rcWkgMzE'],
        ]
        const echo = await askEcho(world, { host, target: '/echo', headers })
        expect(echo.field('traceparent')).toBe(traceparent)
        expect(echo.field('tracestate')).toBe('rojo=00f067aa0ba902b7,congo=t61rcWkgMzE')
      }
    },
  },
  {
    name: 'begins none where nobody told of one',
    async check(world) {
      const echo = await askEcho(world, { host, target: '/echo', headers: [['tracestate', 'rojo=1']] })
      expect([echo.field('traceparent'), echo.field('tracestate')]).toEqual([undefined, undefined])
    },
  },
  ...Object.entries(faulty).map(([what, traceparent]): Case => ({
    name: `replaces a trace that has ${what}`,
    async check(world) {
      const headers: [string, string][] = [
        ['traceparent', traceparent],
        ['tracestate', 'rojo=1'],
      ]
      const echo = await askEcho(world, { host, target: '/echo', headers })
      expect(echo.field('traceparent')).toMatch(/^00-[\da-f]{32}-[\da-f]{16}-02$/)
      expect(echo.field('traceparent')).not.toContain(id)
      expect(echo.field('tracestate')).toBeUndefined()
    },
  })),
  {
    name: 'replaces two traces by one',
    async check(world) {
      const headers: [string, string][] = [
        ['traceparent', valid],
        ['traceparent', `00-${'1'.repeat(32)}-${parent}-01`],
      ]
      const echo = await askEcho(world, { host, target: '/echo', headers })
      expect(echo.field('traceparent')).toMatch(/^00-(?!4bf92f|1{32})[\da-f]{32}-[\da-f]{16}-02$/)
    },
  },
  {
    name: 'tells how long gateway and upstream took, where the site says so',
    async check(world) {
      const timing = async (target: string, site: string) =>
        (await ask(world, { host: site, target })).field('server-timing')
      expect(await timing('/echo', 'timed.example')).toMatch(/^gateway;dur=[\d.]+, upstream;dur=[\d.]+$/)
      expect(await timing('/tea', 'timed.example')).toMatch(/^gateway;dur=[\d.]+$/)
      expect(await timing('/nowhere', 'timed.example')).toMatch(/^gateway;dur=[\d.]+$/)
      expect(await timing('/echo', host)).toBeUndefined()
    },
  },
]
