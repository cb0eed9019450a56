import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Environment } from '#edge/variables.ts'
import { startOrigin } from '../support/origin.ts'
import type { Echo, Origin } from '../support/origin.ts'
import { auth } from './cases/auth.ts'
import { cache } from './cases/cache.ts'
import { edges } from './cases/edges.ts'
import { errors } from './cases/errors.ts'
import { cors } from './cases/cors.ts'
import { files } from './cases/files.ts'
import { headers } from './cases/headers.ts'
import { limits } from './cases/limits.ts'
import { logs } from './cases/logs.ts'
import { redirects } from './cases/redirects.ts'
import { routing } from './cases/routing.ts'
import { sides } from './cases/sides.ts'
import { streaming } from './cases/streaming.ts'
import { traces } from './cases/traces.ts'
import { upstreams } from './cases/upstreams.ts'
import { webSockets } from './cases/web-sockets.ts'
import type { Logbook } from './logbook.ts'
import { createTokens } from './tokens.ts'
import type { Tokens } from './tokens.ts'

/** What a gateway is to its clients: everything here holds wherever it runs. */
const groups: Record<string, Case[]> = {
  routing,
  auth,
  headers,
  'pages of other origins': cors,
  limits,
  errors,
  redirects,
  files,
  streaming,
  traces,
  upstreams,
  sides,
  cache,
  WebSockets: webSockets,
  'trusted edges': edges,
  'access log': logs,
}

export interface Case {
  /** A fact. */
  name: string
  check(world: World): Promise<void>
}

export interface World {
  target: Target
  origin: Origin
  tokens: Tokens
}

/** A place where the gateway runs. */
export interface Target {
  fetch(request: ContractRequest): Promise<ContractResponse>
  connectWebSocket(request: ContractRequest): Promise<ContractSocket>
  /** What it has written of requests. */
  logbook?: Logbook
  close(): Promise<void>
}

export interface ContractRequest {
  host: string
  /** As it is written on the wire. */
  target: string
  method?: string
  headers?: [string, string][]
  body?: string | Uint8Array | AsyncIterable<Uint8Array>
  /** The client's address. */
  from?: string
  /** Came over https. */
  secure?: boolean
  signal?: AbortSignal
}

export interface ContractResponse {
  status: number
  /** Flat. */
  headers: string[]
  /** Breaks off with an error where the answer does. */
  body: AsyncIterable<Uint8Array>
}

export interface ContractSocket {
  /** 101, or why not. */
  status: number
  protocol: string
  send(data: string | Uint8Array): void
  next(): Promise<string | Uint8Array>
  close(code?: number): void
  closed: Promise<number>
}

export interface TargetOptions {
  start(environment: Environment, origin: Origin): Promise<Target>
  /** Facts that cannot be seen there, by name or by group, and why. */
  skips?: Record<string, string>
}

export function runSuite(name: string, { start, skips = {} }: TargetOptions): void {
  describe(name, () => {
    const world = {} as World

    beforeAll(async () => {
      const [origin, tokens] = await Promise.all([startOrigin(), createTokens()])
      origin.keySet = tokens.keySet
      Object.assign(world, {
        origin,
        tokens,
        target: await start(toEnvironment(origin, tokens), origin),
      } satisfies World)
    }, 60_000)

    afterAll(async () => {
      await world.target?.close()
      await world.origin?.close()
    })

    for (const [group, cases] of Object.entries(groups))
      describe(group, () => {
        for (const { name: fact, check } of cases) {
          const reason = skips[fact] ?? skips[group]
          if (reason === undefined) it(fact, () => check(world))
          else it.skip(`${fact} — skipped: ${reason}`)
        }
      })

    it('skips only facts that there are', () => {
      const known = Object.entries(groups).flatMap(([group, cases]) => [group, ...cases.map((one) => one.name)])
      expect(Object.keys(skips).filter((skipped) => !known.includes(skipped))).toEqual([])
      expect(new Set(known).size).toBe(known.length)
    })
  })
}

/** What the variables of the tables stand for. */
export const toEnvironment = (origin: Origin, tokens: Tokens): Environment => ({
  ...tokens.environment,
  ORIGIN: origin.url,
  KEY_SET: `${origin.url}/jwks.json`,
})

/** An answer that was read to its end. */
export interface Answer {
  status: number
  headers: string[]
  text: string
  /** The value of a field; several lines are joined. */
  field(name: string): string | undefined
  json<Shape = Record<string, unknown>>(): Shape
}

export async function ask({ target }: Pick<World, 'target'>, request: ContractRequest): Promise<Answer> {
  const { status, headers: flat, body } = await target.fetch(request)
  const chunks: Uint8Array[] = []
  for await (const chunk of body) chunks.push(chunk)
  const text = Buffer.concat(chunks).toString()
  return { status, headers: flat, text, field: (name) => fieldOf(flat, name), json: () => JSON.parse(text) }
}

/** What the origin was asked. */
export async function askEcho(
  world: Pick<World, 'target'>,
  request: ContractRequest,
): Promise<Echo & { field(name: string): string | undefined }> {
  const answer = await ask(world, request)
  if (answer.status !== 200) throw new Error(`${answer.status}: ${answer.text}`)
  const echo = answer.json<Echo>()
  return { ...echo, field: (name) => fieldOf(echo.headers, name) }
}

export function fieldOf(flat: string[], name: string): string | undefined {
  const values = flat.filter((_, index) => index % 2 === 1 && flat[index - 1]?.toLowerCase() === name.toLowerCase())
  return values.length === 0 ? undefined : values.join(', ')
}

let made = 0
/** Unique in this process. */
export const nextId = (): string => `id-${process.pid}-${made++}`
