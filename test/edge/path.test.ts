import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { compileTables } from '#edge/compile.ts'
import { matchesPattern, readPattern, readTarget, stripPrefix, toCanonicalPath } from '#edge/path.ts'
import type { PathPattern } from '#edge/path.ts'

describe('the canonical form of a path', () => {
  it.each([
    ['/', '/'],
    ['/a/b', '/a/b'],
    ['/a/', '/a/'],
    ['/%61%2D%7e', '/a-~'],
    ['/a%20b%c3%bc', '/a%20b%C3%BC'],
    ['/%252e', '/%252e'],
    ['/a%2Cb', '/a%2Cb'],
    ['/...', '/...'],
    ['/.well-known/x', '/.well-known/x'],
    ['/a;x=1/b', '/a;x=1/b'],
    ["/-._~!$&'()*+,;=:@[]|^", "/-._~!$&'()*+,;=:@[]|^"],
  ])('%s is %s', (raw, canonical) => {
    expect(toCanonicalPath(raw)).toBe(canonical)
  })

  it.each([
    ['', 'the path does not begin with a slash'],
    ['a', 'the path does not begin with a slash'],
    ['*', 'the path does not begin with a slash'],
    ['//', 'the path has an empty segment'],
    ['/a//b', 'the path has an empty segment'],
    ['//evil.example/a', 'the path has an empty segment'],
    ['/.', 'the path has a dot segment'],
    ['/..', 'the path has a dot segment'],
    ['/a/../b', 'the path has a dot segment'],
    ['/a/./b', 'the path has a dot segment'],
    ['/%2e%2E/b', 'the path has a dot segment'],
    ['/.%2e/b', 'the path has a dot segment'],
    ['/a/..;x/b', 'the path has a dot segment'],
    ['/a/..%3bx/b', 'the path has a dot segment'],
    ['/a/..%3Bx/b', 'the path has a dot segment'],
    ['/a/%2e%2e;/b', 'the path has a dot segment'],
    ['/a%2fb', 'the path has an escaped slash, backslash or NUL'],
    ['/a%5Cb', 'the path has an escaped slash, backslash or NUL'],
    ['/a%00', 'the path has an escaped slash, backslash or NUL'],
    ['/a\\b', 'the path has a character that must be escaped'],
    ['/a b', 'the path has a character that must be escaped'],
    ['/a\tb', 'the path has a character that must be escaped'],
    ['/a\u0000b', 'the path has a character that must be escaped'],
    ['/ü', 'the path has a character that must be escaped'],
    ['/a"b', 'the path has a character that must be escaped'],
    ['/a<b>', 'the path has a character that must be escaped'],
    ['/a#b', 'the path has a character that must be escaped'],
    ['/a%0d%0ab', 'the path has an escaped control character'],
    ['/a%7f', 'the path has an escaped control character'],
    ['/a%', "the path has a '%' that escapes nothing"],
    ['/a%2', "the path has a '%' that escapes nothing"],
    ['/a%zz', "the path has a '%' that escapes nothing"],
    ['/a%u0041', "the path has a '%' that escapes nothing"],
    ['/%c0%af', 'the path escapes bytes that are not UTF-8'],
    ['/%e0%80%af', 'the path escapes bytes that are not UTF-8'],
    ['/%ff', 'the path escapes bytes that are not UTF-8'],
    ['/%ed%a0%80', 'the path escapes bytes that are not UTF-8'],
  ])("of '%s' there is none: %s", (raw, fault) => {
    expect(toCanonicalPath(raw)).toEqual({ fault })
  })

  it('is its own canonical form, and readers agree on what it means', () => {
    const piece = fc.constantFrom(
      '/',
      'a',
      'B',
      '.',
      '..',
      ';',
      '%2e',
      '%2F',
      '%61',
      '%20',
      '%C3%A4',
      '%c3',
      '%25',
      '%',
      '~',
      '\\',
      ' ',
      '*',
      ':',
    )
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 12 }), (pieces) => {
        const raw = `/${pieces.join('')}`
        const canonical = toCanonicalPath(raw)
        if (typeof canonical !== 'string') return
        expect(toCanonicalPath(canonical)).toBe(canonical)
        // A browser's reader, which resolves dots, changes nothing of it.
        expect(new URL(`http://h${canonical}`).pathname).toBe(canonical)
        // One that unescapes before it resolves finds no more segments and no dots.
        const decoded = decodeURIComponent(canonical)
        expect(decoded.split('/')).toHaveLength(canonical.split('/').length)
        expect(decoded.split('/').some((segment) => /^\.{1,2}(;|$)/.test(segment))).toBe(false)
        expect(decoded).toBe(decodeURIComponent(raw))
      }),
      { numRuns: 2_000 },
    )
  })
})

