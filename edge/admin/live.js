// @ts-check
import { getSplits } from './changes.js'
/** @import { Status } from '../status.ts' */
/** @import { Split } from './changes.js' */
/** @import { Points, Range, Scope } from '../history.ts' */

/**
 * @typedef {object} Shown What the plots show.
 * @property {Range} range
 * @property {Scope} scope
 */

/**
 * @typedef {object} Listeners
 * @property {(status: Status, splits: Split[]) => void} onStatus
 * @property {(points: Points) => void} onPoints
 * @property {(retryInMs: number) => void} onLost
 */

const everyMs = 2_000
const pointsEveryMs = 5_000
const timeoutMs = 5_000
const retryMsMax = 15_000

/**
 * Asks for the status as long as the page is looked at, and says when nobody answers. Waits longer with every try.
 *
 * @param {Shown} shown
 * @param {Listeners} listeners
 */
export function watch(shown, { onStatus, onPoints, onLost }) {
  let failures = 0
  let pointsAt = 0
  let asked = 0
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer

  async function look() {
    clearTimeout(timer)
    const mine = ++asked
    const wantsPoints = Date.now() - pointsAt >= pointsEveryMs
    try {
      const [status, splits, points] = await Promise.all([
        get('status'),
        getSplits(),
        wantsPoints ? get(toHistoryPath(shown)) : undefined,
      ])
      if (mine !== asked) return
      failures = 0
      onStatus(status, splits)
      if (points) {
        pointsAt = Date.now()
        onPoints(points)
      }
      timer = setTimeout(look, everyMs)
    } catch {
      if (mine !== asked) return
      const retryInMs = Math.min(retryMsMax, 1_000 * 2 ** failures++)
      pointsAt = 0
      onLost(retryInMs)
      timer = setTimeout(look, retryInMs)
    }
  }

  document.addEventListener('visibilitychange', () => {
    if (document.hidden) {
      clearTimeout(timer)
      asked++
    } else void look()
  })
  void look()

  return {
    look,
    /** Something else is to be shown in the plots. */
    change: () => {
      pointsAt = 0
      return look()
    },
  }
}

/** @param {string} path */
async function get(path) {
  const answer = await fetch(path, { signal: AbortSignal.timeout(timeoutMs), cache: 'no-store' })
  if (!answer.ok) throw new Error(`status ${answer.status}`)
  return answer.json()
}

/** @param {Shown} shown */
function toHistoryPath({ range, scope }) {
  const query = new URLSearchParams({ range })
  for (const [name, value] of Object.entries(scope)) if (value !== undefined) query.set(name, value)
  return `status/history?${query}`
}
