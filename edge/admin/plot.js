// @ts-check
import { el, say, svg } from './elements.js'
import { t, toNumber, toTime } from './words.js'
/** @import { Points } from '../history.ts' */

/** @typedef {'requestsPerSecond' | 'errorsPerSecond' | 'clientErrorsPerSecond' | 'p50Ms' | 'p99Ms'} Measure */

const margin = { top: 8, right: 10, bottom: 20, left: 42 }
const height = 176

/**
 * Lines over time, with axes. What the pointer or the arrow keys are at is told in words; all of it is there as a table.
 *
 * @param {{ title: 'rate' | 'latency', measures: Measure[] }} what
 */
export function createPlot({ title, measures }) {
  const heading = el('h3')
  const legend = el('div', { class: 'legend' })
  const chart = svg('svg', { class: 'chart', 'aria-hidden': 'true', height })
  const tip = el('div', { class: 'tip', role: 'status', hidden: true })
  const area = el('div', { class: 'area', tabindex: 0, role: 'group' }, chart, tip)
  const summary = el('summary')
  const body = el('div', { class: 'scroll', tabindex: 0, role: 'group' })
  const details = el('details', { ontoggle: () => showTable() }, summary, body)
  const element = el('div', { class: 'plot' }, heading, legend, area, details)
  /** @type {Points | undefined} */
  let points
  /** @type {number | undefined} */
  let at
  let width = 0

  const count = () => points?.[/** @type {Measure} */ (measures[0])].length ?? 0
  const toX = (/** @type {number} */ index) =>
    margin.left + (index / Math.max(1, count() - 1)) * (width - margin.left - margin.right)
  const timeOf = (/** @type {number} */ index) => (points ? points.from + index * points.stepMs : 0)

  function draw() {
    width = area.clientWidth
    if (!points || width === 0) return
    const known = measures.flatMap((measure) => points?.[measure].filter((value) => value !== null) ?? [])
    const ticks = toTicks(Math.max(0, ...known))
    const top = ticks.at(-1) ?? 1
    const toY = (/** @type {number} */ value) => margin.top + (1 - value / top) * (height - margin.top - margin.bottom)
    chart.setAttribute('viewBox', `0 0 ${width} ${height}`)
    chart.replaceChildren(
      ...ticks.flatMap((tick) => [
        svg('line', { class: 'grid', x1: margin.left, x2: width - margin.right, y1: toY(tick), y2: toY(tick) }),
        svg('text', { x: margin.left - 6, y: toY(tick) + 3.5, 'text-anchor': 'end' }, toNumber(tick)),
      ]),
      ...toTimeTicks(),
      ...(title === 'rate' ? [svg('path', { class: 'fill', d: toArea(points.requestsPerSecond, toX, toY) })] : []),
      ...measures.map((measure) =>
        svg('path', { class: `line ${measure}`, d: toPath(points?.[measure] ?? [], toX, toY) }),
      ),
      ...(at === undefined ? [] : toCursor(at, toY)),
    )
    if (known.length === 0)
      chart.append(svg('text', { x: width / 2, y: height / 2, 'text-anchor': 'middle' }, t('noPoints')))
  }

  function toTimeTicks() {
    const every = Math.ceil(count() / Math.max(2, Math.floor((width - margin.left) / 92)))
    return Array.from({ length: Math.ceil(count() / every) }, (_, index) => {
      const step = count() - 1 - index * every
      return svg(
        'text',
        { x: toX(step), y: height - 5, 'text-anchor': index === 0 ? 'end' : 'middle' },
        toTime(timeOf(step), { hour: '2-digit', minute: '2-digit' }),
      )
    }).filter((_, index) => toX(count() - 1 - index * every) > margin.left + 12)
  }

  /**
   * @param {number} index
   * @param {(value: number) => number} toY
   */
  function toCursor(index, toY) {
    const x = toX(index)
    return [
      svg('line', { class: 'cursor', x1: x, x2: x, y1: margin.top, y2: height - margin.bottom }),
      ...measures.flatMap((measure) => {
        const value = points?.[measure][index] ?? null
        return value === null ? [] : [svg('circle', { class: 'mark', cx: x, cy: toY(value), r: 3.5 })]
      }),
    ]
  }

  /** @param {number | undefined} index */
  function move(index) {
    at = index === undefined ? undefined : Math.min(count() - 1, Math.max(0, index))
    tip.hidden = at === undefined || !points
    draw()
    if (at === undefined || !points) return
    const cursor = { index: at, x: toX(at) }
    tip.replaceChildren(
      el('b', {}, toTime(timeOf(cursor.index))),
      ...measures.map((measure) =>
        el(
          'div',
          {},
          `${t(measure)}: ${toNumber(points?.[measure][cursor.index])}${measure.endsWith('Ms') ? ' ms' : ''}`,
        ),
      ),
    )
    const isRight = cursor.x > width / 2
    tip.style.left = isRight ? '' : `${cursor.x + 10}px`
    tip.style.right = isRight ? `${width - cursor.x + 10}px` : ''
  }

  area.addEventListener('pointermove', (event) => {
    const share =
      (event.clientX - area.getBoundingClientRect().left - margin.left) / (width - margin.left - margin.right)
    move(Math.round(share * (count() - 1)))
  })
  area.addEventListener('pointerleave', () => move(undefined))
  area.addEventListener('blur', () => move(undefined))
  area.addEventListener('keydown', (event) => {
    const last = count() - 1
    const next = { ArrowLeft: (at ?? last + 1) - 1, ArrowRight: (at ?? last - 1) + 1, Home: 0, End: last }[event.key]
    if (event.key === 'Escape' && at !== undefined) event.stopPropagation()
    if (event.key === 'Escape') return move(undefined)
    if (next === undefined) return
    event.preventDefault()
    move(next)
  })
  new ResizeObserver(draw).observe(area)

  function showTable() {
    if (!details.open || !points) return
    const rows = Array.from({ length: count() }, (_, index) => count() - 1 - index)
    const known = rows.filter((index) => measures.some((measure) => points?.[measure][index] !== null))
    body.replaceChildren(
      el(
        'table',
        {},
        el(
          'thead',
          {},
          el(
            'tr',
            {},
            el('th', { scope: 'col' }, t('time')),
            ...measures.map((measure) => el('th', { scope: 'col', class: 'number' }, t(measure))),
          ),
        ),
        el(
          'tbody',
          {},
          ...known.map((index) =>
            el(
              'tr',
              {},
              el('th', { scope: 'row' }, toTime(timeOf(index))),
              ...measures.map((measure) => el('td', { class: 'number' }, toNumber(points?.[measure][index]))),
            ),
          ),
        ),
      ),
    )
  }

  return {
    element,
    /** @param {Points} next */
    show(next) {
      points = next
      if (at === undefined) draw()
      else move(at)
      showTable()
    },
    translate() {
      say(heading, t(title))
      say(summary, t('asTable'))
      area.setAttribute('aria-label', `${t(title)}. ${t('plotHelp')}`)
      body.setAttribute('aria-label', t(title))
      legend.replaceChildren(
        ...measures.map((measure) =>
          el(
            'span',
            {},
            svg(
              'svg',
              { viewBox: '0 0 22 8', 'aria-hidden': 'true' },
              svg('path', { class: `line ${measure}`, d: 'M1 4h20' }),
            ),
            t(measure),
          ),
        ),
      )
      draw()
      showTable()
    },
  }
}

