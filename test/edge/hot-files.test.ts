import { appendFileSync, mkdtempSync, realpathSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, it, vi } from 'vitest'
import { limits } from '#edge/limits.ts'
import { holdSoon, loadAsset, release } from '#edge/node/asset.ts'
import type { Asset, Memory } from '#edge/node/asset.ts'

/** Large files that are asked for again and again. */
const root = realpathSync(mkdtempSync(join(tmpdir(), 'daemun-hot-')))
afterAll(() => rmSync(root, { recursive: true }))

const size = limits.assetBytesMax + 1
const budget = 10_000_000

function load(name: string, bytes = size): { asset: Asset; memory: Memory } {
  writeFileSync(join(root, name), 'x'.repeat(bytes))
  const memory = { left: budget }
  const asset = loadAsset(root, `/${name}`, undefined, memory)
  if (!asset) throw new Error('there is no such file')
  expect(asset.own.body).toBeUndefined()
  return { asset, memory }
}

function ask(asset: Asset, memory: Memory, times: number): void {
  for (let i = 0; i < times; i++) holdSoon(asset, asset.own, memory)
}

it('asked for three times, it is held, and given back when it is replaced', async () => {
  const { asset, memory } = load('hot.bin')
  ask(asset, memory, 2)
  expect(memory.left).toBe(budget)
  ask(asset, memory, 5)
  await vi.waitFor(() => expect(asset.own.body).toHaveLength(size))
  expect(memory.left).toBe(budget - size)
  release(asset, memory)
  expect(memory.left).toBe(budget)
})

it('it is not held when it was replaced while it was read', async () => {
  const { asset, memory } = load('replaced.bin')
  ask(asset, memory, 3)
  expect(memory.left).toBe(budget - size)
  release(asset, memory)
  await vi.waitFor(() => expect(memory.left).toBe(budget))
  expect(asset.own.body).toBeUndefined()
})

it.each([
  ['changed', () => appendFileSync(join(root, 'lost.bin'), 'y')],
  ['gone', () => rmSync(join(root, 'lost.bin'))],
])('nor when it is %s', async (_name, change) => {
  const { asset, memory } = load('lost.bin')
  change()
  ask(asset, memory, 3)
  await vi.waitFor(() => expect(memory.left).toBe(budget))
  expect(asset.own.body).toBeUndefined()
})

it('there must be room for it', () => {
  const { asset } = load('wide.bin')
  const memory = { left: size - 1 }
  ask(asset, memory, 3)
  expect(memory.left).toBe(size - 1)
})
