// @ts-check
import { byId, el, keyed, say } from './elements.js'
import { t, toNumber, toTime } from './words.js'
/** @import { Status } from '../status.ts' */

/**
 * @typedef {object} Split As GET /splits has it.
 * @property {string} upstream
 * @property {Record<string, number>} weights
 * @property {string} state
 * @property {{ by: string, reason: string } | null} changed
 */

/** What changes something: it is asked for with the token, which only this tab keeps. */
const token = /** @type {() => HTMLInputElement} */ (() => byId('token'))

/** @param {() => void} onChange Something is different now. */
export function setUpChanges(onChange) {
  token().value = sessionStorage.getItem('token') ?? ''
  token().addEventListener('input', () => sessionStorage.setItem('token', token().value))
  byId('forget').addEventListener('click', () => {
    token().value = ''
    sessionStorage.removeItem('token')
  })
  byId('token-form').addEventListener('submit', (event) => event.preventDefault())
  byId('reload').addEventListener('click', async () => {
    await ask('changes-answer', 'POST', 'reload', undefined, toReloadText)
    onChange()
  })
  byId('purge').addEventListener('submit', async (event) => {
    event.preventDefault()
    const form = new FormData(/** @type {HTMLFormElement} */ (event.target))
    const what = { [String(form.get('kind'))]: String(form.get('value')).trim() }
    await ask('purge-answer', 'POST', 'purge', what, ({ purged }) => t('purged', { count: toNumber(purged) }))
    onChange()
  })
}

/** @param {Status} status */
export function showChanges({ tables, changesAllowed, cache }) {
  byId('changes').hidden = tables === null && cache === null && !hasSplits
  byId('changes-lead').textContent = t(changesAllowed ? 'changesLead' : 'changesRefused')
  byId('token-form').hidden = !changesAllowed
  byId('tables').hidden = tables === null
  if (tables)
    say(
      byId('generation'),
      t(tables.lastReloadSuccessful ? 'generation' : 'generationKept', {
        generation: tables.generation,
        time: toTime(tables.lastReloadAt, { dateStyle: 'medium', timeStyle: 'medium' }),
      }),
      tables.lastReloadSuccessful ? 'soft' : 'bad',
    )
}

let hasSplits = true

/** The splits, or none where the gateway knows of none. Asked for beside the status. @returns {Promise<Split[]>} */
export async function getSplits() {
  if (!hasSplits) return []
  const answer = await fetch('splits', { cache: 'no-store', signal: AbortSignal.timeout(5_000) })
  hasSplits = answer.ok
  return answer.ok ? answer.json() : []
}

/**
 * @param {Split[]} splits
 * @param {() => void} onChange
 */
export function showSplits(splits, onChange) {
  byId('splits').hidden = splits.length === 0
  keyed(
    byId('split-list'),
    splits,
    ({ upstream }) => `${document.documentElement.lang} ${upstream}`,
    (split) => createSplit(split, onChange),
    updateSplit,
  )
}

/**
 * @param {Split} split
 * @param {() => void} onChange
 */
function createSplit({ upstream, weights }, onChange) {
  const answerId = `split-${upstream}`
  const path = `splits/${encodeURIComponent(upstream)}`
  const sides = Object.keys(weights)
  const inputs = sides.map((side) => el('input', { type: 'number', min: 0, max: 1000, name: side, required: true }))
  const labels = sides.map((side, index) => el('label', {}, `${side} `, /** @type {Node} */ (inputs[index])))
  const put = async (/** @type {unknown} */ body) => {
    const isDone = await ask(answerId, 'PUT', path, body, () => t('splitChanged'))
    if (!isDone) return
    for (const input of inputs) delete input.dataset['touched']
    onChange()
  }
  for (const input of inputs) input.addEventListener('input', () => (input.dataset['touched'] = 'yes'))
  const form = el(
    'form',
    { class: 'inline' },
    ...labels,
    el('button', { type: 'submit' }, t('apply')),
    el('button', { type: 'button', onclick: () => put({ rollout: true }) }, t('startRollout')),
  )
  form.addEventListener('submit', (event) => {
    event.preventDefault()
    void put({ weights: Object.fromEntries(inputs.map(({ name, value }) => [name, Number(value)])) })
  })
  const bar = el('div', { class: 'shares', 'aria-hidden': 'true' }, ...sides.map((side) => el('span', {}, side)))
  return el(
    'div',
    { class: 'card split' },
    el('h3', {}, upstream, ' ', el('span', { class: 'badge' })),
    bar,
    el('p', { class: 'shares-text' }),
    el('p', { class: 'soft' }),
    form,
    el('p', { id: answerId, role: 'status' }),
  )
}

/**
 * @param {HTMLElement} element
 * @param {Split} split
 */
function updateSplit(element, { weights, state, changed }) {
  const total = Object.values(weights).reduce((sum, weight) => sum + weight, 0)
  const shares = Object.entries(weights).map(([side, weight]) => ({
    side,
    weight,
    share: (weight * 100) / (total || 1),
  }))
  const [head, bar, text, why] = element.children
  const badge = head?.querySelector('.badge')
  if (badge) say(badge, state, `badge ${state === 'rolled back' ? 'bad' : state === 'rolling' ? 'warn' : 'good'}`)
  for (const [index, { share }] of shares.entries()) {
    const part = /** @type {HTMLElement | undefined} */ (bar?.children[index])
    if (!part) continue
    part.style.flexGrow = String(share)
    part.hidden = share === 0
  }
  if (text) say(text, shares.map(({ side, share }) => `${side} ${toNumber(share)} %`).join(' · '))
  if (why) say(why, changed ? `${changed.by}: ${changed.reason}` : '')
  for (const { side, weight } of shares) {
    const input = /** @type {HTMLInputElement | null} */ (element.querySelector(`input[name="${CSS.escape(side)}"]`))
    if (input && !input.dataset['touched'] && document.activeElement !== input) input.value = String(weight)
  }
}

/**
 * @param {string} placeId Where to say what came of it.
 * @param {string} method
 * @param {string} path
 * @param {unknown} body
 * @param {(answer: any) => string} toText
 * @returns {Promise<boolean>} Whether it was done.
 */
async function ask(placeId, method, path, body, toText) {
  const place = byId(placeId)
  say(place, t('asking'), '')
  try {
    const answer = await fetch(path, {
      method,
      headers: { Authorization: `Bearer ${token().value.trim()}`, 'Content-Type': 'application/json' },
      ...(body !== undefined && { body: JSON.stringify(body) }),
      signal: AbortSignal.timeout(30_000),
    })
    const said = await answer.json()
    if (answer.status === 401) say(place, t(token().value.trim() === '' ? 'tokenMissing' : 'tokenWrong'), 'bad')
    else say(place, said.detail ?? toText(said), answer.ok ? 'good' : 'bad')
    return answer.ok
  } catch {
    say(place, t('unreachable'), 'bad')
    return false
  }
}

/** @param {{ outcome: string, generation: number, notes?: string[], faults?: { problem: string, fix: string, table: string, at: string, row?: string }[], problems?: string[] }} result */
function toReloadText({ outcome, generation, notes = [], faults = [], problems = [] }) {
  if (outcome === 'swapped') return [t('reloaded', { generation }), ...notes].join('\n')
  const lines = faults.map(
    ({ table, row, at, problem, fix }) => `${[table, row, at].filter(Boolean).join(' ')} ${problem}: ${fix}`,
  )
  return [t('reloadRefused', { generation }), ...problems, ...lines].join('\n')
}
