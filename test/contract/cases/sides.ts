import { expect } from 'vitest'
import { ask, askEcho } from '../suite.ts'
import type { Case } from '../suite.ts'

/** Blue has three quarters and answers, green has one and is dead. */
const host = 'shop.example'
const target = '/sides/a'
const status = 200

export const sides: Case[] = [
  {
    name: 'keeps a client on its side by a number in a cookie',
    async check(world) {
      const asked = async (cookie: string): Promise<(number | undefined | string)[]> => {
        const answer = await ask(world, { host, target, headers: [['Cookie', `a=b; shop-side=${cookie}`]] })
        return [answer.status, answer.field('set-cookie')]
      }
      for (const kept of ['0000', '4711', '7499']) expect(await asked(kept)).toEqual([status, undefined])
      for (const kept of ['7500', '9999']) expect(await asked(kept)).toEqual([502, undefined])
    },
  },
  {
    name: 'gives a number to a client that has none, or none that is one',
    async check(world) {
      for (const cookie of [undefined, 'shop-side=blue', 'shop-side=12345', 'shop-side=-001', 'shop-sides=0001']) {
        const headers = cookie === undefined ? [] : [['Cookie', cookie] as [string, string]]
        const answer = await ask(world, { host, target, headers })
        expect(answer.field('set-cookie')).toMatch(/^shop-side=\d{4}; Path=\/; Max-Age=60; HttpOnly; SameSite=Lax$/)
        const number = Number(answer.field('set-cookie')?.slice(10, 14))
        expect(answer.status).toBe(number < 7_500 ? status : 502)
      }
    },
  },
  {
    name: 'marks the cookie for https where the request came over it',
    async check(world) {
      const answer = await ask(world, { host, target, secure: true })
      expect(answer.field('set-cookie')).toMatch(/; SameSite=Lax; Secure$/)
    },
  },
  {
    name: 'sends a request to the side that it names, and says so; the upstream does not see the field',
    async check(world) {
      const headers: [string, string][] = [
        ['x-side', 'blue'],
        ['Cookie', 'shop-side=9999'],
      ]
      const answer = await ask(world, { host, target, headers })
      expect([answer.status, answer.field('x-side')]).toEqual([status, 'blue'])
      const green = await ask(world, { host, target, headers: [['X-Side', 'green']] })
      expect([green.status, green.field('x-side'), green.field('set-cookie')]).toEqual([502, 'green', undefined])
      expect((await askEcho(world, { host, target, headers })).field('x-side')).toBeUndefined()
    },
  },
  {
    name: 'takes no other name for a side',
    async check(world) {
      for (const name of ['Blue', 'red', '', 'blue, green', '__proto__']) {
        const headers: [string, string][] = [
          ['x-side', name],
          ['Cookie', 'shop-side=0001'],
        ]
        const answer = await ask(world, { host, target, headers })
        expect([name, answer.status, answer.field('x-side')]).toEqual([name, status, undefined])
      }
    },
  },
]
