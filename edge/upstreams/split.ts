import type { CompiledSide, CompiledSplit } from '../compile.ts'
import { fieldValue } from '../exchange.ts'
import type { Exchange } from '../exchange.ts'
import { hashText, readCookie } from './balance.ts'

/** The side that a request goes to. */
export interface SideChoice {
  split: CompiledSplit
  index: number
  /** The request named it: it says nothing of how the side does for others. */
  forced: boolean
}

/**
 * Chooses a side by the weights of this moment. A client that is kept on its side carries a number from 0 to 9,999, not
 * the side's name: when a side's share grows only as many clients move as it grows by, and none ever moves back.
 */
export function chooseSide(split: CompiledSplit, exchange: Exchange, weights: readonly number[]): SideChoice {
  const { force } = split
  const named = force === undefined ? undefined : fieldValue(exchange.headers, force)
  const index = named === undefined ? -1 : split.sides.findIndex(({ name }) => name === named)
  if (index === -1) return { split, index: sideAt(draw(split, exchange), weights), forced: false }
  exchange.answerHeaders.push(force as string, named as string)
  return { split, index, forced: true }
}

/** Takes back what was said to the client of the choice: whoever is asked next makes it, and says so. */
export function dropSideFields(exchange: Exchange, { force, sticky }: CompiledSplit): void {
  const { answerHeaders } = exchange
  exchange.answerHeaders = []
  for (let i = 0; i < answerHeaders.length; i += 2) {
    const [name = '', value = ''] = answerHeaders.slice(i, i + 2)
    const isCookie = sticky !== undefined && name === 'Set-Cookie' && value.startsWith(`${sticky.cookie}=`)
    if (!isCookie && name !== force) exchange.answerHeaders.push(name, value)
  }
}

/** From 0 up to 1: the client's number, or one that is as good as random. */
function draw({ sticky }: CompiledSplit, exchange: Exchange): number {
  const random = hashText(exchange.requestId) / 2 ** 32
  if (!sticky) return random
  const kept = readCookie(exchange, sticky.cookie)
  if (kept !== undefined && /^\d{4}$/.test(kept)) return Number(kept) / draws
  const number = Math.floor(random * draws)
  exchange.answerHeaders.push('Set-Cookie', toCookie(sticky, String(number).padStart(4, '0'), exchange.scheme))
  return number / draws
}

const draws = 10_000

const toCookie = (
  { cookie, maxAgeSeconds }: NonNullable<CompiledSplit['sticky']>,
  value: string,
  scheme: Exchange['scheme'],
): string =>
  `${cookie}=${value}; Path=/; Max-Age=${maxAgeSeconds}; HttpOnly; SameSite=Lax${scheme === 'https' ? '; Secure' : ''}`

/** The sides lie one behind another, each as long as its share. */
function sideAt(drawn: number, weights: readonly number[]): number {
  const total = weights.reduce((sum, weight) => sum + weight, 0)
  let left = drawn * total
  let last = 0
  for (const [index, weight] of weights.entries()) {
    if (weight === 0) continue
    last = index
    left -= weight
    if (left < 0) return index
  }
  return last
}

export const tableWeights = ({ sides }: CompiledSplit): number[] => sides.map(({ weight }) => weight)

/** 'blue 90, green 10'. */
export const describeWeights = (sides: readonly Pick<CompiledSide, 'name'>[], weights: readonly number[]): string =>
  sides.map(({ name }, index) => `${name} ${weights[index] ?? 0}`).join(', ')
