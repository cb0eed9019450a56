import { limits } from '../limits.ts'

/** At the end of every step of the history, by the clock on the wall. */
export function everyStep(take: () => void): () => void {
  const toNext = (): number => limits.historyStepMs - (Date.now() % limits.historyStepMs)
  let timer = setTimeout(function again() {
    take()
    timer = setTimeout(again, toNext()).unref()
  }, toNext()).unref()
  return () => clearTimeout(timer)
}
