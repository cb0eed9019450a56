import { describe, expect, it } from 'vitest'
import { readAddress } from '#edge/address.ts'
import type { Address } from '#edge/address.ts'
import { toCachePlan } from '#edge/cache/cache-plan.ts'
import type { CompiledCache, UseCache } from '#edge/cache/cache-plan.ts'
import { readDirectives, readSeconds } from '#edge/cache/directives.ts'
import { readHttpDate } from '#edge/cache/http-date.ts'
import { judgeStored, mayServeOnError, toAgeMs } from '#edge/cache/judge.ts'
import { readSelector, selects, toChangedUrl } from '#edge/cache/selector.ts'
import { freshen, toStoredHead } from '#edge/cache/stored-head.ts'
import type { StoredHead } from '#edge/cache/stored-head.ts'
import { matchesVariant } from '#edge/cache/vary.ts'
import { identify } from '#edge/exchange.ts'
import type { Exchange } from '#edge/exchange.ts'
import type { Facts } from '#edge/runtime.ts'

/** Noon; every answer is asked for and received then. */
const noon = Date.UTC(2026, 0, 1, 12)
const at = (seconds: number): string => new Date(noon + seconds * 1_000).toUTCString()
const address = readAddress('192.0.2.9') as Address
const facts = {
  clientAddress: () => ({ address, scheme: 'https' }),
  now: () => noon,
  monotonic: () => 0,
  randomId: () => 'id',
} as unknown as Facts

type Fields = Record<string, string>

function toExchange(fields: Fields, method = 'GET'): Exchange {
  const headers = ['Host', 'shop.example', ...Object.entries(fields).flat()]
  const { exchange, refusal } = identify(
    { method, target: '/a', version: '1.1', headers, peer: '192.0.2.9', secure: true },
    facts,
  )
  expect(refusal).toBeUndefined()
  return exchange
}

const rule: CompiledCache = {
  row: 'shop/1',
  freshMs: undefined,
  staleWhileRevalidateMs: 0,
  staleIfErrorMs: 0,
  entryBytesMax: 1_000,
  vary: [],
}

interface Kept {
  status?: number
  /** Of the request that the answer is for, and of the one that comes later. */
  asked?: Fields
  later?: Fields
  /** Seconds between them. */
  after?: number
  rule?: Partial<CompiledCache>
}

function planOf(exchange: Exchange, own: Partial<CompiledCache> = {}): UseCache | string {
  const plan = toCachePlan(exchange, { ...rule, ...own })
  return plan?.use === 'store' ? plan : (plan?.use ?? 'nothing')
}

function store(answer: Fields, { status = 200, asked = {}, rule: own }: Kept): StoredHead | string {
  const exchange = toExchange(asked)
  const use = planOf(exchange, own)
  if (typeof use === 'string') return use
  const headers = Object.entries(answer).flat()
  const stored = toStoredHead(use, { status, headers, sent: exchange.headers, askedAt: noon, receivedAt: noon })
  return 'refused' in stored ? `not kept: ${stored.refused}` : stored
}

/** What becomes of the second of two requests. */
function becomeOf(answer: Fields, kept: Kept = {}): string {
  const stored = store({ Date: at(0), ...answer }, kept)
  if (typeof stored === 'string') return stored
  const { later = {}, after = 0 } = kept
  const exchange = toExchange(later)
  const plan = planOf(exchange, kept.rule)
  if (typeof plan === 'string') return plan
  if (!matchesVariant(stored.variant, exchange.headers)) return 'another variant'
  return judgeStored(plan, stored, noon + after * 1_000).use
}

type Row = [fact: string, answer: Fields, kept: Kept, outcome: string]

const cached = (value: string, more: Fields = {}): Fields => ({ 'Cache-Control': value, ...more })
const validator = { ETag: '"1"' }

