import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { toClientHeaders, toUpstreamHeaders } from '#edge/actions/headers.ts'
import { readAddress } from '#edge/address.ts'
import { compileTables, ConfigError } from '#edge/compile.ts'
import type { CompiledGateway } from '#edge/compile.ts'
import { identify } from '#edge/exchange.ts'
import type { Exchange } from '#edge/exchange.ts'
import { decide } from '#edge/gateway.ts'
import { redactQuery } from '#edge/log.ts'
import { createLocalLimiter } from '#edge/local-limiter.ts'
import { createNodeFacts } from '#edge/node/runtime.ts'
import { matchesPattern, readPattern, toCanonicalPath } from '#edge/path.ts'
import type { Route } from '#edge/table.ts'

/** What holds for any input at all; each property says which mistake it rules out. */
const facts = {
  ...createNodeFacts({ limiter: createLocalLimiter({ now: Date.now }), trustedHops: [] }),
  randomId: () => 'the-request-id',
}
const peer = '203.0.113.9'

describe('a path', () => {
  const piece = fc.constantFrom(
    ' ',
    ...'a B 7 - _ . ~ / // .. ; = @ : * ! \\ ? # é \0'.split(' '),
    ...'% %2 %2f %2F %5c %00 %41 %61 %2e %2E %7e %c3%a9 %C3%A9 %c0%af %3b %25 %20'.split(' '),
  )
  const anyPath = fc.oneof(
    fc.array(piece, { maxLength: 12 }).map((pieces) => `/${pieces.join('')}`),
    fc.string({ unit: 'binary' }).map((text) => `/${text}`),
    fc.string({ unit: 'binary' }),
  )

  it('is refused, or canonical: reading it again changes nothing', () => {
    fc.assert(
      fc.property(anyPath, (raw) => {
        const path = toCanonicalPath(raw)
        if (typeof path === 'string') expect(toCanonicalPath(path)).toBe(path)
      }),
      { numRuns: 5_000 },
    )
  })

  it('has the segments that a URL parser reads in it, once and for all decoded', () => {
    const decode = (path: string): string[] => path.split('/').map(decodeURIComponent)
    fc.assert(
      fc.property(anyPath, (raw) => {
        const path = toCanonicalPath(raw)
        if (typeof path !== 'string') return
        const { pathname, search, hash } = new URL(`http://a.example${raw}`)
        expect(decode(path)).toEqual(decode(pathname))
        expect(search + hash).toBe('')
        // No reader finds a segment in it that the router did not see.
        expect(decode(path).some((segment) => /[/\\\0]|^\.{1,2}$/.test(segment))).toBe(false)
      }),
      { numRuns: 5_000 },
    )
  })

  it('has one form, however its characters are escaped (RFC 3986 §6.2.2)', () => {
    const segment = fc.string({
      minLength: 1,
      maxLength: 6,
      unit: fc.constantFrom(...'abzAZ09-._~'.split(''), '%C3%A9', '%20', '%25', '@', ';x', ':'),
    })
    const escape = (character: string, upper: boolean): string => {
      const hex = character.charCodeAt(0).toString(16).padStart(2, '0')
      return `%${upper ? hex.toUpperCase() : hex}`
    }
    const spelt = fc
      .array(segment, { minLength: 1, maxLength: 4 })
      .map((segments) => `/${segments.join('/')}`)
      .chain((path) =>
        fc.tuple(
          fc.constant(path),
          fc.array(fc.constantFrom('plain', 'lower', 'upper'), { minLength: path.length, maxLength: path.length }),
        ),
      )
    fc.assert(
      fc.property(spelt, ([path, how]) => {
        let at = 0
        const other = path.replace(/%..|[\w.~-]/g, (token) => {
          const style = how[at++]
          if (token.length === 3) return style === 'lower' ? token.toLowerCase() : token
          return style === 'plain' ? token : escape(token, style === 'upper')
        })
        expect(toCanonicalPath(other)).toEqual(toCanonicalPath(path))
      }),
      { numRuns: 3_000 },
    )
  })
})

