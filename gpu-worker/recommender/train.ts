import { Worker } from 'node:worker_threads'
import type { Sql } from '#origin/kit/database.ts'
import type { AlsSettings } from './als.ts'
import { alsDefaults } from './als.ts'
import type { Learned } from './learn.ts'
import type { LearnMessage, LearnWorkerData } from './learn-worker.ts'
import { addModel, readFilms, readHistories } from './store.ts'

export type TrainOptions = {
  settings?: AlsSettings
  threads?: number
  /** Made-up viewers to learn from beside the real ones, while those are few; they are not kept. */
  generatedUsers?: number
  onProgress?: (what: string, share: number) => void
  signal?: AbortSignal
}

/** What was trained: the version that serves from now on, and what it learned from. */
type Trained = {
  version: number
  films: number
  viewers: number
  generated: number
  interactions: number
  seconds: number
}

/**
 * Learns from what viewers named and played, in a thread of its own, and keeps the result as the newest model. Throws
 * when the catalogue is empty, and the signal's reason when it is stopped.
 */
export async function train(sql: Sql, options: TrainOptions = {}): Promise<Trained> {
  const { settings = alsDefaults, threads, generatedUsers = 1_000, onProgress = () => {}, signal } = options
  const startedAt = performance.now()
  const films = await readFilms(sql)
  if (films.length === 0) throw new Error('There is no film in the catalogue; load it with: npm run moviesir -- seed')
  const histories = await readHistories(sql)
  const data = { films, histories, options: { settings, threads, generatedUsers } }
  const { model, interactions } = await learnInThread(data, onProgress, signal)
  const version = await addModel(sql, model, interactions)
  const seconds = Math.round(performance.now() - startedAt) / 1_000
  return { version, films: films.length, viewers: histories.length, generated: generatedUsers, interactions, seconds }
}

async function learnInThread(
  workerData: LearnWorkerData,
  onProgress: NonNullable<TrainOptions['onProgress']>,
  signal: AbortSignal | undefined,
): Promise<Learned> {
  const worker = new Worker(new URL('./learn-worker.ts', import.meta.url), { workerData })
  const { promise, resolve, reject } = Promise.withResolvers<Learned>()
  worker.on('message', (message: LearnMessage) => {
    if (message.kind === 'progress') onProgress(message.what, message.share)
    else resolve(message.learned)
  })
  // Also after the end: a thread that is ended in the middle of its work may still say that it was.
  worker.on('error', reject)
  worker.once('exit', () => reject(new Error('the training stopped by itself')))
  const abort = () => reject(signal?.reason)
  signal?.addEventListener('abort', abort)
  try {
    signal?.throwIfAborted()
    return await promise
  } finally {
    signal?.removeEventListener('abort', abort)
    await worker.terminate()
  }
}