/** RFC 9111 by its sections; most are cases of http-cache-tests too. */
const rows: Record<string, Row[]> = {
  '3 what is kept': [
    ['max-age', cached('max-age=60'), {}, 'fresh'],
    ['nothing said', {}, {}, 'not kept: no freshness'],
    ['nothing said but when it changed: no heuristics', { 'Last-Modified': at(-86_400) }, {}, 'not kept: no freshness'],
    ['nothing said, and the row says how long', {}, { rule: { freshMs: 1_000 } }, 'fresh'],
    [
      'an error without freshness, whatever the row says',
      {},
      { status: 404, rule: { freshMs: 1_000 } },
      'not kept: no freshness',
    ],
    ['an error with freshness', cached('max-age=60'), { status: 404 }, 'fresh'],
    ['a redirect with freshness', cached('max-age=60'), { status: 302 }, 'fresh'],
    ['a status that nobody knows, with freshness', cached('max-age=60'), { status: 299 }, 'fresh'],
    ['an empty answer with freshness', cached('max-age=60'), { status: 204 }, 'fresh'],
    ['a part', cached('max-age=60'), { status: 206 }, 'not kept: status 206'],
    ['no-store', cached('no-store'), {}, 'not kept: no-store'],
    ['no-store beside max-age', cached('max-age=60, no-store'), {}, 'not kept: no-store'],
    ['no-store in capitals', cached('NO-STORE, max-age=60'), {}, 'not kept: no-store'],
    ['private', cached('private, max-age=60'), {}, 'not kept: private'],
    ['private for one field', cached('private="x-user", max-age=60'), {}, 'not kept: private'],
    ['private beside public', cached('public, private, max-age=60'), {}, 'not kept: private'],
    ['must-understand and a status that it knows', cached('must-understand, max-age=60'), {}, 'fresh'],
    [
      'must-understand and one that it does not',
      cached('must-understand, max-age=60'),
      { status: 299 },
      'not kept: must-understand',
    ],
    ['public alone, with a validator', cached('public', validator), {}, 'validate'],
    ['public alone, without one', cached('public'), {}, 'not kept: never fresh'],
    ['max-age=0 with a validator', cached('max-age=0', validator), {}, 'validate'],
    ['max-age=0 without one', cached('max-age=0'), {}, 'not kept: never fresh'],
    ['an unknown directive', cached('max-age=60, foo="bar, baz"'), {}, 'fresh'],
    ['a quote that has no end', cached('max-age=60, foo="bar'), {}, 'not kept: no-store'],
    ['a directive within a quote is none', cached('max-age=60, foo="no-store"'), {}, 'fresh'],
    ['must-understand, which goes before no-store', cached('must-understand, no-store, max-age=60'), {}, 'fresh'],
    [
      'must-understand and no-store, and a status that it does not know',
      cached('must-understand, no-store, max-age=60'),
      { status: 299 },
      'not kept: no-store',
    ],
    ['no-store within a quote beside max-age', cached('a="no-store, private", max-age=60'), {}, 'fresh'],
    ['private in capitals', cached('PRIVATE, max-age=60'), {}, 'not kept: private'],
    ['an empty Cache-Control', cached(''), {}, 'not kept: no freshness'],
    ['commas without members', cached(', ,max-age=60,,'), {}, 'fresh'],
    ['Pragma, which says nothing in an answer', cached('max-age=60', { Pragma: 'no-cache' }), {}, 'fresh'],
    ['Expires without a validator, over at once', { Expires: at(-1) }, {}, 'not kept: never fresh'],
    ...[203, 300, 301, 303, 307, 308, 400, 405, 410, 414, 451, 499, 500, 501, 502, 503, 504, 599].flatMap(
      (status): Row[] => [
        [`${status} with freshness`, cached('max-age=60'), { status }, 'fresh'],
        [`${status} without`, {}, { status }, 'not kept: no freshness'],
        [`${status} that is over`, cached('max-age=60', validator), { status, after: 61 }, 'validate'],
      ],
    ),
    ['events', cached('max-age=60', { 'Content-Type': 'text/event-stream' }), {}, 'not kept: events'],
    [
      'too many tags to purge it by',
      cached('max-age=60', { 'Cache-Tag': Array.from({ length: 65 }, (_, i) => `t${i}`).join(',') }),
      {},
      'not kept: Cache-Tag',
    ],
  ],
  '3 requests': [
    ['no-store', cached('max-age=60'), { asked: cached('no-store') }, 'bypass'],
    ['If-Match', cached('max-age=60'), { asked: { 'If-Match': '"1"' } }, 'bypass'],
    ['If-Unmodified-Since', cached('max-age=60'), { asked: { 'If-Unmodified-Since': at(0) } }, 'bypass'],
    ['another method in a field', cached('max-age=60'), { asked: { 'X-HTTP-Method-Override': 'DELETE' } }, 'bypass'],
    ['a body', cached('max-age=60'), { asked: { 'Content-Length': '1' } }, 'bypass'],
  ],
  '3.5 who asks': [
    [
      'Authorization',
      cached('max-age=60'),
      { asked: { Authorization: 'Bearer a' } },
      'not kept: not said to be public',
    ],
    [
      'Authorization, and must-revalidate',
      cached('max-age=60, must-revalidate'),
      { asked: { Authorization: 'Bearer a' } },
      'not kept: not said to be public',
    ],
    ['Authorization, and public', cached('public, max-age=60'), { asked: { Authorization: 'Bearer a' } }, 'fresh'],
    ['Authorization, and s-maxage', cached('s-maxage=60'), { asked: { Authorization: 'Bearer a' } }, 'fresh'],
    [
      'Authorization, and private',
      cached('private, s-maxage=60'),
      { asked: { Authorization: 'Bearer a' } },
      'not kept: private',
    ],
    ['Authorization later', cached('max-age=60'), { later: { Authorization: 'Bearer a' } }, 'unusable'],
    [
      'Authorization later, and public',
      cached('public, max-age=60'),
      { later: { Authorization: 'Bearer a' } },
      'fresh',
    ],
    ['a cookie', cached('max-age=60'), { asked: { Cookie: 'a=1' } }, 'not kept: not said to be public'],
    ['a cookie, and public', cached('public, max-age=60'), { asked: { Cookie: 'a=1' } }, 'fresh'],
    ['a cookie later', cached('max-age=60'), { later: { Cookie: 'a=1' } }, 'unusable'],
    [
      'a cookie, and the row says how long',
      {},
      { asked: { Cookie: 'a=1' }, rule: { freshMs: 1_000 } },
      'not kept: not said to be public',
    ],
    ['Set-Cookie', cached('max-age=60', { 'Set-Cookie': 'a=1' }), {}, 'not kept: Set-Cookie'],
    ['Set-Cookie, and public', cached('public, s-maxage=60', { 'Set-Cookie': 'a=1' }), {}, 'not kept: Set-Cookie'],
  ],
  '4.1 Vary': [
    ['everything', cached('max-age=60', { Vary: '*' }), {}, 'not kept: Vary'],
    ['everything, among others', cached('max-age=60', { Vary: 'Accept, *' }), {}, 'not kept: Vary'],
    ['everything, twice', cached('max-age=60', { Vary: '*, *' }), {}, 'not kept: Vary'],
    ['everything, after nothing', cached('max-age=60', { Vary: ', *' }), {}, 'not kept: Vary'],
    ['everything, before others', cached('max-age=60', { Vary: '*, Foo' }), {}, 'not kept: Vary'],
    ['nothing', cached('max-age=60', { Vary: '' }), {}, 'fresh'],
    [
      'a name in other letters',
      cached('max-age=60', { Vary: 'fOO' }),
      { asked: { Foo: '1' }, later: { Foo: '2' } },
      'another variant',
    ],
    [
      'one of three, in another order',
      cached('max-age=60', { Vary: 'Baz, Foo, Bar' }),
      { asked: { Foo: '1', Bar: '2', Baz: '3' }, later: { Foo: '1', Bar: '2', Baz: '4' } },
      'another variant',
    ],
    [
      'all of three',
      cached('max-age=60', { Vary: 'Baz, Foo, Bar' }),
      { asked: { Foo: '1', Bar: '2', Baz: '3' }, later: { Baz: '3', Bar: '2', Foo: '1' } },
      'fresh',
    ],
    [
      'the same without its case is another',
      cached('max-age=60', { Vary: 'Foo' }),
      { asked: { Foo: 'a' }, later: { Foo: 'A' } },
      'another variant',
    ],
    ['Cookie', cached('public, max-age=60', { Vary: 'Cookie' }), {}, 'not kept: Vary'],
    ['Authorization', cached('public, max-age=60', { Vary: 'accept, AUTHORIZATION' }), {}, 'not kept: Vary'],
    ['the address', cached('public, max-age=60', { Vary: 'X-Forwarded-For' }), {}, 'not kept: Vary'],
    ['the subject', cached('public, max-age=60', { Vary: 'X-User-Id' }), {}, 'not kept: Vary'],
    ['no name', cached('max-age=60', { Vary: 'a b' }), {}, 'not kept: Vary'],
    ['the same', cached('max-age=60', { Vary: 'Foo' }), { asked: { Foo: '1' }, later: { Foo: '1' } }, 'fresh'],
    ['another', cached('max-age=60', { Vary: 'Foo' }), { asked: { Foo: '1' }, later: { Foo: '2' } }, 'another variant'],
    ['none at first', cached('max-age=60', { Vary: 'Foo' }), { later: { Foo: '1' } }, 'another variant'],
    ['none later', cached('max-age=60', { Vary: 'Foo' }), { asked: { Foo: '1' } }, 'another variant'],
    ['none both times', cached('max-age=60', { Vary: 'Foo' }), {}, 'fresh'],
    ['an empty one is not none', cached('max-age=60', { Vary: 'Foo' }), { later: { Foo: '' } }, 'another variant'],
    [
      'one of two',
      cached('max-age=60', { Vary: 'Foo, Bar' }),
      { asked: { Foo: '1', Bar: '1' }, later: { Foo: '1', Bar: '2' } },
      'another variant',
    ],
    [
      'space around commas says nothing',
      cached('max-age=60', { Vary: 'Foo' }),
      { asked: { Foo: '1,2' }, later: { Foo: '1 , 2' } },
      'fresh',
    ],
    [
      'the same codings in another order',
      cached('max-age=60', { Vary: 'Accept-Encoding' }),
      { asked: { 'Accept-Encoding': 'gzip, br' }, later: { 'Accept-Encoding': 'br;q=0.9,gzip' } },
      'fresh',
    ],
    [
      'a coding that is refused',
      cached('max-age=60', { Vary: 'Accept-Encoding' }),
      { asked: { 'Accept-Encoding': 'gzip, br' }, later: { 'Accept-Encoding': 'br;q=0, gzip' } },
      'another variant',
    ],
    [
      'encoded, and no word of it',
      cached('max-age=60', { 'Content-Encoding': 'gzip' }),
      { asked: { 'Accept-Encoding': 'gzip' } },
      'another variant',
    ],
    [
      'for one origin, and no word of it',
      cached('max-age=60', { 'Access-Control-Allow-Origin': 'https://a.example' }),
      { asked: { Origin: 'https://a.example' }, later: { Origin: 'https://b.example' } },
      'another variant',
    ],
    [
      'what the row names',
      cached('max-age=60'),
      { rule: { vary: ['x-tenant'] }, asked: { 'X-Tenant': 'a' }, later: { 'X-Tenant': 'b' } },
      'another variant',
    ],
  ],
  '4.2.1 how long': [
    ['max-age is over', cached('max-age=60', validator), { after: 61 }, 'validate'],
    ['in its last moment', cached('max-age=60', validator), { after: 60 }, 'validate'],
    ['s-maxage before max-age', cached('max-age=3600, s-maxage=1', validator), { after: 2 }, 'validate'],
    ['s-maxage before max-age, the longer one', cached('max-age=1, s-maxage=3600'), { after: 2 }, 'fresh'],
    ['max-age before Expires', cached('max-age=3600', { Expires: at(-60) }), {}, 'fresh'],
    ['max-age=0 before Expires', cached('max-age=0', { Expires: at(60), ...validator }), {}, 'validate'],
    ['Expires', { Expires: at(60) }, {}, 'fresh'],
    ['Expires is over', { Expires: at(60), ...validator }, { after: 61 }, 'validate'],
    ['Expires counts from Date', { Date: at(-120), Expires: at(-60), ...validator }, {}, 'validate'],
    ['Expires without Date', { Date: '', Expires: at(60) }, {}, 'fresh'],
    ['Expires that is no date', { Expires: '0', ...validator }, {}, 'validate'],
    ['Expires in another time zone', { Expires: 'Thu, 01 Jan 2099 00:00:00 UTC', ...validator }, {}, 'validate'],
    ['Expires in an old form', { Expires: 'Friday, 01-Jan-27 00:00:00 GMT' }, {}, 'fresh'],
    ['Expires in asctime’s form', { Expires: 'Fri Jan  1 00:00:00 2027' }, {}, 'fresh'],
    ['max-age in quotes', cached('max-age="60"'), {}, 'fresh'],
    ['max-age in single quotes', cached("max-age='60'", validator), {}, 'validate'],
    ['max-age with zeros before it', cached('max-age=00060'), { after: 59 }, 'fresh'],
    ['max-age in capitals', cached('MaX-aGe=60'), {}, 'fresh'],
    ['max-age within a quote, after the real one', cached('max-age=0, a="max-age=60"', validator), {}, 'validate'],
    ['max-age within a quote, before the real one', cached('a="max-age=60", max-age=0', validator), {}, 'validate'],
    ['max-age within a quote alone', cached('a="max-age=60"'), {}, 'not kept: no freshness'],
    ['a name that ends so', cached('x-max-age=60'), {}, 'not kept: no freshness'],
    ['max-age without a number', cached('max-age', validator), {}, 'validate'],
    ['s-maxage=0 before max-age', cached('max-age=60, s-maxage=0', validator), {}, 'validate'],
    ['s-maxage that is no number before max-age', cached('max-age=60, s-maxage=x', validator), {}, 'validate'],
    ['s-maxage before Expires', cached('s-maxage=60', { Expires: at(-60) }), {}, 'fresh'],
    ['Expires in the hour 24', { Expires: 'Fri, 01 Jan 2027 24:00:00 GMT', ...validator }, {}, 'validate'],
    ['Expires without a comma', { Expires: 'Fri 01 Jan 2027 00:00:00 GMT', ...validator }, {}, 'validate'],
    ['Expires in small letters', { Expires: 'fri, 01 jan 2027 00:00:00 gmt', ...validator }, {}, 'validate'],
    ['Expires far away', { Expires: 'Sun, 21 Nov 2286 04:46:39 GMT' }, { after: 86_400 }, 'fresh'],
    ['Expires like Date', { Date: at(60), Expires: at(60), ...validator }, {}, 'validate'],
    ['max-age that is no number', cached('max-age=one', validator), {}, 'validate'],
    ['max-age below zero', cached('max-age=-1', validator), {}, 'validate'],
    ['max-age with a fraction', cached('max-age=60.5', validator), {}, 'validate'],
    ['two that differ', cached('max-age=3600, max-age=60', validator), {}, 'validate'],
    ['two that agree', cached('max-age=60, max-age=60'), {}, 'fresh'],
    ['more than any clock', cached('max-age=99999999999999999999'), { after: 86_400 }, 'fresh'],
    ['for shared caches only', cached('no-store', { 'CDN-Cache-Control': 'max-age=60' }), {}, 'fresh'],
    [
      'for shared caches not at all',
      cached('max-age=60', { 'CDN-Cache-Control': 'no-store' }),
      {},
      'not kept: no-store',
    ],
    ['nothing said to shared caches', cached('max-age=60', { 'CDN-Cache-Control': '' }), {}, 'fresh'],
    [
      'Expires says nothing to shared caches',
      { Expires: at(60), 'CDN-Cache-Control': 'public', ...validator },
      {},
      'validate',
    ],
  ],
  '4.2.3 how old': [
    ['Age', cached('max-age=60', { Age: '30' }), { after: 29 }, 'fresh'],
    ['Age, and it is over', cached('max-age=60', { Age: '30', ...validator }), { after: 31 }, 'validate'],
    ['Age above max-age', cached('max-age=60', { Age: '90', ...validator }), {}, 'validate'],
    ['Age that is no number', cached('max-age=60', { Age: 'old' }), {}, 'fresh'],
    ['Age below zero says nothing (§5.1)', cached('max-age=60', { Age: '-7200' }), {}, 'fresh'],
    ['Age with a fraction says nothing', cached('max-age=60', { Age: '7200.0' }), {}, 'fresh'],
    ['Age with a parameter says nothing', cached('max-age=60', { Age: '7200;foo=bar' }), {}, 'fresh'],
    ['two ages: the first, which is above', cached('max-age=60', { Age: '90, 10', ...validator }), {}, 'validate'],
    ['Age more than any clock', cached('max-age=60', { Age: '99999999999', ...validator }), {}, 'validate'],
    ['Age above Expires', { Expires: at(60), Age: '90', ...validator }, {}, 'validate'],
    [
      'Age above Expires, by a clock that is fast',
      { Date: at(600), Expires: at(660), Age: '90', ...validator },
      {},
      'validate',
    ],
    ['two ages: the first', cached('max-age=60', { Age: '10, 90' }), {}, 'fresh'],
    ['Date long ago', cached('max-age=60', { Date: at(-90), ...validator }), {}, 'validate'],
    ['Date ahead of us', cached('max-age=60', { Date: at(90) }), { after: 59 }, 'fresh'],
  ],
  '4.2.4 stale': [
    ['nobody allows it', cached('max-age=60', validator), { after: 90 }, 'validate'],
    ['stale-while-revalidate', cached('max-age=60, stale-while-revalidate=60'), { after: 90 }, 'refresh'],
    ['stale-while-revalidate is over', cached('max-age=60, stale-while-revalidate=60'), { after: 121 }, 'validate'],
    [
      'stale-while-revalidate of the row',
      cached('max-age=60'),
      { after: 90, rule: { staleWhileRevalidateMs: 60_000 } },
      'refresh',
    ],
    [
      'the answer’s own goes before the row’s',
      cached('max-age=60, stale-while-revalidate=1', validator),
      { after: 90, rule: { staleWhileRevalidateMs: 60_000 } },
      'validate',
    ],
    [
      'must-revalidate goes before it',
      cached('max-age=60, stale-while-revalidate=60, must-revalidate', validator),
      { after: 90 },
      'validate',
    ],
    [
      's-maxage goes before the row’s',
      cached('s-maxage=60', validator),
      { after: 90, rule: { staleWhileRevalidateMs: 60_000 } },
      'validate',
    ],
    ['s-maxage, and its own', cached('s-maxage=60, stale-while-revalidate=60'), { after: 90 }, 'refresh'],
  ],
  '5.2.1 what the request wants': [
    ['no-cache', cached('max-age=60'), { later: cached('no-cache') }, 'validate'],
    ['Pragma: no-cache', cached('max-age=60'), { later: { Pragma: 'no-cache' } }, 'validate'],
    [
      'Pragma beside Cache-Control',
      cached('max-age=60'),
      { later: cached('max-age=60', { Pragma: 'no-cache' }) },
      'fresh',
    ],
    ['max-age=0', cached('max-age=60'), { later: cached('max-age=0'), after: 1 }, 'validate'],
    ['max-age that it meets', cached('max-age=60'), { later: cached('max-age=30'), after: 29 }, 'fresh'],
    ['max-age that it does not', cached('max-age=60'), { later: cached('max-age=30'), after: 31 }, 'validate'],
    [
      'max-age and the Age it came with',
      cached('max-age=60', { Age: '40' }),
      { later: cached('max-age=30') },
      'validate',
    ],
    ['min-fresh that it meets', cached('max-age=60'), { later: cached('min-fresh=30'), after: 29 }, 'fresh'],
    ['min-fresh that it does not', cached('max-age=60'), { later: cached('min-fresh=30'), after: 31 }, 'validate'],
    ['max-stale', cached('max-age=60', validator), { later: cached('max-stale'), after: 6_000 }, 'fresh'],
    ['max-stale that it meets', cached('max-age=60', validator), { later: cached('max-stale=30'), after: 89 }, 'fresh'],
    [
      'max-stale that it does not',
      cached('max-age=60', validator),
      { later: cached('max-stale=30'), after: 91 },
      'validate',
    ],
    [
      'max-stale and must-revalidate',
      cached('max-age=60, must-revalidate', validator),
      { later: cached('max-stale'), after: 90 },
      'validate',
    ],
    [
      'max-stale and proxy-revalidate',
      cached('max-age=60, proxy-revalidate', validator),
      { later: cached('max-stale'), after: 90 },
      'validate',
    ],
    ['max-stale and s-maxage', cached('s-maxage=60', validator), { later: cached('max-stale'), after: 90 }, 'validate'],
    ['a directive that nobody knows', cached('max-age=60'), { later: cached('foo=bar') }, 'fresh'],
    ['no-store, which is no word about what is kept', cached('max-age=60'), { later: cached('no-store') }, 'bypass'],
    ['max-age=0 and max-stale', cached('max-age=60'), { later: cached('max-age=0, max-stale'), after: 1 }, 'validate'],
    ['max-age that is no number', cached('max-age=60'), { later: cached('max-age=x'), after: 1 }, 'validate'],
    ['only-if-cached while it is fresh', cached('max-age=60'), { later: cached('only-if-cached') }, 'fresh'],
  ],
  '5.2.2 what the answer wants': [
    ['no-cache', cached('no-cache', validator), {}, 'validate'],
    ['no-cache beside max-age', cached('no-cache, max-age=60', validator), {}, 'validate'],
    ['no-cache for one field', cached('no-cache="x-a", max-age=60', validator), {}, 'validate'],
    ['no-cache without a validator', cached('no-cache'), {}, 'not kept: never fresh'],
    ['no-cache in capitals', cached('No-CaChE, max-age=60', validator), {}, 'validate'],
    ['must-revalidate when it is over', cached('max-age=60, must-revalidate', validator), { after: 61 }, 'validate'],
    ['immutable when it is over', cached('max-age=60, immutable', validator), { after: 61 }, 'validate'],
    ['immutable', cached('max-age=60, immutable'), { after: 30 }, 'fresh'],
    ['must-revalidate while fresh', cached('max-age=60, must-revalidate'), {}, 'fresh'],
  ],
}

