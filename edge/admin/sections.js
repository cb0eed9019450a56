// @ts-check
import { byId, el, keyed, say, svg } from './elements.js'
import { toSparkPath } from './plot.js'
import { t, toDuration, toNumber, toTime } from './words.js'
/** @import { Status } from '../status.ts' */
/** @import { Scope, Traffic } from '../history.ts' */

/** @typedef {Status['sites'][number]} SiteStatus */
/** @typedef {SiteStatus['routes'][number]} RouteStatus */
/** @typedef {Status['upstreams'][number]} UpstreamStatus */
/** @typedef {UpstreamStatus['servers'][number]} ServerStatus */
/** @typedef {Status['failedRequests'][number]} RecentRequest */

/**
 * @param {Status} status
 * @param {Traffic | null} traffic Of what is shown in the plots.
 */
export function showTiles(status, traffic) {
  /** @type {{ name: string, value: string, more: string, className?: string }[]} */
  const tiles = [
    {
      name: t('tileRequests'),
      value: t('perSecond', { value: toNumber(traffic?.requestsPerSecond ?? 0) }),
      more: t('sinceStart', { value: toNumber(traffic?.requests ?? 0) }),
    },
    {
      name: t('tileErrors'),
      value: toShare(traffic?.errorsPerSecond, traffic?.requestsPerSecond),
      more: t('sinceStart', { value: toNumber(traffic?.errors ?? 0) }),
      className: traffic?.errorsPerSecond ? 'bad' : '',
    },
    {
      name: t('tileClientErrors'),
      value: toShare(traffic?.clientErrorsPerSecond, traffic?.requestsPerSecond),
      more: t('sinceStart', { value: toNumber(traffic?.clientErrors ?? 0) }),
    },
    { name: 'p50', value: toDuration(traffic?.p50Ms), more: t('lastMinute') },
    { name: 'p99', value: toDuration(traffic?.p99Ms), more: t('lastMinute') },
    {
      name: t('tileOpen'),
      value: toNumber(status.openRequests),
      more: t('connections', {
        clients: toNumber(status.clientConnections),
        upstreams: toNumber(status.upstreamConnections),
      }),
    },
    ...(status.webSockets > 0 ? [{ name: t('tileWebSockets'), value: toNumber(status.webSockets), more: '' }] : []),
  ]
  showTileList(byId('tiles'), tiles)
}

/**
 * @param {HTMLElement} place
 * @param {{ name: string, value: string, more: string, className?: string }[]} tiles
 */
function showTileList(place, tiles) {
  keyed(
    place,
    tiles,
    ({ name }) => name,
    ({ name }) => el('div', {}, el('dt', {}, name), el('dd'), el('dd', {}, el('small'))),
    (tile, { value, more, className = '' }) => {
      say(tile.children[1], value, className)
      say(tile.children[2].firstChild, more)
    },
  )
}

/**
 * @param {number | undefined} part
 * @param {number | undefined} whole
 */
const toShare = (part, whole) => (part && whole ? `${toNumber((part / whole) * 100)} %` : '0 %')

/**
 * @typedef {object} RowsShown
 * @property {string} filter
 * @property {boolean} idle Also rows without requests.
 * @property {Scope} scope
 * @property {(scope: Scope) => void} pick
 */

/**
 * @param {SiteStatus[]} sites
 * @param {RowsShown} shown
 */
export function showSites(sites, shown) {
  const found = sites
    .map((site) => ({ site, rows: site.routes.filter((route) => isShown(route, site, shown)) }))
    .filter(({ rows }) => rows.length > 0 || shown.filter === '')
  const place = byId('sites')
  if (found.length === 0) return void place.replaceChildren(el('p', { class: 'card empty' }, t('noneMatches')))
  const table = toTable(
    place,
    [t('row'), t('requestsPerSecond'), t('errors'), t('refusals'), 'p50', 'p99', t('limits')],
    [1, 2, 3, 4, 5],
  )
  keyed(
    table,
    found,
    ({ site }) => `${site.table} ${site.site}`,
    () => el('tbody'),
    (body, { site, rows }) =>
      keyed(
        body,
        [site, ...rows],
        (row) => ('hosts' in row ? 'site' : `row ${row.id}`),
        (row) => createRow(row, site, shown.pick),
        (element, row) => updateRow(element, row, site, rows.length, shown),
      ),
  )
}

