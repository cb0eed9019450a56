import { expect } from 'vitest'
import { ask } from '../suite.ts'
import type { Case } from '../suite.ts'

const host = 'shop.example'

export const redirects: Case[] = [
  {
    name: 'fills in host, path and query, and nothing that a client sends for them',
    async check(world) {
      const answer = await ask(world, { host, target: '/go/a%20b?x=%7Bhost%7D&y=1' })
      expect([answer.status, answer.field('location'), answer.text]).toEqual([
        308,
        'https://shop.example/new/go/a%20b?x=%7Bhost%7D&y=1',
        '',
      ])
    },
  },
  {
    name: 'redirects with the status of the row',
    async check(world) {
      const answer = await ask(world, { host, target: '/see', method: 'POST', body: 'x' })
      expect([answer.status, answer.field('location')]).toEqual([303, '/elsewhere'])
    },
  },
  {
    name: "passes on an upstream's redirect and does not follow it",
    async check(world) {
      const answer = await ask(world, { host, target: '/answers/moved' })
      expect([answer.status, answer.field('location')]).toEqual([302, 'http://elsewhere.example/'])
    },
  },
  {
    name: 'sends http on to https, whatever the method',
    async check(world) {
      const answer = await ask(world, { host: 'secure.example', target: '/a?b=c', method: 'POST', body: 'x' })
      expect([answer.status, answer.field('location')]).toEqual([308, 'https://secure.example/a?b=c'])
      expect(answer.field('strict-transport-security')).toBeUndefined()
    },
  },
  {
    name: 'sends HSTS over https, with errors too',
    async check(world) {
      const answer = await ask(world, { host: 'secure.example', target: '/a', secure: true })
      expect([answer.status, answer.field('strict-transport-security')]).toEqual([200, 'max-age=60; includeSubDomains'])
    },
  },
  {
    name: 'leaves rows on http that are exempt, and .localhost twins',
    async check(world) {
      expect((await ask(world, { host: 'secure.example', target: '/health' })).text).toBe('OK')
      expect((await ask(world, { host: 'secure.localhost', target: '/a' })).status).toBe(200)
    },
  },
  {
    name: 'answers by itself',
    async check(world) {
      const answer = await ask(world, { host, target: '/tea' })
      expect([answer.status, answer.field('content-type'), answer.text]).toEqual([418, 'text/html', '<p>tea</p>'])
      const nothing = await ask(world, { host, target: '/nothing' })
      expect([nothing.status, nothing.text, nothing.field('content-type')]).toEqual([204, '', undefined])
    },
  },
]