for (const [section, cases] of Object.entries(rows))
  describe(`RFC 9111 §${section}`, () => {
    it.each(cases)('%s', (_fact, answer, kept, outcome) => {
      expect(becomeOf(answer, kept)).toBe(outcome)
    })
  })

const storedOf = (answer: Fields, kept: Kept = {}): StoredHead => {
  const stored = store({ Date: at(0), ...answer }, kept)
  if (typeof stored === 'string') throw new Error(stored)
  return stored
}
const anonymous = planOf(toExchange({})) as UseCache

describe('a stale answer in the place of an error', () => {
  it.each<[string, Fields, Kept, boolean]>([
    ['the answer allows it', cached('max-age=60, stale-if-error=60'), { after: 90 }, true],
    ['for as long as it says', cached('max-age=60, stale-if-error=60'), { after: 121 }, false],
    ['the row allows it', cached('max-age=60'), { after: 90, rule: { staleIfErrorMs: 60_000 } }, true],
    ['nobody allows it', cached('max-age=60', validator), { after: 90 }, false],
    ['must-revalidate forbids it', cached('max-age=60, stale-if-error=60, must-revalidate'), { after: 90 }, false],
    ['s-maxage, and the row', cached('s-maxage=60'), { after: 90, rule: { staleIfErrorMs: 60_000 } }, false],
    ['s-maxage, and its own', cached('s-maxage=60, stale-if-error=60'), { after: 90 }, true],
    [
      'who asks wants a fresh one',
      cached('max-age=60, stale-if-error=60'),
      { after: 90, later: cached('no-cache') },
      false,
    ],
    ['it may be another’s', cached('max-age=60, stale-if-error=60'), { after: 90, later: { Cookie: 'a=1' } }, false],
  ])('%s', (_fact, answer, kept, outcome) => {
    const plan = planOf(toExchange(kept.later ?? {}), kept.rule) as UseCache
    expect(mayServeOnError(plan, storedOf(answer, kept), noon + (kept.after ?? 0) * 1_000)).toBe(outcome)
  })
})

