import type { Lane } from '../admission/pool.ts'
import type { Limits } from '../limits.ts'
import type { Failure } from '../relay/failure.ts'

/** A provider elsewhere as one lane: so many requests at once, and none for a while after it has failed again and again. */
export interface ExternalLane {
  lane: Lane
  succeeded(): void
  failed(failure: Failure): void
  close(): void
}

export function createExternalLane(name: string, limits: Limits, onChange: () => void): ExternalLane {
  const lane: Lane = {
    name,
    requestsMax: limits.externalInFlightMax,
    tokensMax: Infinity,
    requests: 0,
    tokens: 0,
    usable: true,
    saturated: false,
  }
  let failures = 0
  let timer: NodeJS.Timeout | undefined

  function open(): void {
    if (!lane.usable) return
    lane.usable = false
    onChange()
    timer = setTimeout(() => {
      // One at a time until one has succeeded.
      lane.usable = true
      lane.saturated = true
      onChange()
    }, limits.externalCoolMs)
  }

  return {
    lane,
    succeeded() {
      failures = 0
      lane.saturated = false
    },
    failed({ reason, status = 0 }) {
      // What it says of a request is no failure of its own.
      if (reason === 'status' && status < 500 && status !== 429) return
      failures++
      if (failures >= limits.externalFailuresMax || lane.saturated) open()
    },
    close: () => clearTimeout(timer),
  }
}
