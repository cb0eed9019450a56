import { parentPort, workerData } from 'node:worker_threads'
import type { Film } from './film.ts'
import type { Learned, LearnOptions } from './learn.ts'
import { learn } from './learn.ts'

/** What the thread learns from. */
export type LearnWorkerData = { films: Film[]; histories: number[][]; options: LearnOptions }

/** What the thread says. */
export type LearnMessage = { kind: 'progress'; what: string; share: number } | { kind: 'learned'; learned: Learned }

const { films, histories, options }: LearnWorkerData = workerData
const onProgress = (what: string, share: number) => say({ kind: 'progress', what, share })
say({ kind: 'learned', learned: await learn(films, histories, { ...options, onProgress }) })

function say(message: LearnMessage): void {
  parentPort?.postMessage(message, [])
}
