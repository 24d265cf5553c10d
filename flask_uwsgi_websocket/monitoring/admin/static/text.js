// @ts-check
/**
 * Texts for people. What comes from clients is shown by textContent alone, isolated from the text around it, and
 * with everything visible that would reorder, hide or pile up characters.
 */

/** Characters of a name in a cell, and where there is room. */
export const SHORT = 60, LONG = 2000
/** What would mislead. */
const ODD = new RegExp(
  [
    // without a shape of its own, or unknown to this browser; but for the selector of emoji
    String.raw`(?!\uFE0F)[\p{Cc}\p{Cf}\p{Cn}\p{Co}\p{Cs}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}\u2800]`,
    String.raw`(?! )\p{Zs}`, // other spaces than the usual
    String.raw`(?<=\p{M}{3})\p{M}+`, // more than three marks on one character
    '^ | $|(?<= ) ', // spaces that nobody sees
  ].join('|'),
  'gu',
)

const whole = new Intl.NumberFormat('en', {maximumFractionDigits: 0})
const tenths = new Intl.NumberFormat('en', {maximumFractionDigits: 1})
const short = new Intl.NumberFormat('en', {notation: 'compact', maximumFractionDigits: 1})

/** @type {WeakMap<Element, string>} what each element shows */
const shown = new WeakMap()

/**
 * Put a text into an element, unless it is there already, or somebody is selecting it.
 * @param {Element} element @param {string} text
 */
export function say(element, text) {
  if (shown.get(element) === text || isSelected(element)) return
  shown.set(element, text)
  element.textContent = text
}

/**
 * Put a name that somebody else chose into an element, a <bdi> best.
 * @param {Element} element @param {string | null | undefined} name @param {number} limit in characters
 */
export function sayName(element, name, limit = SHORT) {
  const key = name === null || name === undefined ? '' : `${limit}:${name}`
  if (shown.get(element) === key || isSelected(element)) return
  shown.set(element, key)
  element.replaceChildren(...(key ? pieces(/** @type {string} */ (name), limit) : ['–']))
}

/** @param {string} name @param {number} limit @returns {(string | Element)[]} */
function pieces(name, limit) {
  if (!name) return [odd('empty')]
  const text = cut(name, limit)
  const parts = []
  let from = 0
  for (const found of text.matchAll(ODD)) {
    parts.push(text.slice(from, found.index), odd(escaped(found[0])))
    from = Number(found.index) + found[0].length
  }
  parts.push(text.slice(from))
  if (text.length < name.length) parts.push(odd('…'))
  return parts.filter(part => part !== '')
}

/** @param {string} name @param {number} limit */
function cut(name, limit) {
  if (name.length <= limit) return name
  const inPair = /[\uD800-\uDBFF]/.test(name[limit - 1])
  return name.slice(0, inPair ? limit - 1 : limit)
}

/** @param {string} text */
function escaped(text) {
  if (text === ' ') return '␣'
  if (text.length > 2) return `${[...text].length} marks`
  return `U+${Number(text.codePointAt(0)).toString(16).toUpperCase().padStart(4, '0')}`
}

/** @param {string} text */
function odd(text) {
  const element = document.createElement('span')
  element.className = 'odd'
  element.textContent = text
  return element
}

/** @type {Range | null} what somebody has selected: to ask the selection itself makes the browser lay out the page */
let selected = null
document.addEventListener('selectionchange', () => {
  const selection = document.getSelection()
  selected = selection && !selection.isCollapsed ? selection.getRangeAt(0) : null
})

/** @param {Element} element */
export function isSelected(element) {
  return !!selected && selected.intersectsNode(element)
}

/** @param {number} value */
export const count = value => (Math.abs(value) < 100_000 ? whole.format(value) : short.format(value))

/** @param {number} value @param {string} thing what it is of, of which one is called so */
export const counted = (value, thing) => `${count(value)} ${thing}${value === 1 ? '' : 's'}`

/** @param {number} value a second */
export const rate = value => (value < 100 ? tenths.format(value) : count(value))

/** @param {number} value */
export function bytes(value) {
  if (value < 1000) return `${whole.format(value)} B`
  const power = Math.min(Math.floor(Math.log10(value) / 3), 4)
  return `${tenths.format(value / 1000 ** power)} ${['B', 'kB', 'MB', 'GB', 'TB'][power]}`
}

/** @param {number} seconds */
export function duration(seconds) {
  const s = Math.max(0, Math.floor(seconds))
  if (s < 60) return `${s} s`
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`
}

/** @param {number | null | undefined} seconds */
export function latency(seconds) {
  if (typeof seconds !== 'number') return '–'
  return seconds < 1 ? `${tenths.format(seconds * 1000)} ms` : `${tenths.format(seconds)} s`
}

/** @param {number} unix seconds */
export const clock = unix => new Date(unix * 1000).toLocaleTimeString('en-GB')

/** @param {number} unix seconds */
export const moment = unix => new Date(unix * 1000).toLocaleString('en-GB')
