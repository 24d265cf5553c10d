// @ts-check
/** Charts as SVG. Each says in its title what it shows; the page has a table of the same figures below it. */

import {clock, count, rate} from './text.js'

const SVG = 'http://www.w3.org/2000/svg'
const HEIGHT = 168, LEFT = 44, RIGHT = 12, TOP = 10, BOTTOM = 22
const ROW = 22, LABELS = 148, COUNTS = 56

/** @typedef {{time: number, received: number, sent: number}} Point */
/** @typedef {{code: string, client: number, server: number, lost: number}} Closed */

/** @param {string} name @param {Record<string, string | number>} attributes @param {string} text */
function make(name, attributes, text = '') {
  const element = document.createElementNS(SVG, name)
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, String(value))
  if (text) element.textContent = text
  return element
}

/** @param {number} width @param {number} height @param {string} title */
function canvas(width, height, title) {
  const svg = make('svg', {viewBox: `0 0 ${width} ${height}`, width, height, role: 'img', 'aria-label': title})
  svg.append(make('title', {}, title))
  return svg
}

/**
 * The first of 1, 2, 5, 10, 20... that is not below a value.
 * @param {number} value
 */
function ceiling(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1)))
  return /** @type {number} */ ([1, 2, 5, 10].find(step => step * power >= value)) * power
}

/**
 * Draw messages received and sent over time: a line, and a dashed one.
 * @param {HTMLElement} place @param {Point[]} points @param {number} seconds that the chart is wide
 */
export function drawThroughput(place, points, seconds) {
  const width = place.clientWidth
  const last = points[points.length - 1]
  const title = last
    ? `Messages a second: now ${rate(last.received)} received, ${rate(last.sent)} sent`
    : 'Messages a second: no figures yet'
  const svg = canvas(width, HEIGHT, title)
  const top = ceiling(Math.max(...points.map(point => Math.max(point.received, point.sent)), 1))
  const end = last ? last.time : 0
  /** @param {number} time */
  const x = time => LEFT + (width - LEFT - RIGHT) * (1 - (end - time) / seconds)
  /** @param {number} value */
  const y = value => HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value / top)
  for (const value of [0, top / 2, top]) {
    svg.append(
      make('line', {class: 'grid', x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value)}),
      make('text', {x: LEFT - 6, y: y(value) + 4, 'text-anchor': 'end'}, rate(value)),
    )
  }
  if (last) {
    svg.append(
      make('text', {x: LEFT, y: HEIGHT - 5}, clock(end - seconds)),
      make('text', {x: width - RIGHT, y: HEIGHT - 5, 'text-anchor': 'end'}, clock(end)),
    )
    for (const kind of /** @type {const} */ (['received', 'sent'])) {
      const line = points.map(point => `${x(point.time).toFixed(1)},${y(point[kind]).toFixed(1)}`)
      svg.append(make('polyline', {class: `line ${kind}`, points: line.join(' ')}))
      svg.append(make('circle', {class: `dot ${kind}`, cx: x(end), cy: y(last[kind]), r: 3}))
    }
  }
  /** @param {'received' | 'sent'} kind */
  const now = kind => `${kind} ${last ? rate(last[kind]) : ''}`
  place.replaceChildren(svg, legend([['received', now('received')], ['sent', now('sent')]]))
}

/** @param {[string, string][]} entries each kind, and what it is called */
function legend(entries) {
  const list = document.createElement('p')
  list.className = 'legend'
  for (const [kind, text] of entries) {
    const entry = document.createElement('span')
    const sample = make('svg', {width: 26, height: 10, 'aria-hidden': 'true', class: 'sample'})
    sample.append(
      kind === 'received' || kind === 'sent'
        ? make('line', {class: `line ${kind}`, x1: 0, x2: 26, y1: 5, y2: 5})
        : make('rect', {class: `bar ${kind}`, width: 26, height: 10}),
    )
    entry.append(sample, text)
    list.append(entry)
  }
  return list
}

const MEANINGS = /** @type {Record<string, string>} */ ({
  1000: 'done', 1001: 'going away', 1002: 'protocol error', 1003: 'not accepted', 1005: 'no code',
  1006: 'cut off', 1007: 'not UTF-8', 1008: 'policy', 1009: 'too large', 1010: 'no extension',
  1011: 'server error', 1012: 'restart', 1013: 'try later', 1014: 'bad gateway',
})
/** Codes with a bar of their own; the table has all. */
const BARS = 7
const ENDS = /** @type {const} */ (['client', 'server', 'lost'])

/** @param {Closed} closed */
const sum = closed => closed.client + closed.server + closed.lost

/** @param {string} code */
export const meaning = code => MEANINGS[code] ?? ''

/**
 * Draw how often connections were closed with each code, and by whom: plain, striped, dotted.
 * @param {HTMLElement} place @param {Closed[]} codes
 */
export function drawCodes(place, codes) {
  const bars = condensed(codes)
  const width = place.clientWidth
  const title = bars.length
    ? `Close codes: ${bars.map(bar => `${bar.code} ${count(sum(bar))} times`).join(', ')}`
    : 'Close codes: no connection has been closed yet'
  const svg = canvas(width, Math.max(BARS * ROW, bars.length * ROW), title)
  svg.append(patterns())
  const longest = Math.max(...bars.map(sum), 1)
  bars.forEach((bar, row) => {
    const y = row * ROW
    svg.append(make('text', {x: 0, y: y + 15}, `${bar.code} ${meaning(bar.code)}`))
    let x = LABELS
    for (const end of ENDS) {
      const part = ((width - LABELS - COUNTS) * bar[end]) / longest
      const box = {x, y: y + 4, width: Math.max(part, 1), height: ROW - 8}
      if (bar[end]) svg.append(make('rect', {class: `bar ${end}`, ...box}))
      x += part
    }
    svg.append(make('text', {x: x + 8, y: y + 15}, count(sum(bar))))
  })
  if (!bars.length) svg.append(make('text', {x: 0, y: 15}, 'None has been closed yet'))
  place.replaceChildren(svg, legend([['client', 'by the client'], ['server', 'by the server'], ['lost', 'lost']]))
}

/**
 * The codes that are most frequent, by their number, and the sum of the others.
 * @param {Closed[]} codes
 */
function condensed(codes) {
  const ordered = [...codes].filter(sum).sort((a, b) => sum(b) - sum(a))
  if (ordered.length <= BARS) return ordered.sort((a, b) => a.code.localeCompare(b.code))
  const rest = {code: 'others', client: 0, server: 0, lost: 0}
  for (const closed of ordered.slice(BARS - 1)) for (const end of ENDS) rest[end] += closed[end]
  return [...ordered.slice(0, BARS - 1).sort((a, b) => a.code.localeCompare(b.code)), rest]
}

/** Fills that differ without colour; the page's style has their colours. */
function patterns() {
  const all = make('defs', {})
  const size = {width: 5, height: 5}
  const stripes = make('pattern', {id: 'stripes', ...size, patternUnits: 'userSpaceOnUse'})
  stripes.setAttribute('patternTransform', 'rotate(45)')
  stripes.append(make('rect', {class: 'paper', ...size}), make('rect', {class: 'stripe', width: 2, height: 5}))
  const dots = make('pattern', {id: 'dots', ...size, patternUnits: 'userSpaceOnUse'})
  dots.append(make('rect', {class: 'paper', ...size}), make('circle', {class: 'spot', cx: 2.5, cy: 2.5, r: 1.4}))
  all.append(stripes, dots)
  return all
}
