import { WorkerError } from '../error.ts'
import type { Limits } from '../limits.ts'
import type { Queue, QueueBounds, Waiting } from './queue.ts'
import { createQueue } from './queue.ts'

/** One server's share of work: slots and tokens of its cache. What it is good for is the owner's business. */
export interface Lane {
  name: string
  requestsMax: number
  tokensMax: number
  requests: number
  tokens: number
  /** Whether it can be asked at all. */
  usable: boolean
  /** It says, or leaves unsaid, that it has enough to do: no more than one at a time then. */
  saturated: boolean
}

/** A request at the door. `needsMs` is how long it will take once it has a slot. */
export interface Ticket extends Waiting {
  needsMs: number
  /** Lanes that have failed it. */
  tried: ReadonlySet<Lane>
  onGrant(grant: Grant): void
  onRefuse(error: WorkerError): void
}

export interface Grant {
  lane: Lane
  waitedMs: number
  /** Gives the slot back; a second time does nothing. */
  release(): void
}

/**
 * Admission to servers of one kind, whether of tokens or of vectors: a slot now, a place in a bounded queue, or a
 * refusal at once with the time after which it is worth coming again.
 */
export interface Pool {
  lanes: Lane[]
  enter(ticket: Ticket): void
  /** The client has left, or the ticket is to be asked elsewhere. */
  leave(ticket: Ticket): void
  /** Lanes have changed. */
  schedule(): void
  usable(tried?: ReadonlySet<Lane>): boolean
  waiting(): { requests: number; tokens: number }
  running(): number
  isFull(): boolean
}

export interface PoolOptions {
  name: string
  lanes: Lane[]
  bounds: QueueBounds
  limits: Limits
  now: () => number
}

export function createPool({ name, lanes, bounds, limits, now }: PoolOptions): Pool {
  const queue: Queue<Ticket> = createQueue(bounds, limits)
  /** When each must have a slot at the latest, and the timer that says so. */
  const due = new Map<Ticket, { startBy: number; timer: NodeJS.Timeout }>()
  /** How long a slot is held, on the mean of late. */
  let heldMs: number | undefined

  function enter(ticket: Ticket): void {
    if (!usable(ticket.tried)) return ticket.onRefuse(toUnavailable(name))
    const leftMs = ticket.deadlineAt - now()
    const lane = queue.requests() === 0 ? findLane(ticket) : undefined
    const waitMs = lane ? 0 : predictWaitMs(queue.ahead(ticket.band))
    // What is not known yet is no reason to refuse, nor what was learned long ago: an idle server is asked.
    const needsMs = heldMs === undefined || running() === 0 ? 0 : ticket.needsMs
    if (leftMs <= 0 || waitMs + needsMs > leftMs) return ticket.onRefuse(toLate(waitMs + needsMs - leftMs))
    if (lane) return grant(ticket, lane)
    if (!makeRoom(ticket)) return ticket.onRefuse(toFull(predictWaitMs(queue.requests())))
    queue.add(ticket)
    const timer = setTimeout(() => refuse(ticket, toLate(needsMs)), leftMs - needsMs)
    due.set(ticket, { startBy: ticket.deadlineAt - needsMs, timer })
    schedule()
  }

  /** Room in the queue, if need be that of the last in a lower band. */
  function makeRoom(ticket: Ticket): boolean {
    while (!queue.hasRoom(ticket)) {
      const last = queue.lastBelow(ticket.band)
      if (!last) return false
      refuse(last, toFull(predictWaitMs(queue.requests())))
    }
    return true
  }

  function schedule(): void {
    for (;;) {
      const ticket = queue.peek(now())
      if (!ticket) return
      if (!usable(ticket.tried)) refuse(ticket, toUnavailable(name))
      else if (now() >= (due.get(ticket)?.startBy ?? 0)) refuse(ticket, toLate(ticket.needsMs))
      else {
        const lane = findLane(ticket)
        if (!lane) return
        queue.take(ticket)
        forget(ticket)
        grant(ticket, lane)
      }
    }
  }

  /** The lane with the largest share of its tokens free. */
  function findLane({ tokens, band, tried }: Ticket): Lane | undefined {
    let best: Lane | undefined
    for (const lane of lanes) {
      if (!lane.usable || tried.has(lane) || !hasRoom(lane, tokens, band !== 'interactive')) continue
      if (!best || lane.tokens / lane.tokensMax < best.tokens / best.tokensMax) best = lane
    }
    return best
  }

  function hasRoom(
    { requests, requestsMax, tokens, tokensMax, saturated }: Lane,
    more: number,
    keeps: boolean,
  ): boolean {
    if (requests === 0) return true
    const kept = keeps ? Math.floor(requestsMax * limits.interactiveShare) : 0
    return !saturated && requests < requestsMax - kept && tokens + more <= tokensMax
  }

  function grant(ticket: Ticket, lane: Lane): void {
    lane.requests++
    lane.tokens += ticket.tokens
    const grantedAt = now()
    let released = false
    ticket.onGrant({
      lane,
      waitedMs: grantedAt - ticket.enqueuedAt,
      release() {
        if (released) return
        released = true
        lane.requests--
        lane.tokens -= ticket.tokens
        const ms = now() - grantedAt
        heldMs = heldMs === undefined ? ms : heldMs + (ms - heldMs) * 0.1
        if (queue.requests() > 0) schedule()
      },
    })
  }

  /** Slots come free one by one, each held for the mean time by as many as run now. */
  function predictWaitMs(ahead: number): number {
    const slots = Math.max(1, running())
    return ((ahead + 1) * (heldMs ?? 0)) / slots
  }

  function refuse(ticket: Ticket, error: WorkerError): void {
    queue.remove(ticket)
    forget(ticket)
    ticket.onRefuse(error)
  }

  function forget(ticket: Ticket): void {
    clearTimeout(due.get(ticket)?.timer)
    due.delete(ticket)
  }

  const running = (): number => lanes.reduce((sum, { requests }) => sum + requests, 0)
  const usable = (tried?: ReadonlySet<Lane>): boolean => lanes.some((lane) => lane.usable && !tried?.has(lane))

  return {
    lanes,
    enter,
    leave(ticket) {
      queue.remove(ticket)
      forget(ticket)
    },
    schedule() {
      // Those that nobody can serve any more hear of it now, wherever they stand.
      for (const ticket of queue.all()) if (!usable(ticket.tried)) refuse(ticket, toUnavailable(name))
      schedule()
    },
    usable,
    waiting: () => ({ requests: queue.requests(), tokens: queue.tokens() }),
    running,
    isFull: () => queue.requests() >= bounds.requestsMax,
  }
}

const retryMaxSeconds = 60
const toSeconds = (ms: number): number => Math.min(retryMaxSeconds, Math.max(1, Math.ceil(ms / 1_000)))

const toUnavailable = (name: string): WorkerError =>
  new WorkerError('upstream_unavailable', `No server of ${name} is ready`, { retryAfterSeconds: 5 })

const toFull = (waitMs: number): WorkerError =>
  new WorkerError('queue_full', 'Too many requests are waiting', { retryAfterSeconds: toSeconds(waitMs) })

const toLate = (overMs: number): WorkerError =>
  new WorkerError('deadline_exceeded_estimate', 'The answer would not be ready in the time that is left', {
    retryAfterSeconds: toSeconds(overMs),
  })
