// @ts-check

/**
 * An element with its attributes; those that are functions are listeners ('onclick'), false and null leave one out.
 *
 * @template {keyof HTMLElementTagNameMap} Name
 * @param {Name} name
 * @param {Record<string, unknown>} [attributes]
 * @param {...(Node | string | null | false)} children
 * @returns {HTMLElementTagNameMap[Name]}
 */
export function el(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children)
}

/**
 * @template {keyof SVGElementTagNameMap} Name
 * @param {Name} name
 * @param {Record<string, unknown>} [attributes]
 * @param {...(Node | string | null | false)} children
 * @returns {SVGElementTagNameMap[Name]}
 */
export function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS('http://www.w3.org/2000/svg', name), attributes, children)
}

/**
 * @template {Element} Made
 * @param {Made} made
 * @param {Record<string, unknown>} attributes
 * @param {(Node | string | null | false)[]} children
 * @returns {Made}
 */
function fill(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes))
    if (typeof value === 'function') made.addEventListener(name.slice(2), /** @type {EventListener} */ (value))
    else if (value !== null && value !== false && value !== undefined)
      made.setAttribute(name, value === true ? '' : String(value))
  made.append(...children.filter((child) => child !== null && child !== false))
  return made
}

/**
 * The element of this id, which the page has.
 *
 * @template {HTMLElement} [Found=HTMLElement]
 * @param {string} id
 * @returns {Found}
 */
export const byId = (id) => /** @type {Found} */ (document.getElementById(id))

/** @type {WeakMap<Element, Map<string, Element>>} */
const made = new WeakMap()

/**
 * Brings the children of an element in line with a list. Those that stay are kept, and with them the focus.
 *
 * @template Item
 * @param {Element} parent
 * @param {Item[]} items
 * @param {(item: Item) => string} toKey
 * @param {(item: Item) => Element} create
 * @param {(element: any, item: Item) => void} update
 */
export function keyed(parent, items, toKey, create, update) {
  const known = made.get(parent) ?? new Map()
  const keys = new Set(items.map(toKey))
  for (const [key, element] of known) if (!keys.has(key)) element.remove()
  const next = new Map()
  let at = known.size === 0 ? null : parent.firstElementChild
  for (const item of items) {
    const element = known.get(toKey(item)) ?? create(item)
    update(element, item)
    next.set(toKey(item), element)
    if (at && element === at) at = at.nextElementSibling
    else parent.insertBefore(element, at)
  }
  made.set(parent, next)
}

/**
 * Sets a text only when it is another: what somebody has selected stays selected.
 *
 * @param {Element} element
 * @param {string} text
 * @param {string} [className]
 */
export function say(element, text, className) {
  if (element.textContent !== text) element.textContent = text
  if (className !== undefined && element.className !== className) element.className = className
}
