import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createBudget } from '#gpu-worker/admission/budget.ts'
import { createSharedBudget } from '#gpu-worker/admission/shared-budget.ts'
import type { SharedBudget } from '#gpu-worker/admission/shared-budget.ts'
import { WorkerError } from '#gpu-worker/error.ts'
import { limits } from '#gpu-worker/limits.ts'
import type { PrivateRedis } from '../support/redis.ts'
import { noPrivateRedis, startPrivateRedis } from '../support/redis.ts'

describe.skipIf(noPrivateRedis)(`a budget that workers share in Redis ${noPrivateRedis ?? ''}`, () => {
  let redis: PrivateRedis
  let budgets: SharedBudget[]
  let now = 1_800_000_000_000
  const entries: Record<string, unknown>[] = []
  beforeAll(async () => {
    redis = await startPrivateRedis()
    budgets = [1, 2].map(() => {
      const local = createBudget({ tokensPerMinute: 1_000, limits, now: () => now })
      const log = (entry: Record<string, unknown>): void => void entries.push(entry)
      return createSharedBudget({
        url: redis.url,
        prefix: redis.prefix,
        tokensPerMinute: 1_000,
        local,
        limits,
        now: () => now,
        log,
      })
    })
    await Promise.all(budgets.map(({ ready }) => ready))
  })
  afterAll(async () => {
    for (const budget of budgets) budget.close()
    await redis.stop()
  })
  const reserve = (worker: number, tenant: string, tokens: number) =>
    (budgets[worker] as SharedBudget).reserve(tenant, tokens)
  const take = async (worker: number, tenant: string, tokens: number) => {
    const lease = await reserve(worker, tenant, tokens)
    if (lease instanceof WorkerError) throw lease
    return lease
  }

  it('is not overdrawn by a hundred requests at once to two of them', async () => {
    const taken = await Promise.all(Array.from({ length: 100 }, (_, index) => reserve(index % 2, 'a', 300)))
    expect(taken.filter((lease) => !(lease instanceof WorkerError))).toHaveLength(3)
    expect(taken.find((lease) => lease instanceof WorkerError)).toMatchObject({
      code: 'insufficient_quota',
      retryAfterSeconds: expect.any(Number),
    })
  })

  it('gets back at one what was not used at the other, once', async () => {
    const lease = await take(0, 'b', 900)
    lease.settle(100)
    lease.settle(0)
    while ((await reserve(1, 'b', 900)) instanceof WorkerError) await new Promise((resolve) => setTimeout(resolve, 5))
    expect(await reserve(0, 'b', 1)).toBeInstanceOf(WorkerError)
  })

  it('gets back what a worker held that is no more, when its requests must have ended', async () => {
    await take(0, 'c', 900)
    now += limits.deadlineMs / 2
    expect(await reserve(1, 'c', 900)).toBeInstanceOf(WorkerError)
    now += limits.deadlineMs
    expect(await reserve(1, 'c', 900)).not.toBeInstanceOf(WorkerError)
  })

  it('goes on in each process while Redis is gone, and together again after', async () => {
    await redis.kill()
    expect(await reserve(0, 'd', 900)).not.toBeInstanceOf(WorkerError)
    expect(await reserve(0, 'd', 900)).toBeInstanceOf(WorkerError)
    expect(entries.at(-1)).toMatchObject({ state: 'down: counted in this process' })
    expect(JSON.stringify(entries)).not.toContain(redis.url)
    await redis.restart()
    while (entries.at(-1)?.['state'] !== 'up') {
      await reserve(0, 'e', 1)
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
    await take(0, 'f', 900)
    while (!((await reserve(1, 'f', 900)) instanceof WorkerError))
      await new Promise((resolve) => setTimeout(resolve, 20))
  })
})
