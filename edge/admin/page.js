// @ts-check
import { setUpChanges, showChanges, showSplits } from './changes.js'
import { byId, el, say } from './elements.js'
import { setUpExplain } from './explain.js'
import { watch } from './live.js'
import { createPlot } from './plot.js'
import { showCache, showCertificates, showRequests, showSites, showTiles, showUpstreams } from './sections.js'
import { currentLanguage, keep, setLanguage, t, toNumber, toTime, translatePage } from './words.js'
/** @import { Status } from '../status.ts' */
/** @import { Points, Range, Scope } from '../history.ts' */

/** What is shown, and what was heard last. */
const page = {
  /** @type {Status | undefined} */
  status: undefined,
  /** @type {Points | undefined} */
  points: undefined,
  /** @type {import('./changes.js').Split[]} */
  splits: [],
  /** @type {'failed' | 'refused'} */
  kind: 'failed',
  /** When the next try comes, in milliseconds since the epoch; undefined: all is well. */
  /** @type {number | undefined} */
  retryAt: undefined,
}
/** @type {{ range: Range, scope: Scope }} */
const shown = { range: '15m', scope: {} }

const plots = [
  createPlot({ title: 'rate', measures: ['requestsPerSecond', 'errorsPerSecond', 'clientErrorsPerSecond'] }),
  createPlot({ title: 'latency', measures: ['p50Ms', 'p99Ms'] }),
]
byId('plots').append(...plots.map(({ element }) => element))
/** @type {HTMLInputElement} */
const filter = byId('filter')
/** @type {HTMLInputElement} */
const idle = byId('idle')
/** @type {HTMLInputElement} */
const keysOn = byId('keys-on')
/** @type {HTMLDialogElement} */
const keys = byId('keys')

const sections = ['traffic', 'rows', 'upstreams', 'splits', 'cache', 'certificates', 'requests', 'explain', 'changes']

/** @type {[string, import('./words.js').Word][]} */
const shortcuts = [
  ['?', 'keyHelp'],
  ['1 – 9', 'keySections'],
  ['/', 'keyFilter'],
  ['e', 'keyExplain'],
  ['r', 'keyRange'],
  ['t', 'keyTheme'],
  ['l', 'keyLanguage'],
  ['← →', 'keyArrows'],
  ['Esc', 'keyEscape'],
]

/** @type {Record<string, () => void>} */
const actions = {
  '?': () => keys.showModal(),
  '/': () => filter.focus(),
  e: () => /** @type {HTMLElement} */ (document.querySelector('#question [name=url]')).focus(),
  r: () => setRange(shown.range === '15m' ? '6h' : '15m'),
  t: switchTheme,
  l: switchLanguage,
}

const live = watch(shown, {
  onStatus(status, splits) {
    page.status = status
    page.splits = splits
    page.retryAt = undefined
    showStatus()
  },
  onPoints(points) {
    page.points = points
    for (const plot of plots) plot.show(points)
  },
  onLost(retryInMs) {
    page.retryAt = Date.now() + retryInMs
    showConnection()
  },
})

filter.addEventListener('input', showStatus)
idle.addEventListener('change', showStatus)
byId('language').addEventListener('click', switchLanguage)
byId('theme').addEventListener('click', switchTheme)
byId('help').addEventListener('click', () => keys.showModal())
document.addEventListener('keydown', onKey)
keysOn.checked = read('keys') !== 'off'
keysOn.addEventListener('change', () => keep('keys', keysOn.checked ? 'on' : 'off'))
setTheme(read('theme') ?? 'auto')
setUpExplain()
setUpChanges(look)
translate()
setInterval(() => page.retryAt !== undefined && showConnection(), 1_000)

function showStatus() {
  showConnection()
  const { status } = page
  if (!status) return
  showTiles(status, findTraffic(status))
  showSites(status.sites, { filter: filter.value.trim(), idle: idle.checked, scope: shown.scope, pick })
  showUpstreams(status.upstreams)
  showSplits(page.splits, look)
  showCache(status)
  showCertificates(status.certificates)
  showRequests(page.kind === 'failed' ? status.failedRequests : status.refusedRequests)
  showChanges(status)
  showNavigation()
  const started = toTime(status.startedAt, { dateStyle: 'medium', timeStyle: 'medium' })
  const own = t('process', { id: status.processId, time: started, dropped: toNumber(status.droppedLogLines) })
  say(byId('process'), status.workers ? `${own} ${toWorkers(status.workers)}` : own)
}

/** @param {NonNullable<Status['workers']>} workers */
function toWorkers(workers) {
  const silent = workers.filter(({ answered }) => !answered).map(({ processId }) => processId)
  const all = t('workers', { count: workers.length, ids: workers.map(({ processId }) => processId).join(', ') })
  return silent.length === 0 ? all : `${all} ${t('silent', { ids: silent.join(', ') })}`
}

function look() {
  void live.look()
}

/** Links only to sections that are there. */
function showNavigation() {
  for (const id of sections)
    document.querySelector(`nav a[href="#${id}"]`)?.toggleAttribute('hidden', byId(id).hasAttribute('hidden'))
}

/** Of what the plots show. @param {Status} status */
function findTraffic({ traffic, sites }) {
  const { table, site, route } = shown.scope
  if (site === undefined) return traffic
  const found = sites.find((one) => one.table === table && one.site === site)
  return (route === undefined ? found : found?.routes.find(({ id }) => id === route))?.traffic ?? null
}