/**
 * @param {RouteStatus} route
 * @param {SiteStatus} site
 * @param {RowsShown} shown
 */
function isShown(route, site, { filter, idle }) {
  if (filter === '') return idle || route.traffic !== null
  const text = [route.id, route.path, route.action, ...route.policies, ...site.hosts].join(' ').toLowerCase()
  return text.includes(filter.toLowerCase())
}

/**
 * @param {SiteStatus | RouteStatus} row
 * @param {SiteStatus} site
 * @param {(scope: Scope) => void} pick
 */
function createRow(row, site, pick) {
  const button = el('button', { type: 'button', class: 'pick', onclick: () => pick(toScope(row, site)) })
  const spark = svg(
    'svg',
    { class: 'spark', viewBox: '0 0 100 20', preserveAspectRatio: 'none', 'aria-hidden': 'true' },
    svg('path'),
  )
  return el(
    'tr',
    { class: 'hosts' in row ? 'site' : null },
    el('th', { scope: 'row' }, button, el('small')),
    el('td', { class: 'number' }, spark, el('span')),
    ...['5xx', '4xx', 'p50', 'p99'].map((label) => el('td', { class: 'number', 'data-label': label })),
    el('td'),
  )
}

/** @param {SiteStatus | RouteStatus} row @param {SiteStatus} site @returns {Scope} */
const toScope = (row, site) => ({ table: site.table, site: site.site, ...('hosts' in row ? {} : { route: row.id }) })

/**
 * @param {HTMLTableRowElement} element
 * @param {SiteStatus | RouteStatus} row
 * @param {SiteStatus} site
 * @param {number} rowCount
 * @param {RowsShown} shown
 */
function updateRow(element, row, site, rowCount, { scope }) {
  const { traffic } = row
  const [head, rate, errors, refusals, p50, p99, limits] = element.children
  const [button, more] = /** @type {Element[]} */ ([...(head?.children ?? [])])
  if (!head || !button || !more || !rate || !errors || !refusals || !p50 || !p99 || !limits) return
  say(button, toRowName(row))
  const own = toScope(row, site)
  button.setAttribute(
    'aria-pressed',
    String(scope.site === own.site && scope.table === own.table && scope.route === own.route),
  )
  say(
    more,
    'hosts' in row ? toSiteFacts(row, rowCount) : [row.methods?.join(' '), row.action].filter(Boolean).join(' · '),
  )
  rate.querySelector('path')?.setAttribute('d', traffic ? toSparkPath(traffic.recent) : '')
  say(/** @type {Element} */ (rate.lastElementChild), traffic ? `${toNumber(traffic.requestsPerSecond)}/s` : '–')
  say(errors, toRate(traffic?.errorsPerSecond), traffic?.errorsPerSecond ? 'number bad' : 'number')
  say(refusals, toRate(traffic?.clientErrorsPerSecond))
  say(p50, traffic ? toDuration(traffic.p50Ms) : '')
  say(p99, traffic ? toDuration(traffic.p99Ms) : '')
  say(limits, 'hosts' in row ? '' : [toVerdicts(row.limitVerdicts), toCached(row)].filter(Boolean).join(' · '))
}

/** @param {SiteStatus | RouteStatus} row */
function toRowName(row) {
  if ('hosts' in row) return row.hosts.join(', ') || t('noSite')
  return row.path || t('noRow')
}

/**
 * @param {SiteStatus} site
 * @param {number} rowCount
 */
function toSiteFacts({ table, routes }, rowCount) {
  const idle = routes.length - rowCount
  return [table, idle > 0 ? t('idleRows', { count: idle }) : ''].filter(Boolean).join(' · ')
}

/** @param {number | undefined} rate */
const toRate = (rate) => (rate ? `${toNumber(rate)}/s` : '')

/** @param {RouteStatus} row */
const toCached = ({ cacheVerdicts }) =>
  Object.keys(cacheVerdicts).length === 0 ? '' : `${t('cached')} ${toHitRatio(cacheVerdicts)}`

