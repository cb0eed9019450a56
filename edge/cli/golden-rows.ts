import type { RawRequest } from '../exchange.ts'

/** The request of a golden row, as `test/routes/golden.test.ts` describes them. */
export interface GoldenRequest {
  raw: RawRequest
  /** How often it is asked. */
  count: number
  /** Whether the shared counters are up. */
  isCounted: boolean
  /** Whom its token is for; undefined: it has none. */
  subject: string | undefined
  flaw: string | undefined
}

/** The rows of a file: a line each, without comments and empty lines. */
export const splitGoldenRows = (text: string): string[] =>
  text.split('\n').filter((line) => line !== '' && !line.startsWith('#'))

/** Reads what stands before the arrow: "GET https://shop.example/cart [x-beta: 1] from 192.0.2.1". */
export function readGoldenRequest(text: string): GoldenRequest {
  const [, method = '', scheme = '', host = '', target = '', rest = ''] =
    /^(\S+) (\w+):\/\/([^/\s]+)(\S*)(.*)$/.exec(text) ?? []
  const [, fields = ''] = /\[(.*)\]/.exec(rest) ?? []
  const words = rest.replace(/\[.*\]/, '')
  const [, subject, flaw] = / as ([^\s,]+)(?:, (\w+))?/.exec(words) ?? []
  const headers = ['Host', host, ...fields.split('; ').flatMap((field) => field.split(/: (.*)/, 2))].filter(Boolean)
  if (scheme.startsWith('ws')) headers.push('Connection', 'Upgrade', 'Upgrade', 'websocket')
  const peer = / from (\S+)/.exec(words)?.[1] ?? '203.0.113.9'
  const raw = { method, target, version: '1.1', headers, peer, secure: scheme === 'https' || scheme === 'wss' }
  return { raw, count: Number(/ ×(\d+)/.exec(words)?.[1] ?? 1), isCounted: !/ uncounted\b/.test(words), subject, flaw }
}