function showConnection() {
  const { status, retryAt } = page
  const isLost = retryAt !== undefined
  document.body.dataset['state'] = isLost ? 'lost' : status ? status.state : 'waiting'
  const place = byId('connection')
  if (status && !isLost)
    say(
      place,
      `${t(status.state === 'draining' ? 'draining' : 'live')} · ${t('updated', { time: toTime(status.time) })}`,
    )
  else say(place, isLost ? t('lost') : t('waiting'))
  const lost = byId('lost')
  lost.hidden = !isLost
  if (!isLost) return
  const seconds = Math.max(0, Math.ceil((retryAt - Date.now()) / 1_000))
  const text = status ? t('lostMore', { time: toTime(status.time), seconds }) : t('lostFirst', { seconds })
  if (lost.childElementCount === 0)
    lost.append(
      el('strong'),
      el('span', { 'aria-live': 'off' }),
      el('button', { type: 'button', onclick: () => void live.look() }),
    )
  say(/** @type {Element} */ (lost.children[0]), t('lost'))
  say(/** @type {Element} */ (lost.children[1]), text)
  say(/** @type {Element} */ (lost.children[2]), t('again'))
}

/** @param {Scope} scope */
function pick(scope) {
  const isSame =
    shown.scope.site === scope.site && shown.scope.table === scope.table && shown.scope.route === scope.route
  shown.scope = isSame ? {} : scope
  showScope()
  showStatus()
  void live.change()
}

function showScope() {
  const { table, site, route } = shown.scope
  const name =
    site === undefined
      ? t('everything')
      : [table, site, route?.replace(`${table} `, '') ?? ''].join(' ').trim() || t('noSite')
  byId('scope').replaceChildren(
    el('span', {}, name),
    ...(site === undefined ? [] : [el('button', { type: 'button', onclick: () => pick({}) }, t('showAll'))]),
  )
}

/**
 * A button for each choice, of which one is pressed.
 *
 * @template {string} Choice
 * @param {string} id
 * @param {{ value: Choice, label: string }[]} choices
 * @param {Choice} chosen
 * @param {(value: Choice) => void} choose
 */
function showChoices(id, choices, chosen, choose) {
  byId(id).replaceChildren(
    ...choices.map(({ value, label }) =>
      el('button', { type: 'button', 'aria-pressed': String(value === chosen), onclick: () => choose(value) }, label),
    ),
  )
}

/** @param {Range} range */
function setRange(range) {
  shown.range = range
  translate()
  void live.change()
}

/** @param {'failed' | 'refused'} kind */
function setKind(kind) {
  page.kind = kind
  translate()
}

function translate() {
  translatePage()
  const other = currentLanguage() === 'ko' ? 'en' : 'ko'
  const language = byId('language')
  say(language, other === 'ko' ? '한국어' : 'English')
  language.lang = other
  const theme = t(/** @type {'theme_auto'} */ (`theme_${document.documentElement.dataset['theme'] ?? 'auto'}`))
  say(byId('theme'), theme)
  byId('theme').setAttribute('aria-label', `${t('theme')}: ${theme}`)
  showChoices(
    'range',
    [
      { value: '15m', label: t('15m') },
      { value: '6h', label: t('6h') },
    ],
    shown.range,
    setRange,
  )
  showChoices(
    'kind',
    [
      { value: 'failed', label: t('failed') },
      { value: 'refused', label: t('refusedKind') },
    ],
    page.kind,
    setKind,
  )
  filter.placeholder = t('filter')
  byId('key-list').replaceChildren(
    ...shortcuts.flatMap(([key, word]) => [el('dt', {}, el('kbd', {}, key)), el('dd', {}, t(word))]),
  )
  showScope()
  for (const plot of plots) plot.translate()
  showStatus()
}

function switchLanguage() {
  setLanguage(currentLanguage() === 'ko' ? 'en' : 'ko')
  translate()
}

function switchTheme() {
  const themes = ['auto', 'light', 'dark']
  const now = document.documentElement.dataset['theme'] ?? 'auto'
  setTheme(themes[(themes.indexOf(now) + 1) % themes.length] ?? 'auto')
  translate()
}

/** @param {string} theme */
function setTheme(theme) {
  keep('theme', theme)
  if (theme === 'auto') delete document.documentElement.dataset['theme']
  else document.documentElement.dataset['theme'] = theme
}

/** @param {KeyboardEvent} event */
function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || keys.open) return
  if (event.key === 'Escape' && shown.scope.site !== undefined) return pick({})
  if (!keysOn.checked || isTyping(event.target)) return
  const section = sections.filter((id) => !byId(id).hidden)[Number(event.key) - 1]
  const act = section ? () => goTo(section) : actions[event.key]
  if (!act) return
  event.preventDefault()
  act()
}

/** @param {string} id */
function goTo(id) {
  byId(id).focus({ preventScroll: true })
  byId(id).scrollIntoView()
}

/** @param {EventTarget | null} target */
const isTyping = (target) =>
  target instanceof HTMLElement && target.matches('input:not([type=checkbox]), textarea, select')

/** @param {string} name */
function read(name) {
  try {
    return localStorage.getItem(name)
  } catch {
    return null
  }
}