/** @param {Record<string, number>} verdicts */
const toVerdicts = (verdicts) =>
  Object.entries(verdicts)
    .map(([verdict, count]) => `${toNumber(count)} ${t(/** @type {'allowed' | 'refused' | 'down'} */ (verdict))}`)
    .join(', ')

/** @param {UpstreamStatus[]} upstreams */
export function showUpstreams(upstreams) {
  const place = byId('groups')
  if (upstreams.length === 0) return void place.replaceChildren(el('p', { class: 'card empty' }, t('noUpstreams')))
  const table = toTable(place, [t('server'), t('state'), t('inFlight'), t('weight'), t('ejections')], [2, 3])
  keyed(
    table,
    upstreams,
    ({ id }) => id,
    () => el('tbody'),
    (body, upstream) =>
      keyed(
        body,
        [upstream, ...upstream.servers],
        (row) => ('servers' in row ? 'upstream' : row.url),
        (row) =>
          'servers' in row
            ? el('tr', { class: 'site' }, el('th', { scope: 'rowgroup', colspan: 5 }, el('span'), el('small')))
            : createServerRow(),
        updateServerRow,
      ),
  )
}

const createServerRow = () =>
  el(
    'tr',
    {},
    el('th', { scope: 'row' }, el('span', { class: 'code' })),
    el('td', {}, el('span', { class: 'badge' }), el('small')),
    el('td', { class: 'number', 'data-label': t('inFlight') }),
    el('td', { class: 'number', 'data-label': t('weight') }),
    el('td'),
  )

/**
 * @param {HTMLTableRowElement} element
 * @param {UpstreamStatus | ServerStatus} row
 */
function updateServerRow(element, row) {
  const [head, state, inFlight, weight, ejections] = element.children
  if ('servers' in row) {
    say(/** @type {Element} */ (head?.children[0]), row.id)
    say(/** @type {Element} */ (head?.children[1]), toUpstreamFacts(row))
    return
  }
  if (!head || !state || !inFlight || !weight || !ejections) return
  say(/** @type {Element} */ (head.firstElementChild), row.url)
  say(/** @type {Element} */ (state.children[0]), ...toServerState(row))
  say(/** @type {Element} */ (state.children[1]), row.changedAt ? `${toTime(row.changedAt)}: ${row.reason}` : '')
  say(inFlight, toNumber(row.inFlight))
  say(weight, `${row.weight}${row.backup ? ` · ${t('backup')}` : ''}`)
  say(ejections, row.ejections > 0 ? t('times', { count: row.ejections }) : '')
}

/** @param {UpstreamStatus} upstream */
const toUpstreamFacts = ({ balance, inFlight, inFlightMax, retries }) =>
  t('upstreamFacts', {
    balance,
    inFlight: toNumber(inFlight),
    inFlightMax: toNumber(inFlightMax),
    retries: toNumber(retries),
  })

/** @param {ServerStatus} server @returns {[string, string]} */
function toServerState({ up, share }) {
  if (!up) return [t('putAside'), 'badge bad']
  return share < 1 ? [t('warming', { share: Math.round(share * 100) }), 'badge warn'] : [t('up'), 'badge good']
}

/** @param {Status} status */
export function showCache({ cache, sites }) {
  /** @type {Record<string, number>} */
  const verdicts = {}
  for (const { cacheVerdicts } of sites.flatMap(({ routes }) => routes))
    for (const [verdict, count] of Object.entries(cacheVerdicts)) verdicts[verdict] = (verdicts[verdict] ?? 0) + count
  const isUsed = cache !== null && (cache.entries > 0 || Object.keys(verdicts).length > 0)
  byId('cache').hidden = !isUsed
  if (!isUsed) return
  const tiles = [
    { name: t('hitRatio'), value: toHitRatio(verdicts), more: toHits(verdicts) },
    {
      name: t('kept'),
      value: toNumber(cache.entries),
      more: t('keptBytes', { megabytes: toNumber(cache.bytes / 1_048_576) }),
    },
  ]
  showTileList(byId('cache-tiles'), tiles)
}

