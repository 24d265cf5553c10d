// @ts-check
/** Totals, charts and workers: what the counters say, and how fast they grow. */

import {drawCodes, drawThroughput, meaning} from './charts.js'
import {bytes, clock, count, counted, duration, latency, rate, say, sayName} from './text.js'

/** Seconds that the chart of throughput shows: at first, and at most. */
const NARROW = 60, WIDE = 300
/** Seconds that a rate is the mean of: other workers write their figures down once a second. */
const SMOOTH = 4.5
/** Seconds that one has to be the mean of to be drawn: the first ones jump. */
const STEADY = 3
/** Rows of the table beside it. */
const LINES = 30

/**
 * @typedef {{
 *   route: string, open: number, accepted: number, refused: number, errors: number, queued_bytes: number,
 *   messages_received: number, messages_sent: number,
 * }} Route
 * @typedef {{
 *   worker: number, pid: number, state: 'live' | 'blocked' | 'ended', age: number, started: number, engine: string,
 *   open: number, messages_received: number, messages_sent: number, bytes_received: number, bytes_sent: number,
 * }} Worker
 * @typedef {{
 *   time: number, complete: boolean, open: number, accepted: number, refused: Record<string, number>,
 *   messages_received: number, messages_sent: number, bytes_received: number, bytes_sent: number,
 *   queued_bytes: number, errors: number, slow: Record<string, number>,
 *   closed: Record<'client' | 'server' | 'lost', Record<string, number>>,
 *   ping: {bounds: number[], counts: number[], sum: number}, workers: Worker[],
 *   routes: Route[], routes_total: number, rooms?: {members: number},
 * }} Stats
 */

/** @param {string} id */
const at = id => /** @type {HTMLElement} */ (document.getElementById(id))
/** @param {Record<string, number>} counts */
const sum = counts => Object.values(counts ?? {}).reduce((all, one) => all + one, 0)

/**
 * How much a counter has grown each second; unknown where it began anew.
 * @param {number | undefined} before @param {number} now @param {number} seconds
 */
function speed(before, now, seconds) {
  return before === undefined || now < before || seconds <= 0 ? null : (now - before) / seconds
}

/** @param {{messages_received: number, messages_sent: number}} counted */
const messages = counted => counted.messages_received + counted.messages_sent

/** @param {number | null} value @param {(value: number) => string} show */
const shown = (value, show) => (value === null ? '–' : show(value))

export class Overview {
  /** @type {Stats[]} the latest is the last; rates are against the first */
  #seen = []
  /** @type {import('./charts.js').Point[]} */
  #points = []

