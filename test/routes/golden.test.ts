import { readdirSync, readFileSync } from 'node:fs'
import { SignJWT, UnsecuredJWT } from 'jose'
import { describe, expect, it } from 'vitest'
import { toAssetHeaders } from '#edge/actions/files.ts'
import { toClientHeaders } from '#edge/actions/headers.ts'
import { readAddress } from '#edge/address.ts'
import { readGoldenRequest, splitGoldenRows } from '#edge/cli/golden-rows.ts'
import type { GoldenRequest } from '#edge/cli/golden-rows.ts'
import { compileTables } from '#edge/compile.ts'
import type { RawRequest } from '#edge/exchange.ts'
import { decide } from '#edge/gateway.ts'
import type { Trace } from '#edge/gateway.ts'
import { createLocalLimiter } from '#edge/local-limiter.ts'
import type { Plan } from '#edge/plan.ts'
import type { Facts, Limiter } from '#edge/runtime.ts'
import { tables } from '#edge/sites/index.ts'
import type { Table } from '#edge/table.ts'
import { fillVariables, requiredVariables } from '#edge/variables.ts'

/**
 * What the tables in edge/sites say, one fact a line, each a test of its own. The files beside this one hold them:
 *
 *   METHOD URL [field: value; …] ×COUNT uncounted from ADDRESS as SUBJECT, FLAW → OUTCOME FACT=VALUE …
 *
 * Only METHOD, URL and OUTCOME must be there. The URL goes to the gateway as it is written; ws: and wss: ask for a
 * WebSocket. ×COUNT: what the last of so many requests at one moment gets. uncounted: the shared counters are down.
 * as SUBJECT: with a token that the key of the row signed; a FLAW makes it expired, forged, unsigned, nameless (for
 * nobody) or a refresh token. Lines that begin with '#' are for people.
 *
 * OUTCOME is one of
 *   proxy UPSTREAM TARGET · files ROOT PATH · redirect STATUS LOCATION · respond STATUS · refuse STATUS CODE
 *
 * Facts that are not named may be anything. A value with spaces is written in quotes, as in JSON; '-' is none.
 *   read, idle (ms), body (bytes), websocket, compress   of the plan      limit, auth    what counts, who is known to ask
 *   spa, immutable, nostore                          of a folder
 *   header:NAME, cache, says    of the answer, were it a 200          shape          of an error's body
 *   +NAME                       a field that the upstream gets
 */
const directory = new URL('.', import.meta.url)
const now = 1_700_000_000_000
const environment = Object.fromEntries(
  requiredVariables(tables).map((name) => [name, `${name} of the golden tables, 0123456789`]),
)
const compiled = await compileTables(
  tables.map((table) => ({ table })),
  { environment, development: true },
)
const decided = new Set<string>()

for (const file of readdirSync(directory).filter((name) => name.endsWith('.table')))
  describe(file, () => {
    const rows = splitGoldenRows(readFileSync(new URL(file, directory), 'utf8'))
    it.each(rows)('%s', async (line) => {
      const [asked = '', expected = ''] = line.split(' → ')
      const { outcome, facts } = readExpected(expected)
      const actual = await ask(readGoldenRequest(asked))
      const named = Object.keys(facts).map((name) => [name, actual.facts[name] ?? '-'])
      expect({ outcome: actual.outcome, facts: Object.fromEntries(named) }).toEqual({ outcome, facts })
    })
  })

it('every row of every table decides at least one line', () => {
  const rows = compiled.sites.flatMap((site) => site.routes.map((route) => `${site.hosts[0]} ${route.id}`))
  expect(rows.filter((row) => !decided.has(row))).toEqual([])
})

function readExpected(text: string): { outcome: string; facts: Record<string, string> } {
  const words = text.match(/(?:"(?:[^"\\]|\\.)*"|\S)+/g) ?? []
  const facts = words.map((word) => /^([a-z]+|header:[\w-]+|\+[\w-]+)=(.+)$/.exec(word)).filter((fact) => fact !== null)
  return {
    outcome: words.slice(0, words.length - facts.length).join(' '),
    facts: Object.fromEntries(facts.map(([, name = '', value = '']) => [name, toValue(value)])),
  }
}

const toValue = (text: string): string => (text.startsWith('"') ? JSON.parse(text) : text)

async function ask({ raw, count, isCounted, subject, flaw }: GoldenRequest): Promise<ReturnType<typeof describePlan>> {
  const facts = createFacts(isCounted ? createLocalLimiter({ now: () => now }) : uncounted)
  const token = subject === undefined ? undefined : await addToken(raw, subject, flaw)
  let plan = await decide(compiled, raw, facts)
  for (let asked = 1; asked < count; asked++) plan = await decide(compiled, raw, facts)
  const { site, route } = plan.exchange
  decided.add(`${site?.hosts[0]} ${route?.id}`)
  return describePlan(plan, token)
}

const uncounted: Limiter = {
  take: (rule) => ({ outcome: rule.whenDown === 'closed' ? 'down' : 'allowed', remaining: 0, resetAt: now }),
}

