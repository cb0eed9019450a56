import { once } from 'node:events'
import { availableParallelism } from 'node:os'
import { Worker } from 'node:worker_threads'
import type { AlsSettings, Side } from './als.ts'
import type { AlsTask, AlsWorkerData } from './als-worker.ts'
import type { Interactions } from './interactions.ts'
import { transpose } from './interactions.ts'
import { createRandom, normal } from './random.ts'

export type AlsModel = { users: Side; items: Side }

/** Features of the items, `count` to each, with which an item that nobody took is placed among those it is like. */
export type Features = { values: Float32Array; count: number }

type TrainOptions = {
  settings: AlsSettings
  /** Threads beside this one; as many as there are cores when absent. */
  threads?: number
  features?: Features
  /** Told after each epoch. */
  onEpoch?: (done: number, total: number) => void
}

/**
 * Trains user and item factors. The rows of a half-epoch are independent of each other, so threads share the factors
 * (SharedArrayBuffer) and take a part of the rows each; the result does not depend on how many there are. With
 * `features` the prior of an item is a ridge regression of the item factors on them, learned anew each epoch.
 */
export async function trainAls(interactions: Interactions, options: TrainOptions): Promise<AlsModel> {
  const { settings, threads = availableParallelism(), features, onEpoch = () => {} } = options
  const { dimension, epochs } = settings
  const random = createRandom(settings.seed)
  const users = makeSide(interactions.users, settings, random)
  const items = makeSide(interactions.items, settings, random)
  const priors = features && new Float32Array(new SharedArrayBuffer(4 * interactions.items * dimension))
  const workers = Array.from({ length: Math.max(1, threads) }, (_, index) =>
    startWorker({
      settings,
      users,
      items,
      byUser: share(interactions),
      byItem: share(transpose(interactions)),
      priors,
      part: index,
      parts: Math.max(1, threads),
    }),
  )
  try {
    for (let epoch = 0; epoch < epochs; epoch += 1) {
      await inAll(workers, { solve: 'users' })
      if (features && priors && epoch > 0) learnPriors(items, features, priors)
      await inAll(workers, { solve: 'items', hasPriors: features !== undefined && epoch > 0 })
      onEpoch(epoch + 1, epochs)
    }
    // Users once more, so that they fit the items they are served with.
    await inAll(workers, { solve: 'users' })
    return { users, items }
  } finally {
    await Promise.all(workers.map((worker) => worker.terminate()))
  }
}

function makeSide(count: number, { dimension, deviation }: AlsSettings, random: () => number): Side {
  const factors = new Float32Array(new SharedArrayBuffer(4 * count * dimension))
  const scale = deviation / Math.sqrt(dimension)
  for (let index = 0; index < factors.length; index += 1) factors[index] = normal(random) * scale
  return { factors, count, dimension }
}

function share(rows: Interactions): Interactions {
  const starts = new Int32Array(new SharedArrayBuffer(rows.starts.byteLength))
  const columns = new Int32Array(new SharedArrayBuffer(rows.columns.byteLength))
  starts.set(rows.starts)
  columns.set(rows.columns)
  return { ...rows, starts, columns }
}

function startWorker(workerData: AlsWorkerData): Worker {
  return new Worker(new URL('./als-worker.ts', import.meta.url), { workerData })
}

async function inAll(workers: readonly Worker[], task: AlsTask): Promise<void> {
  await Promise.all(
    workers.map((worker) => {
      worker.postMessage(task, [])
      return once(worker, 'message')
    }),
  )
}

const ridge = 10

/** B = (FᵀF + ρI)⁻¹ FᵀY, and the prior of an item its features times B. */
function learnPriors(
  { factors, count, dimension }: Side,
  { values, count: width }: Features,
  priors: Float32Array,
): void {
  const left = new Float64Array(width * width)
  const right = new Float64Array(width * dimension)
  for (let item = 0; item < count; item += 1)
    for (let i = 0; i < width; i += 1) {
      const value = values[item * width + i]!
      if (value === 0) continue
      for (let j = 0; j < width; j += 1) left[i * width + j]! += value * values[item * width + j]!
      for (let k = 0; k < dimension; k += 1) right[i * dimension + k]! += value * factors[item * dimension + k]!
    }
  for (let i = 0; i < width; i += 1) left[i * width + i]! += ridge
  solveInPlace(left, right, width, dimension)
  for (let item = 0; item < count; item += 1) {
    priors.fill(0, item * dimension, (item + 1) * dimension)
    for (let i = 0; i < width; i += 1) {
      const value = values[item * width + i]!
      if (value !== 0)
        for (let k = 0; k < dimension; k += 1) priors[item * dimension + k]! += value * right[i * dimension + k]!
    }
  }
}

/** Gauss-Jordan elimination of a symmetric positive definite matrix: `right` becomes the solution. */
function solveInPlace(left: Float64Array, right: Float64Array, n: number, m: number): void {
  for (let column = 0; column < n; column += 1) {
    const pivot = left[column * n + column]!
    for (let row = 0; row < n; row += 1) {
      if (row === column) continue
      const factor = left[row * n + column]! / pivot
      if (factor === 0) continue
      for (let k = column; k < n; k += 1) left[row * n + k]! -= factor * left[column * n + k]!
      for (let k = 0; k < m; k += 1) right[row * m + k]! -= factor * right[column * m + k]!
    }
  }
  for (let row = 0; row < n; row += 1) for (let k = 0; k < m; k += 1) right[row * m + k]! /= left[row * n + row]!
}
