import type { Limits } from '../limits.ts'

/**
 * What is wrong with a schema for structured output, if anything. vLLM compiles grammars without a time limit, and some
 * schemas take exponential time or end its engine: they are bounded here in bytes, depth, nodes, and how deep choices
 * stand inside choices; patterns in length and without repetition of a repetition.
 */
export function findSchemaFault(schema: unknown, limits: Limits): string | undefined {
  if (typeof schema === 'string') return findPatternFault(schema, limits)
  if (typeof schema !== 'object' || schema === null) return undefined
  if (Buffer.byteLength(JSON.stringify(schema)) > limits.schemaBytesMax)
    return `is larger than ${limits.schemaBytesMax} bytes`
  // A list instead of recursion: a hostile schema may be deeper than the stack.
  const left: Node[] = [{ value: schema, depth: 0, branches: 0 }]
  for (let seen = 0; left.length > 0; seen++) {
    if (seen > limits.schemaNodesMax) return `has more than ${limits.schemaNodesMax} parts`
    const { value, depth, branches } = left.pop() as Node
    if (depth > limits.schemaDepthMax * 2) return `is deeper than ${limits.schemaDepthMax} levels`
    if (branches > limits.schemaBranchDepthMax)
      return `has oneOf, anyOf or allOf more than ${limits.schemaBranchDepthMax} deep inside each other`
    for (const [key, child] of Object.entries(value)) {
      if (key === 'pattern' && typeof child === 'string') {
        const fault = findPatternFault(child, limits)
        if (fault) return fault
      }
      if (typeof child === 'object' && child !== null)
        left.push({ value: child, depth: depth + 1, branches: branches + (branchWords.has(key) ? 1 : 0) })
    }
  }
  return undefined
}

type Node = { value: object; depth: number; branches: number }

const branchWords = new Set(['oneOf', 'anyOf', 'allOf'])

function findPatternFault(pattern: string, { schemaPatternLengthMax }: Limits): string | undefined {
  if (pattern.length > schemaPatternLengthMax) return `has a pattern of more than ${schemaPatternLengthMax} characters`
  if (/[+*}]\)[+*{]/.test(pattern)) return 'has a pattern that repeats a repetition'
  const counts = [...pattern.matchAll(/\{(\d+)(?:,(\d*))?\}/g)].map(([, from, to]) => Number(to || from))
  return counts.some((count) => count > 1_000) ? 'has a pattern that repeats more than 1000 times' : undefined
}
