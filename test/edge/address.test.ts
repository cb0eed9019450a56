import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { isInNetwork, readAddress, readNetwork, walkHops } from '#edge/address.ts'
import type { Address, Network } from '#edge/address.ts'
import { createNodeFacts } from '#edge/node/runtime.ts'

function address(text: string): Address {
  const read = readAddress(text)
  if (!read) throw new Error(`'${text}' is no address`)
  return read
}

function networks(...texts: string[]): Network[] {
  return texts.map((text) => {
    const read = readNetwork(text)
    if (!read) throw new Error(`'${text}' is no network`)
    return read
  })
}

describe('an address', () => {
  it.each([
    ['203.0.113.7', '203.0.113.7', '203.0.113.7'],
    ['::ffff:203.0.113.7', '203.0.113.7', '203.0.113.7'],
    ['::FFFF:cb00:7107', '203.0.113.7', '203.0.113.7'],
    ['0:0:0:0:0:ffff:203.0.113.7', '203.0.113.7', '203.0.113.7'],
    ['::1', '::1', '::/64'],
    ['::', '::', '::/64'],
    ['2001:DB8:0:0:8:800:200C:417A', '2001:db8::8:800:200c:417a', '2001:db8::/64'],
    ['2001:0db8:0001:0002:0003:0004:0005:0006', '2001:db8:1:2:3:4:5:6', '2001:db8:1:2::/64'],
    ['fe80::1%eth0', 'fe80::1', 'fe80::/64'],
    ['1:0:0:2:0:0:0:3', '1:0:0:2::3', '1:0:0:2::/64'],
    ['1:0:0:2:3:0:0:4', '1::2:3:0:0:4', '1:0:0:2::/64'],
    ['1:2:3:4:5:6:7::', '1:2:3:4:5:6:7:0', '1:2:3:4::/64'],
    ['64:ff9b::192.0.2.1', '64:ff9b::c000:201', '64:ff9b::/64'],
  ])('%s is %s, counted with %s', (text, canonical, bucket) => {
    expect(address(text)).toMatchObject({ text: canonical, bucket })
  })

  it.each([
    '',
    ' 1.2.3.4',
    '1.2.3',
    '1.2.3.4.5',
    '256.1.1.1',
    '01.2.3.4',
    '0x7f.0.0.1',
    '2130706433',
    '1.2.3.4:80',
    '1.2.3.-4',
    '[::1]',
    ':',
    ':::',
    '1:::2',
    '1::2::3',
    '1:2:3:4:5:6:7',
    '1:2:3:4:5:6:7:8:9',
    '1:2:3:4:5:6:7:8::',
    '12345::',
    'g::',
    '::1.2.3',
    '::1.2.3.256',
    '1.2.3.4::',
    'unknown',
    '_hidden',
    'localhost',
    '١.٢.٣.٤',
  ])("'%s' is none", (text) => {
    expect(readAddress(text)).toBeNull()
  })

  it('has one text, whatever its spelling', () => {
    const group = fc.integer({ min: 0, max: 0xffff })
    fc.assert(
      fc.property(fc.array(group, { minLength: 8, maxLength: 8 }), fc.boolean(), (groups, upper) => {
        const long = groups.map((one) => one.toString(16).padStart(4, '0')).join(':')
        const read = address(upper ? long.toUpperCase() : long)
        expect(read.groups).toEqual(groups)
        expect(address(read.text)).toEqual(read)
        expect(readAddress(new URL(`http://[${long}]`).hostname.slice(1, -1))).toEqual(read)
      }),
    )
  })
})

describe('a network', () => {
  it.each([
    ['10.0.0.0/8', '10.255.0.1', true],
    ['10.0.0.0/8', '11.0.0.0', false],
    ['10.0.0.0/8', '::ffff:10.1.2.3', true],
    ['::ffff:10.0.0.0/104', '10.1.2.3', true],
    ['192.168.1.128/25', '192.168.1.127', false],
    ['192.168.1.128/25', '192.168.1.128', true],
    ['127.0.0.1', '127.0.0.1', true],
    ['127.0.0.1', '127.0.0.2', false],
    ['0.0.0.0/0', '8.8.8.8', true],
    ['0.0.0.0/0', '2001:db8::1', false],
    ['::/0', '2001:db8::1', true],
    ['2001:db8::/33', '2001:db8:7fff::1', true],
    ['2001:db8::/33', '2001:db8:8000::1', false],
    ['fd00::/8', 'fdff::1', true],
    ['::1', '::1', true],
    ['::1', '::2', false],
  ])('%s has %s in it: %s', (network, text, expected) => {
    expect(isInNetwork(address(text), networks(network)[0] as Network)).toBe(expected)
  })

  it.each([
    '10.0.0.0/33',
    '10.0.0.0/',
    '10.0.0.0/-1',
    '10.0.0.0/8/9',
    '10.0.0.0/0x8',
    '10/8',
    '::/129',
    '/8',
    '10.0.0.0/8 ',
  ])("'%s' is none", (text) => {
    expect(readNetwork(text)).toBeNull()
  })
})