  constructor() {
    const charts = new ResizeObserver(() => this.#draw())
    charts.observe(at('throughput'))
    for (const id of ['throughput', 'codes']) {
      at(`${id}-more`).addEventListener('toggle', () => this.#draw())
    }
  }

  /** @param {Stats} stats */
  update(stats) {
    const latest = this.#seen[this.#seen.length - 1]
    if (latest && stats.time <= latest.time) return
    while (this.#seen[1]?.time < stats.time - SMOOTH) this.#seen.shift()
    const before = this.#seen[0]
    const seconds = before ? stats.time - before.time : 0
    this.#seen.push(stats)
    const received = speed(before?.messages_received, stats.messages_received, seconds)
    const sent = speed(before?.messages_sent, stats.messages_sent, seconds)
    if (received !== null && sent !== null && seconds >= STEADY) this.#points.push({time: stats.time, received, sent})
    while (this.#points[0]?.time < stats.time - WIDE) this.#points.shift()
    this.#showTiles(stats, before, seconds)
    this.#showWorkers(stats, before, seconds)
    this.#showRoutes(stats, before, seconds)
    this.#draw()
  }

  /**
   * Put what the workers remember before, and between, what this page has seen.
   * @param {[number, number, number][]} points each: time, received and sent a second
   */
  remember(points) {
    if (!points.length) return
    const known = points.map(([time, received, sent]) => ({time, received, sent}))
    const [first, last] = [known[0].time, known[known.length - 1].time]
    const earlier = this.#points.filter(point => point.time < first)
    this.#points = [...earlier, ...known, ...this.#points.filter(point => point.time > last)]
    this.#draw()
  }

  /** Begin anew with the rates: nothing is known of what was in between. */
  interrupt() {
    this.#seen = []
  }

  /** @param {Stats} stats @param {Stats | undefined} before @param {number} seconds */
  #showTiles(stats, before, seconds) {
    const {open, workers} = stats
    /** @param {'messages_received' | 'messages_sent' | 'bytes_received' | 'bytes_sent'} key */
    const grows = key => speed(before?.[key], stats[key], seconds)
    const live = workers.filter(worker => worker.state === 'live').length
    const pings = sum(/** @type {any} */ (stats.ping?.counts))
    const slow = stats.slow ?? {}
    tile('Open', count(open), `${count(live)} of ${counted(workers.length, 'worker')} live`)
    tile('Received', `${shown(grows('messages_received'), rate)}/s`, `${shown(grows('bytes_received'), bytes)}/s`)
    tile('Sent', `${shown(grows('messages_sent'), rate)}/s`, `${shown(grows('bytes_sent'), bytes)}/s`)
    tile('Round trip', latency(pings ? stats.ping.sum / pings : null), 'mean of all pings')
    tile('Queued', bytes(stats.queued_bytes), `${counted(slow.closed ?? 0, 'slow client')} closed`)
    tile('Accepted', count(stats.accepted), `${count(sum(stats.refused))} refused`)
    tile('Errors', count(stats.errors), 'of handlers')
    tile('Members', count(stats.rooms?.members ?? 0), 'of rooms')
    say(at('as-of'), `at ${clock(stats.time)}`)
  }

  /** @param {Stats} stats @param {Stats | undefined} before @param {number} seconds */
  #showWorkers(stats, before, seconds) {
    const body = /** @type {HTMLTableElement} */ (at('workers')).tBodies[0]
    const most = Math.max(...stats.workers.map(worker => worker.open), 1)
    const known = new Map(before?.workers.map(worker => [worker.worker, worker]))
    stats.workers.forEach((worker, index) => {
      const row = body.rows[index] ?? body.insertRow()
      const was = known.get(worker.worker)
      const speeds = speed(was && messages(was), messages(worker), seconds)
      showWorker(row, worker, most, {rate: speeds, now: stats.time})
    })
    while (body.rows.length > stats.workers.length) body.deleteRow(-1)
  }

  /** @param {Stats} stats @param {Stats | undefined} before @param {number} seconds */
  #showRoutes({routes, routes_total: total}, before, seconds) {
    const known = new Map(before?.routes.map(route => [route.route, messages(route)]))
    const lines = routes.map(route => [
      route.route, count(route.open), count(route.accepted), count(route.refused), count(route.errors),
      bytes(route.queued_bytes), shown(speed(known.get(route.route), messages(route), seconds), rate),
    ])
    fill('routes', lines)
    const some = `the ${count(routes.length)} with the most open of ${count(total)}`
    say(at('routes-count'), total > routes.length ? some : '')
  }

  #draw() {
    const last = this.#seen[this.#seen.length - 1]
    const span = this.#points.length ? this.#points[this.#points.length - 1].time - this.#points[0].time : 0
    drawThroughput(at('throughput'), this.#points, Math.min(Math.max(span, NARROW), WIDE))
    const codes = last ? codesOf(last) : []
    drawCodes(at('codes'), codes)
    if (isOpen('throughput-more')) {
      const points = this.#points.slice(-LINES).reverse()
      const lines = points.map(point => [clock(point.time), rate(point.received), rate(point.sent)])
      fill('throughput-table', lines)
    }
    if (isOpen('codes-more')) {
      const lines = codes.map(({code, client, server, lost}) => {
        return [`${code} ${meaning(code)}`.trim(), count(client), count(server), count(lost)]
      })
      fill('codes-table', lines)
    }
  }
}

/** @param {string} id */
const isOpen = id => /** @type {HTMLDetailsElement} */ (at(id)).open

/** @param {Stats} stats @returns {import('./charts.js').Closed[]} */
function codesOf({closed}) {
  const {client = {}, server = {}, lost = {}} = closed ?? {}
  const codes = new Set([client, server, lost].flatMap(Object.keys))
  return [...codes].sort().map(code => ({
    code, client: client[code] ?? 0, server: server[code] ?? 0, lost: lost[code] ?? 0,
  }))
}

/** @param {string} title @param {string} value @param {string} more */
function tile(title, value, more) {
  const id = `tile-${title.replace(' ', '-').toLowerCase()}`
  let place = document.getElementById(id)
  if (!place) {
    place = document.createElement('div')
    place.id = id
    place.append(...['dt', 'dd', 'dd'].map(tag => document.createElement(tag)))
    at('tiles').append(place)
  }
  ;[title, value, more].forEach((text, index) => say(/** @type {HTMLElement} */ (place).children[index], text))
}

const STATES = {live: '● live', blocked: '▲ blocked', ended: '■ ended'}

/**
 * @param {HTMLTableRowElement} row @param {Worker} worker @param {number} most open ones of a worker
 * @param {{rate: number | null, now: number}} more
 */
function showWorker(row, worker, most, more) {
  if (!row.cells.length) {
    for (let index = 0; index < 9; index++) row.append(document.createElement(index ? 'td' : 'th'))
    for (const index of [2, 4, 5, 6, 8]) row.cells[index].className = 'number'
    row.cells[0].scope = 'row'
    row.cells[3].append(document.createElement('div'))
    row.cells[3].className = 'share'
  }
  const share = /** @type {HTMLElement} */ (row.cells[3].firstElementChild)
  share.style.width = `${(100 * worker.open) / most}%`
  row.dataset.state = worker.state
  const texts = [
    String(worker.worker), STATES[worker.state] ?? worker.state, count(worker.open), null,
    shown(more.rate, rate), `${duration(worker.age)} old`, duration(more.now - worker.started), worker.engine,
    String(worker.pid),
  ]
  texts.forEach((text, index) => text !== null && say(row.cells[index], text))
}

/**
 * Show lines of a table: a name in the first column, or a text that stands for the line.
 * @param {string} id @param {string[][]} lines
 */
function fill(id, lines) {
  const body = /** @type {HTMLTableElement} */ (at(id)).tBodies[0]
  lines.forEach((line, index) => {
    const row = body.rows[index] ?? makeLine(body, line.length)
    sayName(/** @type {Element} */ (row.cells[0].firstElementChild), line[0])
    line.slice(1).forEach((text, column) => say(row.cells[column + 1], text))
  })
  while (body.rows.length > lines.length) body.deleteRow(-1)
}

/** @param {HTMLTableSectionElement} body @param {number} columns */
function makeLine(body, columns) {
  const row = body.insertRow()
  const head = document.createElement('th')
  head.scope = 'row'
  const name = document.createElement('bdi')
  name.className = 'name'
  head.append(name)
  row.append(head)
  while (row.cells.length < columns) row.insertCell().className = 'number'
  return row
}