describe('what is kept of the fields', () => {
  it('is all but those of the hop, Age and Content-Length; there is a Date', () => {
    const exchange = toExchange({})
    const headers = Object.entries({
      'Cache-Control': 'max-age=60',
      Connection: 'X-Hop, close',
      'X-Hop': '1',
      'Keep-Alive': 'timeout=5',
      'Transfer-Encoding': 'chunked',
      Trailer: 'X-Sum',
      'Proxy-Authenticate': 'Basic',
      Age: '7',
      'Content-Length': '8',
      'X-Own': '1',
    }).flat()
    const stored = toStoredHead(anonymous, {
      status: 200,
      headers,
      sent: exchange.headers,
      askedAt: noon - 2_000,
      receivedAt: noon,
    })
    expect(stored).toMatchObject({
      headers: ['Cache-Control', 'max-age=60', 'X-Own', '1', 'Date', at(0)],
      initialAgeMs: 9_000,
    })
    expect(toAgeMs(stored as StoredHead, noon + 1_500)).toBe(10_500)
  })
})

describe('a 304', () => {
  const known = storedOf({ ...cached('max-age=60', validator), 'X-A': '1', 'Content-Type': 'text/plain', Age: '50' })
  const update = (fields: Fields) =>
    freshen(anonymous, known, {
      status: 304,
      headers: Object.entries({ Date: at(100), ...fields }).flat(),
      sent: [],
      askedAt: noon + 100_000,
      receivedAt: noon + 100_000,
    })

  it('replaces fields, keeps those that tell of the content, and counts anew', () => {
    expect(
      update({ ...validator, 'X-A': '2', 'X-B': '3', 'Content-Type': 'image/png', 'Content-Length': '0' }),
    ).toMatchObject({
      status: 200,
      headers: [
        'Cache-Control',
        'max-age=60',
        'Content-Type',
        'text/plain',
        'Date',
        at(100),
        'ETag',
        '"1"',
        'X-A',
        '2',
        'X-B',
        '3',
      ],
      initialAgeMs: 0,
      freshMs: 60_000,
    })
  })

  it.each(['Content-Encoding', 'Content-Type', 'Content-Range', 'Content-MD5', 'Content-Digest', 'Repr-Digest'])(
    'does not bring a %s, which is about bytes that it does not have',
    (name) => {
      expect(update({ ...validator, [name]: 'new' })).not.toMatchObject({
        headers: expect.arrayContaining(['new']) as string[],
      })
    },
  )

  it.each([
    'Cache-Control',
    'Expires',
    'Content-Location',
    'Content-Language',
    'Content-Security-Policy',
    'X-Frame-Options',
  ])('brings a %s', (name) => {
    const value = name === 'Expires' ? at(500) : name === 'Cache-Control' ? 'max-age=7' : 'new'
    expect(update({ ...validator, [name]: value })).toMatchObject({
      headers: expect.arrayContaining([name, value]) as string[],
    })
  })

  it('says how long it is good for now', () => {
    expect(update(cached('max-age=5'))).toMatchObject({ freshMs: 5_000, etag: '"1"' })
  })

  it('may end it', () => {
    expect(update(cached('no-store'))).toEqual({ refused: 'no-store' })
    expect(update({ 'Set-Cookie': 'a=1' })).toEqual({ refused: 'Set-Cookie' })
  })

  it('with another tag is not about it', () => {
    expect(update({ ETag: '"2"' })).toBeUndefined()
    expect(update({ ETag: 'W/"1"' })).toBeDefined()
  })
})

