// @ts-check
import { byId } from './elements.js'
import { t } from './words.js'

/** The box that asks what the gateway would do: the answer is the text of `daemun explain`. */
export function setUpExplain() {
  /** @type {HTMLFormElement} */
  const form = byId('question')
  const answer = byId('answer')
  form.addEventListener('submit', async (event) => {
    event.preventDefault()
    answer.hidden = false
    answer.textContent = t('asking')
    answer.textContent = await ask(new FormData(form)).catch(() => t('unreachable'))
  })
}

/** @param {FormData} form */
async function ask(form) {
  const read = (/** @type {string} */ name) => String(form.get(name) ?? '').trim()
  const lines = read('headers')
    .split('\n')
    .filter((line) => line.trim() !== '')
  const wrong = lines.find((line) => line.indexOf(':') < 1)
  if (wrong !== undefined) return t('badField', { line: wrong })
  const question = {
    method: read('method').toUpperCase(),
    url: read('url'),
    headers: lines.map((line) => [line.slice(0, line.indexOf(':')).trim(), line.slice(line.indexOf(':') + 1).trim()]),
    ...(read('from') && { from: read('from') }),
  }
  const answer = await fetch('explain', {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify(question),
    signal: AbortSignal.timeout(10_000),
  })
  return answer.ok ? answer.text() : (await answer.json()).detail
}
