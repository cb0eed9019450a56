import { parentPort, workerData } from 'node:worker_threads'
import type { Vectors } from '../recommender/text-vectors.ts'
import { projectVectors } from './projection.ts'

/** What the thread shortens, and to what length. */
export type ProjectionWorkerData = { vectors: Vectors; dimension: number }

const { vectors, dimension }: ProjectionWorkerData = workerData
const projected = projectVectors(vectors, { dimension })
parentPort?.postMessage(projected, [projected.values.buffer as ArrayBuffer])