describe('a request that changes something', () => {
  it.each([
    ['POST', 'invalidate'],
    ['PUT', 'invalidate'],
    ['DELETE', 'invalidate'],
    ['PATCH', 'invalidate'],
    ['PURGE', 'invalidate'],
    ['OPTIONS', 'bypass'],
  ])('%s: %s', (method, outcome) => {
    expect(planOf(toExchange({}, method))).toBe(outcome)
  })

  it.each([
    ['/b', 'https://shop.example/b'],
    ['https://shop.example:443/b?c', 'https://shop.example/b?c'],
    ['https://other.example/b', undefined],
    ['http://shop.example/b', undefined],
    ['//other.example/b', undefined],
    ['https://[', undefined],
    [undefined, undefined],
  ])('with Location %s concerns %s', (location, url) => {
    expect(toChangedUrl('https://shop.example/a', location)).toBe(url)
  })
})

describe('a selector', () => {
  it.each([
    [{ url: 'https://shop.example/a' }, 'https://shop.example/a', true],
    [{ url: 'https://shop.example/a' }, 'https://shop.example/a?b', false],
    [{ url: 'HTTPS://Shop.example:443/%61' }, 'https://shop.example/a', true],
    [{ url: 'https://shop.example' }, 'https://shop.example/', true],
    [{ prefix: 'https://shop.example/a' }, 'https://shop.example/a', true],
    [{ prefix: 'https://shop.example/a' }, 'https://shop.example/a?b', true],
    [{ prefix: 'https://shop.example/a' }, 'https://shop.example/a/b', true],
    [{ prefix: 'https://shop.example/a' }, 'https://shop.example/ab', false],
    [{ prefix: 'https://shop.example/a/' }, 'https://shop.example/a/b', true],
    [{ prefix: 'https://shop.example' }, 'https://shop.example/b', true],
    [{ prefix: 'https://shop.example' }, 'https://shop.example.evil/b', false],
    [{ tag: 'one' }, 'https://shop.example/a', true],
    [{ tag: 'on' }, 'https://shop.example/a', false],
  ])('%j and %s: %s', (asked, url, outcome) => {
    const selector = readSelector(asked)
    if ('fault' in selector) throw new Error(selector.fault)
    expect(selects(selector, url, ['one', 'two'])).toBe(outcome)
  })
})

