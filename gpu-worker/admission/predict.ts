import type { Generation } from '../requests/generation.ts'

/** What was learned of a provider, to say what a request will cost before it is made. Times are milliseconds. */
export interface Predictor {
  promptTokens(generation: Generation): number
  /** From the slot to the first token, or to the whole answer. */
  serviceMs(promptTokens: number, generation: Generation): number
  /** The usual time between two tokens. */
  gapMs(): number
  learnPrompt(generation: Generation, tokens: number): void
  learnTimes(times: { firstMs: number; totalMs: number; promptTokens: number; outputTokens: number }): void
}

/** Of each new value; old ones fade. */
const weight = 0.1

/** Starts with what an 8B model does on a middling card; every answer corrects it. */
export function createPredictor(): Predictor {
  let tokensPerNarrow = 1 / 4
  let tokensPerWide = 1 / 1.5
  let overheadMs = 20
  let prefillMs = 0.2
  let gapMs = 20
  let outputTokens = 128
  /** How far off predictions of whole answers are, on the mean. */
  let offMs = 0
  let learned = 0

  const mix = (old: number, value: number): number => old + (value - old) * (learned < 10 ? 0.5 : weight)

  return {
    promptTokens: ({ characters: { narrow, wide } }) =>
      Math.max(1, Math.ceil(narrow * tokensPerNarrow + wide * tokensPerWide)),
    serviceMs(promptTokens, { stream, outputTokensMax }) {
      const firstMs = overheadMs + promptTokens * prefillMs
      // What comes whole must come in time: better sure than sorry, by twice the mean error.
      return stream ? firstMs : firstMs + Math.min(outputTokens, outputTokensMax) * gapMs + 2 * offMs
    },
    gapMs: () => gapMs,
    learnPrompt({ characters: { narrow, wide } }, tokens) {
      const predicted = narrow * tokensPerNarrow + wide * tokensPerWide
      if (predicted <= 0 || tokens <= 0) return
      // Whichever script prevails is corrected; a wild answer moves it by half at most.
      const factor = Math.min(2, Math.max(0.5, tokens / predicted))
      if (narrow >= wide) tokensPerNarrow = mix(tokensPerNarrow, tokensPerNarrow * factor)
      else tokensPerWide = mix(tokensPerWide, tokensPerWide * factor)
    },
    learnTimes({ firstMs, totalMs, promptTokens, outputTokens: output }) {
      const predicted = overheadMs + promptTokens * prefillMs + Math.min(outputTokens, output) * gapMs
      if (learned > 0) offMs = mix(offMs, Math.abs(totalMs - predicted))
      // Half to the fixed part, half to the part per token, so that both follow.
      const error = firstMs - overheadMs - promptTokens * prefillMs
      overheadMs = Math.max(0, mix(overheadMs, overheadMs + error / 2))
      prefillMs = Math.max(0, mix(prefillMs, prefillMs + error / 2 / Math.max(1, promptTokens)))
      if (output > 1) gapMs = mix(gapMs, (totalMs - firstMs) / (output - 1))
      outputTokens = mix(outputTokens, output)
      learned++
    },
  }
}
