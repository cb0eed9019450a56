import { expect } from 'vitest'
import { ask, nextId } from '../suite.ts'
import type { Answer, Case, World } from '../suite.ts'

type Shape = 'problem' | 'nest' | 'fastapi' | 'drf'

/** What clients of each shape look at first. */
const shapes: Record<Shape, { type: string; toBody: (status: number, title: string, detail: string) => object }> = {
  problem: {
    type: 'application/problem+json',
    toBody: (status, title, detail) => ({ type: 'about:blank', title, status, detail }),
  },
  nest: {
    type: 'application/json; charset=utf-8',
    toBody: (statusCode, error, message) => ({ message, error, statusCode }),
  },
  fastapi: { type: 'application/json; charset=utf-8', toBody: (_status, _title, detail) => ({ detail }) },
  drf: { type: 'application/json; charset=utf-8', toBody: (_status, _title, detail) => ({ detail, error: detail }) },
}

interface Expected {
  status: number
  title: string
  detail: unknown
  facts: Record<string, unknown>
}

function check(answer: Answer, shape: Shape, { status, title, detail, facts }: Expected): void {
  const { type, toBody } = shapes[shape]
  expect([answer.status, answer.field('content-type'), answer.field('cache-control')]).toEqual([
    status,
    type,
    'no-store',
  ])
  expect(answer.json()).toEqual({
    ...toBody(status, title, detail as string),
    ...facts,
    requestId: answer.field('x-request-id'),
  })
}

export const errors: Case[] = (Object.keys(shapes) as Shape[]).flatMap((shape): Case[] => {
  const host = `${shape}.example`
  return [
    {
      name: `says in ${shape} that nothing answers`,
      async check(world: World) {
        const facts = { code: 'not_found' }
        check(await ask(world, { host, target: '/x' }), shape, {
          status: 404,
          title: 'Not found',
          detail: 'nothing answers here',
          facts,
        })
      },
    },
    {
      name: `says in ${shape} that a body is too large, with route, limit and value`,
      async check(world: World) {
        const answer = await ask(world, { host, target: '/body', method: 'POST', body: 'more than ten' })
        const facts = { code: 'body_too_large', route: `shapes /body`, limit: 'bodyBytesMax', value: 10 }
        check(answer, shape, {
          status: 413,
          title: 'Body too large',
          detail: 'the body is larger than 10 bytes',
          facts,
        })
      },
    },
    {
      name: `says in ${shape} that it was too often, with route, limit and value`,
      async check(world: World) {
        const request = { host, target: '/limit', headers: [['x-key', nextId()]] as [string, string][] }
        expect((await ask(world, request)).text).toBe('once')
        const detail = expect.stringMatching(/^more requests than x-key 1\/1 h allows; try again in \d+ s$/)
        const facts = { code: 'rate_limited', route: 'shapes /limit', limit: 'x-key 1/1 h', value: 1 }
        check(await ask(world, request), shape, { status: 429, title: 'Too many requests', detail, facts })
      },
    },
    {
      name: `says in ${shape} that the upstream is down, with route, limit and value`,
      async check(world: World) {
        const facts = { code: 'upstream_unreachable', route: 'shapes /dead', limit: 'attempts', value: 1 }
        const detail = 'the upstream cannot be reached'
        check(await ask(world, { host, target: '/dead' }), shape, {
          status: 502,
          title: 'Upstream unreachable',
          detail,
          facts,
        })
      },
    },
  ]
})
