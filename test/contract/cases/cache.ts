import { expect } from 'vitest'
import { toAnswers } from '../../support/origin.ts'
import { ask, nextId } from '../suite.ts'
import type { Answer, Case, World } from '../suite.ts'

type Said = Parameters<typeof toAnswers>[number]
type Fields = Record<string, string>

const host = 'shop.example'
const fresh = { 'Cache-Control': 'max-age=60' }
const stale = { 'Cache-Control': 'max-age=60', Age: '100' }

/** A URL of its own whose answers are these, one after the other. */
const toTarget = (...answers: Said[]): string => `/cache/${nextId()}?${toAnswers(...answers)}`

const get = (world: World, target: string, fields: Fields = {}, method = 'GET'): Promise<Answer> =>
  ask(world, { host, target, method, headers: Object.entries(fields) })

/** Resolves when an answer is kept, fresh or not: where it is kept may take longer than to send it. */
async function untilKept(world: World, target: string, fields: Fields = {}): Promise<void> {
  for (let left = 200; left > 0; left--) {
    const { status } = await get(world, target, { ...fields, 'Cache-Control': 'only-if-cached, max-stale' })
    if (status !== 504) return
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
  throw new Error('it was not kept')
}

async function fill(world: World, target: string, fields: Fields = {}): Promise<Answer> {
  const answer = await get(world, target, fields)
  await untilKept(world, target, fields)
  return answer
}

/** Without the seconds. */
const statusOf = (answer: Answer): string | undefined => answer.field('cache-status')?.replace(/ttl=(-?)\d+/, 'ttl=$1n')

export const cache: Case[] = [
  {
    name: 'keeps an answer, and says what it did and how old it is',
    async check(world) {
      const target = toTarget({ fields: { ...fresh, Age: '10', 'X-Own': 'yes', 'Cache-Tag': 'a' } })
      const first = await fill(world, target)
      const second = await get(world, target)
      expect([first, second].map(({ text }) => text)).toEqual(['answer 1', 'answer 1'])
      expect([first, second].map(statusOf)).toEqual(['Daemun; fwd=uri-miss; stored', 'Daemun; hit; ttl=n'])
      expect(Number(second.field('age'))).toBeGreaterThanOrEqual(10)
      expect([second.field('x-own'), second.field('cache-tag'), second.field('content-length')]).toEqual([
        'yes',
        undefined,
        '8',
      ])
      expect(second.field('x-request-id')).not.toBe(first.field('x-request-id'))
    },
  },
  {
    name: 'answers HEAD and conditions with what is kept',
    async check(world) {
      const target = toTarget({ fields: { ...fresh, ETag: '"1"' } })
      await fill(world, target)
      const head = await get(world, target, {}, 'HEAD')
      expect([head.status, head.text, head.field('content-length'), statusOf(head)]).toEqual([
        200,
        '',
        '8',
        'Daemun; hit; ttl=n',
      ])
      const same = await get(world, target, { 'If-None-Match': 'W/"1"' })
      expect([same.status, same.text, same.field('etag')]).toEqual([304, '', '"1"'])
      expect((await get(world, target, { 'If-None-Match': '"2"' })).status).toBe(200)
    },
  },
  {
    name: 'judges conditions itself, also when it has to ask',
    async check(world) {
      const target = toTarget({ fields: { ...fresh, ETag: '"1"' } })
      const first = await get(world, target, { 'If-None-Match': '"1"' })
      expect(first.status).toBe(304)
    },
  },
  {
    name: 'gives parts of what is kept',
    async check(world) {
      const target = toTarget({ fields: { ...fresh, ETag: '"1"' }, body: '0123456789' })
      await fill(world, target)
      const part = await get(world, target, { Range: 'bytes=2-4' })
      expect([part.status, part.text, part.field('content-range')]).toEqual([206, '234', 'bytes 2-4/10'])
      expect((await get(world, target, { Range: 'bytes=20-' })).status).toBe(416)
      expect((await get(world, target, { Range: 'bytes=2-4', 'If-Range': '"2"' })).status).toBe(200)
    },
  },
  {
    name: 'tells answers apart by what they vary by',
    async check(world) {
      const target = toTarget({ fields: { ...fresh, Vary: 'Accept-Language' } })
      const korean = await fill(world, target, { 'Accept-Language': 'ko' })
      const english = await fill(world, target, { 'Accept-Language': 'en' })
      const again = await get(world, target, { 'Accept-Language': 'ko' })
      expect([korean, english, again].map(({ text }) => text)).toEqual(['answer 1', 'answer 2', 'answer 1'])
      expect([english, again].map(statusOf)).toEqual(['Daemun; fwd=vary-miss; stored', 'Daemun; hit; ttl=n'])
    },
  },
  {
    name: 'keeps nothing that may be for one client only',
    async check(world) {
      const refused: [Fields, string][] = [
        [{ 'Cache-Control': 'private, max-age=60' }, 'private'],
        [{ 'Cache-Control': 'no-store' }, 'no-store'],
        [{ ...fresh, 'Set-Cookie': 'id=1' }, 'Set-Cookie'],
        [{ ...fresh, Vary: '*' }, 'Vary'],
        [{ ...fresh, Vary: 'Cookie' }, 'Vary'],
        [{}, 'no freshness'],
      ]
      for (const [fields, detail] of refused) {
        const target = toTarget({ fields })
        const answers = [await get(world, target), await get(world, target)]
        expect(answers.map(({ text }) => text)).toEqual(['answer 1', 'answer 2'])
        expect(answers.map(statusOf)).toEqual(Array(2).fill(`Daemun; fwd=uri-miss; detail="${detail}"`))
      }
    },
  },
  {
    name: 'gives who is known only what is said to be public',
    async check(world) {
      for (const who of [{ Cookie: 'id=1' }, { Authorization: 'Bearer a' }] as Fields[]) {
        const own = toTarget({ fields: fresh })
        await fill(world, own)
        expect((await get(world, own, who)).text).toBe('answer 2')
        const other = toTarget({ fields: fresh })
        await get(world, other, who)
        expect((await get(world, other)).text).toBe('answer 2')
        const all = toTarget({ fields: { 'Cache-Control': 'public, max-age=60' } })
        await fill(world, all, who)
        expect((await get(world, all)).text).toBe('answer 1')
      }
    },
  },
  {
    name: 'asks whether a stale answer still holds',
    async check(world) {
      const target = toTarget(
        { fields: { ...stale, ETag: '"1"', 'X-Version': '1' } },
        { fields: { ...fresh, ETag: '"1"', 'X-Version': '2' } },
      )
      await fill(world, target)
      const second = await get(world, target)
      expect([second.status, second.text, second.field('x-version')]).toEqual([200, 'answer 1', '2'])
      expect(statusOf(second)).toBe('Daemun; fwd=stale; fwd-status=304; stored')
    },
  },
  {
    name: 'sends a stale answer while another one is fetched behind it',
    async check(world) {
      const target = toTarget(
        { fields: { 'Cache-Control': 'max-age=60, stale-while-revalidate=600', Age: '100' } },
        { fields: fresh },
      )
      await fill(world, target)
      const second = await get(world, target)
      expect([second.text, statusOf(second)]).toEqual(['answer 1', 'Daemun; hit; ttl=-n'])
      let third = second
      for (let left = 200; left > 0 && third.text === 'answer 1'; left--) third = await get(world, target)
      expect([third.text, statusOf(third)]).toEqual(['answer 2', 'Daemun; hit; ttl=n'])
    },
  },
  {
    name: 'sends a stale answer when the upstream fails, unless that is forbidden',
    async check(world) {
      const target = toTarget({ fields: stale }, { status: 503, fields: {}, body: 'broken' })
      await fill(world, target)
      const second = await get(world, target)
      expect([second.status, second.text, statusOf(second)]).toEqual([
        200,
        'answer 1',
        'Daemun; fwd=stale; fwd-status=503; detail="the upstream fails"',
      ])
      const strict = toTarget(
        { fields: { ...stale, 'Cache-Control': 'max-age=60, must-revalidate', ETag: '"1"' } },
        { status: 503, fields: {}, body: 'broken' },
      )
      await get(world, strict)
      expect((await get(world, strict)).status).toBe(503)
    },
  },
  {
    name: 'obeys what a request says of the cache',
    async check(world) {
      const target = toTarget({ fields: fresh })
      const none = await get(world, target, { 'Cache-Control': 'only-if-cached' })
      expect([none.status, none.json()['code']]).toEqual([504, 'not_cached'])
      await fill(world, target)
      const wants = async (control: string): Promise<string> =>
        (await get(world, target, { 'Cache-Control': control })).text
      expect(await wants('max-age=50')).toBe('answer 1')
      expect(await wants('min-fresh=70')).toBe('answer 2')
      expect(await wants('no-cache')).toBe('answer 3')
      expect(await wants('no-store')).toBe('answer 4')
    },
  },
  {
    name: 'forgets what was changed',
    async check(world) {
      const target = toTarget({ fields: fresh })
      await fill(world, target)
      await get(world, target, {}, 'DELETE')
      let answer = await get(world, target)
      for (let left = 100; left > 0 && answer.text === 'answer 1'; left--) answer = await get(world, target)
      expect(answer.text).toBe('answer 2')
    },
  },
  {
    name: 'passes by what no cache can answer',
    async check(world) {
      const target = toTarget({ fields: fresh })
      await fill(world, target)
      const answer = await get(world, target, { 'If-Match': '"1"' })
      expect([answer.text, statusOf(answer)]).toEqual([
        'answer 2',
        'Daemun; fwd=bypass; detail="the request has a condition that only the upstream can judge"',
      ])
    },
  },
  {
    name: 'keeps as its row says where the upstream says nothing',
    async check(world) {
      const target = `/cache/ruled/${nextId()}?${toAnswers({ fields: {} })}`
      await fill(world, target, { 'X-Tenant': 'a' })
      const same = await get(world, target, { 'X-Tenant': 'a' })
      expect([same.text, same.field('cache-control')]).toEqual(['answer 1', 'no-cache'])
      expect((await get(world, target, { 'X-Tenant': 'b' })).text).toBe('answer 2')
      const long = `/cache/ruled/${nextId()}?${toAnswers({ fields: {}, body: 'x'.repeat(101) })}`
      expect(statusOf(await get(world, long))).toBe('Daemun; fwd=uri-miss; detail="too large"')
    },
  },
]
