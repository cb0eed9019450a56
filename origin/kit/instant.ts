const ISO_8601 = /^(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?)\s?([Zz]|[+-]\d\d(?::?\d\d)?)?$/
const FOUR_DIGIT_YEAR = /^(?!0000)\d{4}-/

/**
 * An instant as the API writes it: UTC with `Z`, microseconds kept, no idle zeros. Accepts ISO 8601 with any
 * offset; without one the time is UTC, as the clients have always meant it. Anything else is undefined.
 */
export function toInstant(text: string): string | undefined {
  const [, day, time, offset = 'Z'] = ISO_8601.exec(text) ?? []
  if (!day || !time) return undefined
  try {
    const instant = Temporal.Instant.from(`${day}T${time}${offset}`)
    const utc = instant.round({ smallestUnit: 'microsecond', roundingMode: 'floor' }).toString()
    return FOUR_DIGIT_YEAR.test(utc) ? utc : undefined
  } catch {
    return undefined
  }
}

/** Whole seconds from one instant to another, rounded down; negative when the second is earlier. */
export function secondsBetween(start: string, end: string): number {
  const seconds = Temporal.Instant.from(start).until(end).round({ smallestUnit: 'second', roundingMode: 'floor' })
  return seconds.total('seconds')
}