describe('the row of a request', () => {
  const segment = fc.constantFrom('a', 'b', 'ab', 'a.b', 'A', 'x+y', '$', "it's", '~', 'a,b', '@me', '%C3%A9', '-')
  const path = fc.array(segment, { maxLength: 3 }).map((segments) => `/${segments.join('/')}`)
  const pattern = fc.oneof(
    path,
    path.map((text) => (text === '/' ? '/*' : `${text}/*`)),
  )
  const methods = fc.option(
    fc.uniqueArray(fc.constantFrom('GET', 'POST', 'PUT', 'PURGE'), { minLength: 1, maxLength: 3 }),
  )
  const row = fc.record({ path: pattern, methods })
  const asked = fc.record({
    path: fc.array(fc.oneof(segment, fc.constant('zz')), { maxLength: 4 }).map((segments) => `/${segments.join('/')}`),
    method: fc.constantFrom('GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'PURGE', 'OPTIONS'),
  })

  /** The stated precedence: exact, then the longer prefix, then rows for some methods, then the order in the table. */
  function reference(routes: Route[], method: string, wanted: string): number {
    const ranked = routes
      .map((route, index) => ({ route, index, pattern: readPattern(route.path) }))
      .filter(
        (one): one is typeof one & { pattern: Exclude<typeof one.pattern, { fault: string }> } => 'kind' in one.pattern,
      )
      .filter(({ route, pattern: { kind, path: own } }) => {
        const allowed = route.methods?.flatMap((name) => (name === 'GET' ? ['GET', 'HEAD'] : [name]))
        return matchesPattern({ kind, path: own }, wanted) && (allowed === undefined || allowed.includes(method))
      })
      .sort(
        (a, b) =>
          Number(a.pattern.kind === 'prefix') - Number(b.pattern.kind === 'prefix') ||
          b.pattern.path.length - a.pattern.path.length ||
          Number(a.route.methods === undefined) - Number(b.route.methods === undefined) ||
          a.index - b.index,
      )
    return ranked[0]?.index ?? -1
  }

  it('is the one that the stated precedence names, for any table and request', async () => {
    let compared = 0
    await fc.assert(
      fc.asyncProperty(
        fc.uniqueArray(row, {
          minLength: 1,
          maxLength: 8,
          selector: (one) => `${one.path} ${one.methods?.toSorted().join()}`,
        }),
        fc.array(asked, { minLength: 1, maxLength: 30 }),
        async (rows, requests) => {
          const routes: Route[] = rows.map((one, index) => ({
            path: one.path,
            ...(one.methods && { methods: one.methods }),
            respond: { status: 200, body: String(index) },
          }))
          const table = { name: 'any', sites: [{ hosts: ['a.example'], routes }] }
          const compiled = await compileTables([{ table }], { environment: {}, development: false }).catch(
            (error: unknown): CompiledGateway | undefined => {
              // Rows that no request can reach are refused at load.
              if (error instanceof ConfigError) return undefined
              throw error
            },
          )
          fc.pre(compiled !== undefined)
          for (const { method, path: wanted } of requests) {
            const plan = await decide(
              compiled,
              { method, target: wanted, version: '1.1', headers: ['Host', 'a.example'], peer, secure: false },
              facts,
            )
            const found = plan.kind === 'answer' && !plan.refusal ? Number(plan.body) : -1
            expect(found, `${method} ${wanted}`).toBe(reference(routes, method, wanted))
            compared++
          }
        },
      ),
      { numRuns: 400 },
    )
    expect(compared).toBeGreaterThan(1_000)
  })
})

describe('fields', () => {
  const ours = [
    'x-user-id x-user-claims x-user-anything x-forwarded-for x-forwarded-proto x-forwarded-host x-real-ip x-request-id',
    'x-daemun-edge forwarded x-client-ip true-client-ip cf-connecting-ip x-original-url x-middleware-subrequest via',
  ].flatMap((names) => names.split(' '))
  const hopByHop = [
    'connection keep-alive proxy-connection proxy-authenticate proxy-authorization te trailer transfer-encoding',
    'upgrade content-length expect host',
  ].flatMap((names) => names.split(' '))
  const plain = 'accept x-custom x-secret authorization cookie x-userid content-type __proto__'.split(' ')
  /** A name in any case, with any of its dashes written as something that some reader folds into a dash. */
  const spelling = (names: string[]): fc.Arbitrary<string> =>
    fc.constantFrom(...names).chain((name) =>
      fc
        .array(fc.tuple(fc.boolean(), fc.constantFrom('-', '-', '-', '_', '.')), {
          minLength: name.length,
          maxLength: name.length,
        })
        .map((choices) =>
          [...name]
            .map((character, index) => {
              const [upper, dash] = choices[index] ?? [false, '-']
              return character === '-' ? dash : upper ? character.toUpperCase() : character
            })
            .join(''),
        ),
    )
  const anyName = fc.oneof(
    spelling(ours),
    spelling(hopByHop),
    spelling(plain),
    fc.string({ minLength: 1, maxLength: 12, unit: fc.constantFrom(..."abXY019-_.!#$%&'*+^`|~".split('')) }),
  )
  const value = fc.constantFrom('spoofed', 'spoofed-2', '')
  const connection = fc
    .array(fc.oneof(fc.constantFrom('close', 'keep-alive', 'upgrade'), anyName), { maxLength: 4 })
    .map((tokens): [string, string] => ['Connection', tokens.join(', ')])
  const lines = fc.array(
    fc.oneof({ weight: 5, arbitrary: fc.tuple(anyName, value) }, { weight: 1, arbitrary: connection }),
    {
      maxLength: 12,
    },
  )
  const fold = (name: string): string => name.toLowerCase().replace(/[^a-z0-9-]/g, '-')
  const pairs = (flat: string[]): [string, string][] =>
    Array.from({ length: flat.length / 2 }, (_, index) => [flat[index * 2] ?? '', flat[index * 2 + 1] ?? ''])
  const namedBy = (received: [string, string][]): string[] =>
    received
      .filter(([name]) => name.toLowerCase() === 'connection')
      .flatMap(([, tokens]) =>
        tokens
          .toLowerCase()
          .split(',')
          .map((token) => token.trim()),
      )

  const identified = (received: [string, string][]): { exchange: Exchange; refused: boolean } => {
    const headers = [['Host', 'a.example'] as [string, string], ...received].flat()
    const { exchange, refusal } = identify(
      { method: 'GET', target: '/', version: '1.1', headers, peer, secure: false },
      facts,
    )
    return { exchange, refused: refusal !== undefined }
  }

  it('to an upstream are never hop-by-hop, and those of ours are ours, in any spelling', () => {
    let passed = 0
    fc.assert(
      fc.property(lines, (received) => {
        const { exchange, refused } = identified(received)
        if (refused) return
        passed++
        const sent = pairs(toUpstreamHeaders(exchange, { drops: new Set(), set: [] }))
        for (const [name, text] of sent) {
          const folded = fold(name)
          if (folded === 'host') expect(text).toBe('a.example')
          else if (ours.includes(folded) || /^x-(user|forwarded|daemun)-/.test(folded)) {
            expect(text).not.toContain('spoofed')
            expect(name.toLowerCase()).toBe(folded)
          } else {
            expect(hopByHop).not.toContain(folded)
            expect(namedBy(received)).not.toContain(name.toLowerCase())
          }
        }
        for (const one of ['host', 'x-forwarded-for', 'x-real-ip', 'x-request-id'])
          expect(sent.filter(([name]) => fold(name) === one)).toHaveLength(1)
      }),
      { numRuns: 5_000 },
    )
    expect(passed).toBeGreaterThan(500)
  })

  it('are refused, not passed on, when their name could be taken for one of ours or of the framing', () => {
    fc.assert(
      fc.property(fc.oneof(spelling(ours), spelling(hopByHop)), (name) => {
        const alias = name.toLowerCase() !== fold(name)
        if (alias) expect(identified([[name, 'spoofed']]).refused).toBe(true)
      }),
      { numRuns: 2_000 },
    )
  })

  it('to a client are never hop-by-hop nor named by Connection, and the request id is ours, once', () => {
    const { exchange } = identified([])
    const site = {
      drops: new Set([
        ...hopByHop.filter((name) => !/content-length|expect|host/.test(name)),
        'x-request-id',
        'x-daemun-edge',
      ]),
      set: [],
      defaults: [],
      cacheControl: undefined,
    }
    fc.assert(
      fc.property(lines, fc.constantFrom(200, 304, 404), (received, status) => {
        const sent = pairs(toClientHeaders(exchange, site, status, received.flat()))
        for (const [name, text] of sent) {
          const lower = name.toLowerCase()
          expect(site.drops.has(lower) && lower !== 'x-request-id').toBe(false)
          if (lower === 'x-request-id') expect(text).toBe('the-request-id')
          else if (lower !== 'content-length' && lower !== 'content-type')
            expect(namedBy(received)).not.toContain(lower)
        }
        expect(sent.filter(([name]) => name.toLowerCase() === 'x-request-id')).toHaveLength(1)
      }),
      { numRuns: 3_000 },
    )
  })
})

describe('an address', () => {
  const group = fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 0xffff }))
  const groups = fc.oneof(
    fc.array(group, { minLength: 8, maxLength: 8 }),
    fc.tuple(group, group).map(([high, low]) => [0, 0, 0, 0, 0, 0xffff, high, low]),
  )
  const style = fc.record({
    upper: fc.boolean(),
    padding: fc.boolean(),
    dotted: fc.boolean(),
    zone: fc.constantFrom('', '%eth0', '%25en0'),
    run: fc.nat(7),
    short: fc.boolean(),
  })

  function spell(
    parts: number[],
    { upper, padding, dotted, zone, run, short }: typeof style extends fc.Arbitrary<infer T> ? T : never,
  ): string {
    const [high = 0, low = 0] = parts.slice(6)
    const isMapped = parts.slice(0, 5).every((part) => part === 0) && parts[5] === 0xffff
    if (isMapped && short) return [high >> 8, high & 255, low >> 8, low & 255].join('.')
    const texts = parts.map((part) => {
      const hex = part.toString(16).padStart(padding ? 4 : 1, '0')
      return upper ? hex.toUpperCase() : hex
    })
    if (dotted) texts.splice(6, 2, [high >> 8, high & 255, low >> 8, low & 255].join('.'))
    // Any run of zero groups may be left out, not only the longest.
    let end = run
    while (end < (dotted ? 6 : 8) && parts[end] === 0) end++
    if (end === run) return texts.join(':') + zone
    return `${texts.slice(0, run).join(':')}::${texts.slice(end).join(':')}${zone}`
  }

  it('has one text and one bucket, whatever its spelling', () => {
    fc.assert(
      fc.property(groups, style, style, (parts, one, other) => {
        const [first, second] = [readAddress(spell(parts, one)), readAddress(spell(parts, other))]
        expect(first).not.toBeNull()
        expect(first).toEqual(second)
        expect(readAddress(first?.text ?? '')).toEqual(first)
      }),
      { numRuns: 3_000 },
    )
  })

  it('shares its bucket with its /64, and with nobody else', () => {
    fc.assert(
      fc.property(groups, groups, style, style, (a, b, one, other) => {
        const [first, second] = [readAddress(spell(a, one)), readAddress(spell(b, other))]
        const isMapped = (parts: number[]): boolean =>
          parts.slice(0, 5).every((part) => part === 0) && parts[5] === 0xffff
        const same =
          isMapped(a) || isMapped(b) ? String(a) === String(b) : String(a.slice(0, 4)) === String(b.slice(0, 4))
        expect(first?.bucket === second?.bucket).toBe(same)
        const neighbour = readAddress(spell([...a.slice(0, 4), ...b.slice(4)], other))
        if (!isMapped(a) && !isMapped([...a.slice(0, 4), ...b.slice(4)])) expect(neighbour?.bucket).toBe(first?.bucket)
      }),
      { numRuns: 2_000 },
    )
  })

  it('is nothing that is no address', () => {
    fc.assert(
      fc.property(
        fc.string({ unit: fc.constantFrom(...'0123456789abcdef:.%/[]x -'.split('')), maxLength: 24 }),
        (text) => {
          const read = readAddress(text)
          if (!read) return
          // What is read is an address to a URL parser too, and the same one.
          const bare = text.replace(/%.*$/, '')
          const { hostname } = new URL(`http://${bare.includes(':') ? `[${bare}]` : bare}/`)
          const again = hostname.startsWith('[') ? readAddress(hostname.slice(1, -1)) : readAddress(hostname)
          expect(again?.text).toBe(read.text)
        },
      ),
      { numRuns: 5_000 },
    )
  })
})

