import { describe, expect, it } from 'vitest'
import { addDuration, createDurations, quantile } from '#edge/durations.ts'
import { limits } from '#edge/limits.ts'
import { mergeCounts } from '#edge/merge-counts.ts'
import { mergeStatuses } from '#edge/merge-status.ts'
import type { RouteCounts } from '#edge/metrics.ts'
import type { Status } from '#edge/status.ts'

function counted(route: string, milliseconds: number[], limit: Record<string, number> = {}): RouteCounts {
  const durations = createDurations()
  for (const one of milliseconds) addDuration(durations, one)
  const requests = milliseconds.length
  return {
    table: 'shop',
    site: 'shop.example',
    route,
    requests,
    errors: 1,
    clientErrors: 2,
    durations,
    limits: limit,
    auth: {},
    cache: {},
  }
}

describe('what processes have counted', () => {
  it('is added up by row, and each process keeps its own', () => {
    const one = counted('/a', [1], { allowed: 1 })
    const merged = mergeCounts([one, counted('/a', [1, 1], { allowed: 2, refused: 3 }), counted('/b', [1])])
    expect(merged.map(({ route, requests }) => [route, requests])).toEqual([
      ['/a', 3],
      ['/b', 1],
    ])
    expect(merged[0]).toMatchObject({ errors: 2, clientErrors: 4, limits: { allowed: 3, refused: 3 } })
    expect(one).toMatchObject({ requests: 1, limits: { allowed: 1 } })
    expect(one.durations.reduce((sum, count) => sum + count)).toBe(1)
  })

  it('has the quantiles of all requests, which is no mean of quantiles', () => {
    const quick = Array.from({ length: 98 }, () => 1)
    const [merged] = mergeCounts([counted('/a', quick), counted('/a', [1_000, 1_000])])
    const at = (share: number): number =>
      Math.round(quantile(merged?.durations ?? createDurations(), undefined, share) ?? 0)
    expect([at(0.5), at(0.98)]).toEqual([1, 1])
    expect(at(0.99)).toBeGreaterThan(930)
  })
})

const own = {
  openRequests: 1,
  clientConnections: 2,
  upstreamConnections: 3,
  webSockets: 4,
  droppedLogLines: 5,
  upstreams: [],
  certificates: [],
  cache: null,
  failedRequests: [],
  refusedRequests: [],
} as unknown as Status

const server = { url: 'http://a', up: true, share: 1, weight: 2, backup: false, inFlight: 1, ejections: 0 }
const upstream = { id: 'shop/app', balance: 'least-connections', inFlight: 1, inFlightMax: 10, retries: 2 }

describe('what processes say of themselves', () => {
  it('is added up', () => {
    expect(mergeStatuses([own, { ...own, cache: { entries: 1, bytes: 10 } }])).toMatchObject({
      openRequests: 2,
      clientConnections: 4,
      upstreamConnections: 6,
      webSockets: 8,
      droppedLogLines: 10,
      cache: { entries: 1, bytes: 10 },
    })
    expect(mergeStatuses([own, own]).cache).toBeNull()
    expect(mergeStatuses([])).toMatchObject({ openRequests: 0, upstreams: [], cache: null })
  })

  it('is as bad of a server as one of them finds it, with the last change of any', () => {
    const good = { ...server, changedAt: '2026-01-01T00:00:01.000Z', reason: 'is back' }
    const bad = {
      ...server,
      up: false,
      share: 0.5,
      ejections: 1,
      changedAt: '2026-01-01T00:00:02.000Z',
      reason: 'refuses',
    }
    for (const order of [
      [good, bad],
      [bad, good],
    ]) {
      const statuses = order.map((one) => ({ ...own, upstreams: [{ ...upstream, servers: [one] }] }))
      expect(mergeStatuses(statuses).upstreams).toEqual([
        {
          ...upstream,
          inFlight: 2,
          inFlightMax: 20,
          retries: 4,
          servers: [{ ...bad, inFlight: 2 }],
        },
      ])
    }
  })

  it('is as bad of a certificate as the worst', () => {
    const toStatus = (daysLeft: number) => ({
      ...own,
      certificates: [{ host: 'shop.example', daysLeft, expiring: daysLeft < 30 }],
    })
    expect(mergeStatuses([toStatus(80), toStatus(2)]).certificates).toEqual([
      { host: 'shop.example', daysLeft: 2, expiring: true },
    ])
  })

  it('has the newest requests that went wrong, bounded', () => {
    const toStatus = (second: number) => ({
      ...own,
      failedRequests: Array.from({ length: limits.recentMax }, (_, at) => ({
        time: new Date((1_000 - at * 2 + second) * 1_000).toISOString(),
      })),
    })
    const { failedRequests } = mergeStatuses([toStatus(0), toStatus(1)] as Status[])
    const times = failedRequests.map(({ time }) => Date.parse(time) / 1_000)
    expect(times).toHaveLength(limits.recentMax)
    expect(times.slice(0, 3)).toEqual([1_001, 1_000, 999])
  })
})