describe('Cache-Control', () => {
  it.each([
    ['a, b=1, c="2,3"', { a: '', b: '1', c: '2,3' }],
    [' , A = 1 ,, ', { a: '1' }],
    ['a="x\\"y"', { a: 'x"y' }],
    ['a=1, a=2', { a: 'unclear' }],
    ['"', { 'no-store': '' }],
    ['', {}],
  ])('%s', (text, directives) => {
    expect(Object.fromEntries(readDirectives(text))).toEqual(directives)
  })

  it('counts in whole seconds', () => {
    const directives = readDirectives('a=1, b=1.5, c, d=99999999999')
    expect(['a', 'b', 'c', 'd', 'e'].map((name) => readSeconds(directives, name))).toEqual([
      1,
      0,
      0,
      2_147_483_648,
      undefined,
    ])
  })
})

describe('an HTTP-date', () => {
  it.each([
    ['Sun, 06 Nov 1994 08:49:37 GMT', '1994-11-06T08:49:37.000Z'],
    ['Sunday, 06-Nov-94 08:49:37 GMT', '1994-11-06T08:49:37.000Z'],
    ['Sun Nov  6 08:49:37 1994', '1994-11-06T08:49:37.000Z'],
    ['Friday, 06-Nov-26 08:49:37 GMT', '2026-11-06T08:49:37.000Z'],
    ['1994-11-06T08:49:37Z', undefined],
    ['Sun, 06 Nov 1994 08:49:37', undefined],
    ['Sun, 06 Nov 1994 25:49:37 GMT', undefined],
    ['Sun, 6 Nov 1994 08:49:37 GMT', undefined],
  ])('%s', (text, time) => {
    const read = readHttpDate(text, noon)
    expect(Number.isNaN(read) ? undefined : new Date(read).toISOString()).toBe(time)
  })
})