/** Answers for which no upstream was asked, of all that might have been kept. @param {Record<string, number>} verdicts */
function countHits(verdicts) {
  const { hit = 0, stale = 0, collapsed = 0, revalidated = 0, miss = 0 } = verdicts
  const hits = hit + stale + collapsed
  return { hits, all: hits + revalidated + miss }
}

/** @param {Record<string, number>} verdicts */
function toHitRatio(verdicts) {
  const { hits, all } = countHits(verdicts)
  return all === 0 ? '–' : `${toNumber((hits / all) * 100)} %`
}

/** @param {Record<string, number>} verdicts */
function toHits(verdicts) {
  const { hits, all } = countHits(verdicts)
  return t('hits', { hits: toNumber(hits), all: toNumber(all) })
}

/** @param {Status['certificates']} certificates */
export function showCertificates(certificates) {
  const place = byId('hosts')
  if (certificates.length === 0)
    return void place.replaceChildren(el('p', { class: 'card empty' }, t('noCertificates')))
  const table = toTable(place, [t('host'), t('daysLeft')], [1])
  keyed(
    table,
    [certificates],
    () => '',
    () => el('tbody'),
    (body) =>
      keyed(
        body,
        certificates.toSorted((a, b) => a.daysLeft - b.daysLeft),
        ({ host }) => host,
        () => el('tr', {}, el('th', { scope: 'row' }), el('td', { class: 'number' })),
        (row, { host, daysLeft, expiring }) => {
          say(row.children[0], host)
          const text = daysLeft > 0 ? t('days', { count: toNumber(daysLeft) }) : t('standIn')
          say(row.children[1], text, `number ${toUrgency(daysLeft, expiring)}`)
        },
      ),
  )
}

/**
 * @param {number} daysLeft
 * @param {boolean | null} expiring
 */
const toUrgency = (daysLeft, expiring) => (daysLeft < 7 ? 'bad' : (expiring ?? daysLeft < 21) ? 'warn' : '')

/** @param {RecentRequest[]} requests */
export function showRequests(requests) {
  const place = byId('recent')
  if (requests.length === 0) return void place.replaceChildren(el('p', { class: 'card empty' }, t('noRequests')))
  const table = toTable(place, [t('time'), t('request'), t('status'), t('why'), t('took'), t('requestId')], [4])
  keyed(
    table,
    [requests],
    () => '',
    () => el('tbody'),
    (body) =>
      keyed(
        body,
        requests,
        ({ requestId }) => requestId,
        createRequestRow,
        () => {},
      ),
  )
}

/** @param {RecentRequest} request */
const createRequestRow = ({
  time,
  method,
  host,
  path,
  route,
  status,
  code,
  end,
  cause,
  server,
  durationMs,
  requestId,
}) =>
  el(
    'tr',
    {},
    el('td', {}, el('time', { datetime: time }, toTime(time))),
    el('th', { scope: 'row' }, el('span', { class: 'code' }, `${method} ${host}${path}`), el('small', {}, route ?? '')),
    el('td', {}, String(status || '–')),
    el('td', {}, [code, end].filter(Boolean).join(', '), el('small', {}, [cause, server].filter(Boolean).join(' · '))),
    el('td', { class: 'number' }, toDuration(durationMs)),
    el('td', {}, el('span', { class: 'code' }, requestId)),
  )

/**
 * The table of a section, made when the section has none or has it in another language.
 *
 * @param {HTMLElement} place
 * @param {string[]} columns
 * @param {number[]} numbers The columns that hold numbers.
 * @returns {HTMLTableElement}
 */
function toTable(place, columns, numbers) {
  const heads = columns.join('\t')
  const there = place.querySelector('table')
  if (there?.dataset['heads'] === heads) return there
  const table = el(
    'table',
    { class: 'stack', 'data-heads': heads },
    el(
      'thead',
      {},
      el(
        'tr',
        {},
        ...columns.map((column, index) =>
          el('th', { scope: 'col', class: numbers.includes(index) ? 'number' : null }, column),
        ),
      ),
    ),
  )
  // It may scroll, which a keyboard can only do where it can stop.
  place.replaceChildren(el('div', { class: 'card', tabindex: 0, role: 'group', 'aria-label': columns[0] }, table))
  return table
}