describe('a query in a log line', () => {
  const base64url = [...'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_']
  const run = (minLength: number, maxLength: number): fc.Arbitrary<string> =>
    fc.string({ unit: fc.constantFrom(...base64url), minLength, maxLength })
  const token = fc.oneof(
    fc.tuple(run(12, 40), run(12, 60), run(20, 60)).map((parts) => parts.join('.')),
    run(40, 90),
    fc.uint8Array({ minLength: 32, maxLength: 48 }).map((bytes) => Buffer.from(bytes).toString('hex')),
  )
  const secretName = fc
    .tuple(
      fc.constantFrom('', 'access_', 'x-', 'my', 'refresh.'),
      fc.constantFrom('token', 'secret', 'key', 'password', 'code', 'auth', 'sig', 'session', 'jwt', 'otp', 'ticket'),
      fc.boolean(),
      fc.nat(5),
    )
    .map(([front, name, upper, at]) => {
      const text = front + (upper ? name.toUpperCase() : name)
      const index = Math.min(at, text.length - 1)
      // One letter may be escaped: servers undo that.
      return at === 0 ? text : `${text.slice(0, index)}%${text.charCodeAt(index).toString(16)}${text.slice(index + 1)}`
    })
  const innocent: fc.Arbitrary<string> = fc.constantFrom('a=1', 'page=2', 'q=x.y', 'flag', 'b=', '=c', 'name=ada')
  const planted = fc.oneof(
    fc.tuple(fc.constantFrom('a', 'q', 'next', 'x'), token).map(([name, text]) => ({ pair: `${name}=${text}`, text })),
    fc.tuple(secretName, run(6, 30)).map(([name, text]) => ({ pair: `${name}=${text}~`, text: `${text}~` })),
    token.map((text) => ({ pair: text, text })),
  )

  it('holds no token that stood in it, and says all that is no secret', () => {
    fc.assert(
      fc.property(
        fc.array(innocent, { maxLength: 4 }),
        planted,
        fc.nat(4),
        fc.constantFrom('&', ';'),
        (others, { pair, text }, at, mark) => {
          const pieces = others.toSpliced(at, 0, pair)
          const shown = redactQuery(`?${pieces.join(mark)}`)
          expect(shown).not.toContain(text)
          for (const other of others) expect(shown).toContain(other)
        },
      ),
      { numRuns: 5_000 },
    )
  })
})