/**
 * A line of a row's last minutes, without axes.
 *
 * @param {(number | null)[]} values
 */
export function toSparkPath(values) {
  const top = Math.max(0, ...values.filter((value) => value !== null))
  return toPath(
    values,
    (index) => (index / Math.max(1, values.length - 1)) * 100,
    (value) => 19 - (top === 0 ? 0 : (value / top) * 18),
  )
}

/**
 * @param {(number | null)[]} values
 * @param {(index: number) => number} toX
 * @param {(value: number) => number} toY
 */
function toPath(values, toX, toY) {
  let path = ''
  for (const [index, value] of values.entries()) {
    if (value === null) continue
    const before = values[index - 1] ?? null
    path += `${before === null ? 'M' : 'L'}${round(toX(index))} ${round(toY(value))}`
    // One alone would not be seen.
    if (before === null && (values[index + 1] ?? null) === null) path += 'h.01'
  }
  return path
}

/**
 * @param {(number | null)[]} values
 * @param {(index: number) => number} toX
 * @param {(value: number) => number} toY
 */
function toArea(values, toX, toY) {
  const first = values.findIndex((value) => value !== null)
  if (first === -1) return ''
  const line = values.slice(first).map((value, index) => `L${round(toX(first + index))} ${round(toY(value ?? 0))}`)
  return `M${round(toX(first))} ${round(toY(0))}${line.join('')}L${round(toX(values.length - 1))} ${round(toY(0))}Z`
}

const round = (/** @type {number} */ value) => Math.round(value * 10) / 10

/**
 * From 0 in equal steps of 1, 2 or 5 to the first that is not below the highest value.
 *
 * @param {number} highest
 */
function toTicks(highest) {
  if (highest === 0) return [0, 1]
  const rough = highest / 3
  const power = 10 ** Math.floor(Math.log10(rough))
  const step = power * ([1, 2, 5, 10].find((factor) => factor * power >= rough) ?? 10)
  return Array.from({ length: Math.ceil(highest / step) + 1 }, (_, index) => index * step)
}