describe('the walk over trusted hops', () => {
  const trusted = networks('10.0.0.0/8', '127.0.0.1', 'fd00::/8')
  const walk = (peer: string, forwardedFor: string, hops = trusted): string =>
    walkHops(address(peer), forwardedFor, hops).text

  it.each([
    ['begins at the peer', '203.0.113.7', '', '203.0.113.7'],
    ['ignores what a stranger says', '203.0.113.7', '1.1.1.1', '203.0.113.7'],
    ['takes the last address from a trusted peer', '10.0.0.1', '203.0.113.7', '203.0.113.7'],
    [
      'goes from the right: what stands left of a stranger is his word',
      '10.0.0.1',
      '1.1.1.1, 203.0.113.7',
      '203.0.113.7',
    ],
    ['goes on over trusted hops', '10.0.0.1', '1.1.1.1, 203.0.113.7, 10.0.0.3,10.0.0.2', '203.0.113.7'],
    ['goes over hops of both families', '::ffff:127.0.0.1', '203.0.113.7, fd00::5, ::ffff:10.0.0.9', '203.0.113.7'],
    ['ends at the leftmost when all are trusted', '10.0.0.1', '10.0.0.3, 10.0.0.2', '10.0.0.3'],
    ['takes an address with its port', '10.0.0.1', '203.0.113.7:40000, 10.0.0.2:80', '203.0.113.7'],
    ['takes one in brackets', '10.0.0.1', '[2001:db8::7]:40000, [fd00::5]', '2001:db8::7'],
    ['stops at what is no address', '10.0.0.1', '203.0.113.7, unknown, 10.0.0.2', '10.0.0.2'],
    ['stops at an empty item', '10.0.0.1', '203.0.113.7,,10.0.0.2', '10.0.0.2'],
    ['takes nothing from an empty field', '10.0.0.1', ' ', '10.0.0.1'],
  ])('%s', (_name, peer, forwardedFor, client) => {
    expect(walk(peer, forwardedFor)).toBe(client)
  })

  it('believes nobody when no hop is trusted', () => {
    expect(walk('127.0.0.1', '1.1.1.1', [])).toBe('127.0.0.1')
  })

  it('lets no client choose its address: whatever it sends stands left of the true one', () => {
    fc.assert(
      fc.property(fc.string(), (sent) => {
        expect(walk('10.0.0.1', `${sent}, 203.0.113.7`)).toBe('203.0.113.7')
      }),
    )
  })
})

describe('the client on Node', () => {
  const limiter = { take: () => ({ outcome: 'allowed', remaining: 1, resetAt: 0 }) as const }
  const raw = { method: 'GET', target: '/', version: '1.1', headers: [], secure: false }
  const ask = (peer: string, forwardedFor: string, forwardedProto: string, hops: string[]) => {
    const fields = { forwardedFor, forwardedProto } as Parameters<
      ReturnType<typeof createNodeFacts>['clientAddress']
    >[1]
    const { address: client, scheme } = createNodeFacts({ limiter, trustedHops: networks(...hops) }).clientAddress(
      { ...raw, peer },
      fields,
    )
    return [client.text, scheme]
  }

  it('is the peer, however it presents itself', () => {
    expect(ask('::ffff:203.0.113.7', '1.1.1.1', 'https', [])).toEqual(['203.0.113.7', 'http'])
    expect(ask('203.0.113.7', '1.1.1.1', 'https', ['10.0.0.0/8'])).toEqual(['203.0.113.7', 'http'])
  })

  it('is who a trusted hop says it is, over the scheme that it says', () => {
    expect(ask('10.0.0.1', '203.0.113.7', 'HTTPS', ['10.0.0.0/8'])).toEqual(['203.0.113.7', 'https'])
    expect(ask('10.0.0.1', '203.0.113.7', 'gopher', ['10.0.0.0/8'])).toEqual(['203.0.113.7', 'http'])
  })

  it('is nowhere when the peer is gone', () => {
    expect(ask('', '1.1.1.1', '', ['10.0.0.0/8'])).toEqual(['0.0.0.0', 'http'])
  })
})
