import { parentPort, workerData } from 'node:worker_threads'
import type { AlsSettings, Side } from './als.ts'
import { createSolver, gramOf } from './als.ts'
import type { Interactions } from './interactions.ts'
import { rowOf } from './interactions.ts'

/** What a thread shares with the others: everything but which part of the rows is its own. */
export type AlsWorkerData = {
  settings: AlsSettings
  users: Side
  items: Side
  byUser: Interactions
  byItem: Interactions
  priors: Float32Array | undefined
  part: number
  parts: number
}

export type AlsTask = { solve: 'users' } | { solve: 'items'; hasPriors: boolean }

const { settings, users, items, byUser, byItem, priors, part, parts }: AlsWorkerData = workerData
const { dimension } = settings

parentPort?.on('message', (task: AlsTask) => {
  if (task.solve === 'users') solveRows(users, items, byUser)
  else solveRows(items, users, byItem, task.hasPriors ? priors : undefined)
  parentPort?.postMessage('done', [])
})

// Every parts-th row: long and short ones spread evenly.
function solveRows(own: Side, other: Side, rows: Interactions, rowPriors?: Float32Array): void {
  const solver = createSolver(other, gramOf(other), settings)
  for (let row = part; row < own.count; row += parts) {
    const at = row * dimension
    solver.solve(own.factors, at, rowOf(rows, row), rowPriors?.subarray(at, at + dimension))
  }
}
