import { z } from '@hono/zod-openapi'
import { toInstant } from './instant.ts'

/** Text of `min` to `max` characters as PostgreSQL counts them, without NUL or broken surrogates. */
export function text({ min = 0, max }: { min?: number; max: number }) {
  return z
    .string()
    .refine(isStorable, { message: 'String should be text without NUL characters', params: { type: 'string_unicode' } })
    .refine((value) => characters(value) >= min, {
      message: `String should have at least ${min} character${min === 1 ? '' : 's'}`,
      params: { type: 'string_too_short' },
    })
    .refine((value) => characters(value) <= max, {
      message: `String should have at most ${max} characters`,
      params: { type: 'string_too_long' },
    })
    .openapi({ ...(min > 0 && { minLength: min }), maxLength: max })
}

/** A whole number that fits a PostgreSQL integer. */
export const int32 = z.int().min(-2_147_483_648).max(2_147_483_647)

/** A time in ISO 8601 with any offset (none means UTC), turned into UTC with `Z`. */
export const instant = z
  .string()
  .transform((value, context) => {
    const utc = toInstant(value)
    if (utc === undefined)
      context.addIssue({
        code: 'custom',
        message: 'Input should be a valid datetime',
        params: { type: 'datetime_parsing' },
      })
    return utc ?? z.NEVER
  })
  .openapi({ format: 'date-time', example: '2026-01-31T09:30:00Z' })

/** A time as this server writes it. */
export const instantOut = z.string().openapi({ format: 'date-time', example: '2026-01-31T09:30:00Z' })

/** An identifier the client may make itself; lower case from here on. */
export const uuid = z
  .guid()
  .transform((value) => value.toLowerCase())
  .openapi({ format: 'uuid' })

const jsonBytesMax = 16_384
const jsonDepthMax = 32

/** Any JSON value of at most 16 KiB, 32 levels deep, that JSONB can hold. */
export const json = z
  .unknown()
  .refine(isStorableJson, {
    message: `Input should be JSON of at most ${jsonBytesMax} bytes and ${jsonDepthMax} levels, without NUL characters`,
    params: { type: 'json_invalid' },
  })
  .openapi({ description: 'any JSON value', example: 120 })

function characters(value: string): number {
  return value.length <= 1 ? value.length : [...value].length
}

function isStorable(value: string): boolean {
  return !value.includes('\0') && value.isWellFormed()
}

function isStorableJson(value: unknown): boolean {
  return isShallow(value) && Buffer.byteLength(JSON.stringify(value) ?? '') <= jsonBytesMax && hasStorableLeaves(value)
}

// Level by level instead of by recursion: a hostile value may be deeper than the stack.
function isShallow(value: unknown): boolean {
  let level = [value]
  for (let depth = 0; depth <= jsonDepthMax; depth += 1) {
    level = level.flatMap(childrenOf)
    if (level.length === 0) return true
  }
  return false
}

function childrenOf(value: unknown): unknown[] {
  return typeof value === 'object' && value !== null ? Object.values(value) : []
}

function hasStorableLeaves(value: unknown): boolean {
  if (typeof value === 'string') return isStorable(value)
  if (typeof value === 'number') return Number.isFinite(value)
  if (typeof value !== 'object' || value === null) return true
  return Object.entries(value).every(([key, child]) => isStorable(key) && hasStorableLeaves(child))
}