const createFacts = (limiter: Limiter): Facts => ({
  clientAddress(raw) {
    const address = readAddress(raw.peer)
    if (!address) throw new Error(`'${raw.peer}' is no address`)
    return { address, scheme: raw.secure ? 'https' : 'http' }
  },
  isEdge: false,
  limiter,
  fetchText: () => Promise.reject(new Error('there is no network here')),
  now: () => now,
  monotonic: () => 0,
  randomId: () => 'golden',
})

/** Puts a token where the row that answers looks for it. */
async function addToken(raw: RawRequest, subject: string, flaw: string | undefined): Promise<string> {
  const trace: Trace = { candidates: [], verdicts: [] }
  await decide(compiled, raw, createFacts(uncounted), trace)
  const row = trace.candidates.at(-1)?.route
  if (!row?.route.auth) throw new Error('the row asks for no token')
  const { jwt, from = 'bearer' } = row.route.auth
  const { keys = {} }: Table = tables.find((table) => table.name === row.table) ?? { name: '', sites: [] }
  const secret = flaw === 'forged' ? 'another secret, which nobody gave the gateway' : keys[jwt]?.secret
  const token = await mint(String(fillVariables(secret, environment, () => {})), subject, flaw)
  const source = [from].flat()[0]
  if (typeof source === 'object' && 'query' in source)
    raw.target += `${raw.target.includes('?') ? '&' : '?'}${source.query}=${token}`
  else if (typeof source === 'object') raw.headers.push('Cookie', `${source.cookie}=${token}`)
  else raw.headers.push('Authorization', `Bearer ${token}`)
  return token
}

function mint(secret: string, subject: string, flaw: string | undefined): string | Promise<string> {
  const ends = now / 1_000 + (flaw === 'expired' ? -3_600 : 3_600)
  if (flaw === 'unsigned') return new UnsecuredJWT({}).setSubject(subject).setExpirationTime(ends).encode()
  const claims = { ...(flaw !== 'nameless' && { sub: subject }), ...(flaw === 'refresh' && { type: 'refresh' }) }
  const token = new SignJWT(claims).setProtectedHeader({ alg: 'HS256' }).setExpirationTime(ends)
  return token.sign(new TextEncoder().encode(secret))
}

function describePlan(plan: Plan, token = ''): { outcome: string; facts: Record<string, string | undefined> } {
  const { route, identity } = plan.exchange
  const headers =
    plan.kind === 'answer' ? plan.headers : toClientHeaders(plan.exchange, plan.response, 200, toReceived(plan))
  const facts = {
    limit:
      route?.policies
        .filter(({ name }) => name === 'limit')
        .map((policy) => policy.describe)
        .join(', ') || undefined,
    auth: identity?.subject,
    body: String(route?.bodyBytesMax),
    ...toFacts('header:', headers),
    cache: toFacts('', headers)['cache-control'],
  }
  if (plan.kind === 'answer')
    return { outcome: describeAnswer(plan), facts: { ...facts, says: plan.body, shape: toShape(plan.body) } }
  if (plan.kind === 'files') {
    const { root, spa, immutable, noStore } = plan.files
    const folder = {
      spa: String(spa),
      immutable: [...immutable].join(' ') || undefined,
      nostore: [...noStore].join(' '),
    }
    return { outcome: `files ${root} ${plan.path}`, facts: { ...facts, ...folder } }
  }
  const { readTimeoutMs, idleMs, websocket, compress } = plan
  const proxy = {
    read: String(readTimeoutMs),
    idle: String(idleMs),
    websocket: String(websocket),
    compress: String(compress),
    ...toFacts('+', plan.headers),
  }
  return {
    outcome: `proxy ${plan.upstream.name} ${plan.target.replace(token || '…', '…')}`,
    facts: { ...facts, ...proxy },
  }
}

/** What an upstream or a folder would add: of an upstream nothing is known; a path without an ending is a page. */
function toReceived(plan: Exclude<Plan, { kind: 'answer' }>): string[] {
  if (plan.kind === 'proxy') return []
  return toAssetHeaders(plan.files, /\.\w+$/.test(plan.path) ? plan.path : '/index.html')
}

function describeAnswer({ status, headers, refusal }: Extract<Plan, { kind: 'answer' }>): string {
  if (refusal) return `refuse ${status} ${refusal.code}`
  const { location } = toFacts('', headers)
  return location === undefined ? `respond ${status}` : `redirect ${status} ${location}`
}

/** Which of the four shapes an error's body has, by the keys that clients look for. */
function toShape(body: string): string {
  if (!body.startsWith('{')) return 'none'
  const has = (...keys: string[]): boolean => keys.every((key) => key in JSON.parse(body))
  if (has('message', 'error', 'statusCode')) return 'nest'
  if (has('title', 'status')) return 'problem'
  return has('detail', 'error') ? 'drf' : has('detail') ? 'fastapi' : 'none'
}

function toFacts(prefix: string, headers: string[]): Record<string, string> {
  const names = headers.filter((_, index) => index % 2 === 0)
  return Object.fromEntries(
    names.map((name, index) => [`${prefix}${name.toLowerCase()}`, headers[index * 2 + 1] ?? '']),
  )
}