describe('a request target', () => {
  it('is a path and a query as it came', () => {
    expect(readTarget('/a?b=%2f..//&c=%zz')).toEqual({ path: '/a', query: '?b=%2f..//&c=%zz' })
    expect(readTarget('/a?')).toEqual({ path: '/a', query: '?' })
    expect(readTarget('/a??b')).toEqual({ path: '/a', query: '??b' })
  })

  it.each(['/a?b c', '/a?b#c', '/a?\t', '/a?\r\nX: y', '/a?ü', '/a?\u007f'])(
    "'%s' has a query that must be escaped",
    (target) => {
      expect(readTarget(target)).toEqual({ fault: 'the query has a character that must be escaped' })
    },
  )
})

describe('a pattern', () => {
  const read = (text: string): PathPattern => {
    const pattern = readPattern(text)
    if ('fault' in pattern) throw new Error(pattern.fault)
    return pattern
  }

  it.each([
    ['/ws', '/ws', true],
    ['/ws', '/ws/', false],
    ['/ws', '/WS', false],
    ['/ws/', '/ws/', true],
    ['/ws/', '/ws', false],
    ['/api/*', '/api', true],
    ['/api/*', '/api/', true],
    ['/api/*', '/api/x/y', true],
    ['/api/*', '/apix', false],
    ['/api/*', '/', false],
    ['/*', '/', true],
    ['/*', '/x', true],
    ['/', '/', true],
    ['/', '/x', false],
  ])('%s matches %s: %s', (pattern, path, expected) => {
    expect(matchesPattern(read(pattern), path)).toBe(expected)
  })

  it('says what the router finds, whatever characters stand in it', async () => {
    const segment = fc.stringMatching(/^[a-c.+$()|^[\]*:@~!&',;=_-]{1,4}$/)
    const path = fc.array(segment, { minLength: 1, maxLength: 3 }).map((segments) => `/${segments.join('/')}`)
    const pattern = fc.tuple(path, fc.boolean()).map(([text, prefix]) => (prefix ? `${text}/*` : text))
    const row = fc.record({ path: pattern, methods: fc.constantFrom(undefined, ['GET'], ['POST']) })
    await fc.assert(
      fc.asyncProperty(
        fc.uniqueArray(row, { minLength: 1, maxLength: 6, selector: ({ path: text }) => text }),
        fc.array(path, { maxLength: 6 }),
        async (candidates, others) => {
          const rows = candidates.filter(({ path: text }) => !('fault' in readPattern(text)))
          if (rows.length === 0) return
          const routes = rows.map((one) => ({ ...one, respond: { status: 200 } }))
          const { sites } = await compileTables([{ table: { name: 't', sites: [{ hosts: ['h'], routes }] } }], {
            environment: {},
            development: false,
          })
          const own = rows.flatMap(({ path: text }) => [
            text.replace('/*', ''),
            `${text.replace('/*', '')}/x`,
            `${text.replace('/*', '')}x`,
          ])
          for (const asked of [...own, ...others, '/'].filter(
            (one) => one !== '' && typeof toCanonicalPath(one) === 'string',
          ))
            for (const method of ['GET', 'POST', 'HEAD']) {
              const found = sites[0]?.router.match(method, asked)[0].map(([route]) => route.route.path)
              const expected = sites[0]?.routes
                .filter((route) => (route.methods?.includes(method) ?? true) && matchesPattern(route.pattern, asked))
                .map((route) => route.route.path)
              expect({ asked, method, found }).toEqual({ asked, method, found: expected })
            }
        },
      ),
      { numRuns: 300 },
    )
  })
})

describe('a stripped prefix', () => {
  it.each([
    ['/api/x', '/api', '/x'],
    ['/api', '/api', '/'],
    ['/api/', '/api', '/'],
    ['/apix', '/api', '/apix'],
    ['/x/api', '/api', '/x/api'],
    ['/x', '/', '/x'],
    ['/a/b/c', '/a/b', '/c'],
  ])('of %s without %s leaves %s', (path, prefix, rest) => {
    expect(stripPrefix(path, prefix)).toBe(rest)
  })
})
