// @ts-check
/** The table of connections: the server sorts, searches and pages; here is one page of rows. */

import {bytes, count, duration, isSelected, latency, say, sayName} from './text.js'

/**
 * @typedef {{
 *   id: string, worker: number, host: string, route: string | null, path: string, user: string | null,
 *   address: string | null, since: number, messages_received: number, messages_sent: number,
 *   bytes_received: number, bytes_sent: number, latency: number | null, queued: number,
 *   rooms: string[], rooms_total: number, admin: boolean, you: boolean,
 * }} Row
 * @typedef {{
 *   rows: Row[], total: number, matched: number, position: number, time: number, complete: boolean,
 *   missing: number[], first: unknown, last: unknown, tag: unknown,
 * }} Table
 * @typedef {{
 *   key: string, title: string, kind?: 'number' | 'name' | 'rooms', largest?: boolean, reversed?: boolean,
 *   show: (cell: Element, row: Row, now: number) => void,
 * }} Column largest: sorted so at first; reversed: what is shown falls while what it is sorted by rises
 */

/** @param {(row: Row) => string | null} value @returns {Column['show']} */
const name = value => (cell, row) => sayName(cell, value(row))
/** @param {(row: Row, now: number) => string} value @returns {Column['show']} */
const text = value => (cell, row, now) => say(cell, value(row, now))

/** @type {Column[]} The first is what a row is opened by. */
const COLUMNS = [
  {key: 'route', title: 'Route', kind: 'name', show: name(row => row.route)},
  {key: 'user', title: 'User', kind: 'name', show: name(row => row.user)},
  {key: 'address', title: 'Address', kind: 'name', show: name(row => row.address)},
  {key: 'opened', title: 'Open for', kind: 'number', largest: true, reversed: true,
    show: text((row, now) => duration(now - row.since))},
  {key: 'messages_received', title: 'Received', kind: 'number', largest: true,
    show: text(row => count(row.messages_received))},
  {key: 'messages_sent', title: 'Sent', kind: 'number', largest: true, show: text(row => count(row.messages_sent))},
  {key: 'latency', title: 'Latency', kind: 'number', largest: true, show: text(row => latency(row.latency))},
  {key: 'queued', title: 'Queued', kind: 'number', largest: true, show: text(row => bytes(row.queued))},
  {key: 'rooms', title: 'Rooms', kind: 'rooms', largest: true, show: showRooms},
  {key: 'worker', title: 'Worker', kind: 'number', show: text(row => String(row.worker))},
]

/** @param {Element} cell @param {Row} row */
function showRooms(cell, row) {
  if (cell.childElementCount !== 2) cell.replaceChildren(bdi(), document.createElement('span'))
  sayName(cell.children[0], row.rooms[0], 24)
  say(cell.children[1], row.rooms_total > 1 ? ` +${count(row.rooms_total - 1)}` : '')
}

function bdi() {
  const element = document.createElement('bdi')
  element.className = 'name'
  return element
}

export class Rows {
  /** What the server is asked to show. */
  view = {
    search: '', field: '', exact: false, sort: 'opened', descending: false, limit: 50, hide_admins: true,
    after: /** @type {unknown} */ (null), before: /** @type {unknown} */ (null),
  }
  #head
  #body
  #onview
  #onopen
  /** @type {Map<string, HTMLTableRowElement>} */
  #shown = new Map()
  /** @type {WeakMap<HTMLTableRowElement, Row>} */
  #rows = new WeakMap()
  #pointed = false

  /**
   * @param {HTMLTableElement} table
   * @param {() => void} onview is called when the view has changed
   * @param {(row: Row) => void} onopen is called for the row that somebody wants to see
   */
  constructor(table, onview, onopen) {
    this.#head = /** @type {HTMLTableRowElement} */ (table.tHead?.rows[0])
    this.#body = table.tBodies[0]
    this.#onview = onview
    this.#onopen = onopen
    for (const column of COLUMNS) this.#head.append(this.#header(column))
    this.#showOrder()
    this.#body.addEventListener('click', event => this.#click(event))
    this.#body.addEventListener('pointerenter', event => (this.#pointed = event.pointerType === 'mouse'))
    this.#body.addEventListener('pointerleave', () => (this.#pointed = false))
  }

  /**
   * Change what is shown; back to the first page unless told otherwise.
   * @param {Partial<Rows['view']>} change
   */
  set(change) {
    Object.assign(this.view, {after: null, before: null, ...change})
    this.#showOrder()
    this.#onview()
  }

  /** Whether rows must stay where they are: somebody is in the table. */
  get held() {
    return this.#pointed || isSelected(this.#body) || this.#body.contains(document.activeElement)
  }

  /** @param {Table} table @param {boolean} asked whether it answers what somebody just did */
  update(table, asked) {
    const held = this.held && !asked && this.#shown.size > 0
    const wanted = new Map(table.rows.map(row => [row.id, row]))
    for (const [id, element] of this.#shown) {
      const row = wanted.get(id)
      if (row) this.#fill(element, row, table.time)
      element.classList.toggle('gone', !row)
    }
    if (!held) this.#arrange(table)
    return held
  }

  /** @param {Table} table */
  #arrange(table) {
    let next = this.#body.firstElementChild
    const wanted = new Set()
    for (const row of table.rows) {
      wanted.add(row.id)
      const element = this.#shown.get(row.id) ?? this.#make(row, table.time)
      if (element === next) next = next.nextElementSibling
      else this.#body.insertBefore(element, next)
    }
    for (const [id, element] of this.#shown) {
      if (wanted.has(id)) continue
      element.remove()
      this.#shown.delete(id)
    }
  }

  /** @param {Row} row @param {number} now */
  #make(row, now) {
    const element = document.createElement('tr')
    element.setAttribute('role', 'row')
    COLUMNS.forEach((column, index) => {
      const cell = document.createElement(index ? 'td' : 'th')
      cell.setAttribute('role', index ? 'cell' : 'rowheader')
      cell.dataset.label = column.title
      if (column.kind === 'number') cell.className = 'number'
      if (column.kind === 'name') cell.append(bdi())
      element.append(cell)
    })
    this.#openable(element.cells[0])
    this.#shown.set(row.id, element)
    this.#fill(element, row, now)
    return element
  }

  /**
   * Put a button around a cell's content: with keys, the row is opened by it.
   * @param {Element} cell
   */
  #openable(cell) {
    const button = document.createElement('button')
    button.type = 'button'
    button.className = 'plain open'
    button.append(...cell.childNodes)
    cell.append(button)
  }

  /** @param {HTMLTableRowElement} element @param {Row} row @param {number} now */
  #fill(element, row, now) {
    this.#rows.set(element, row)
    COLUMNS.forEach((column, index) => {
      const cell = element.cells[index]
      const place = column.kind === 'name' ? cell.querySelector('bdi') : cell
      column.show(place ?? cell, row, now)
    })
  }

  /** @param {Event} event */
  #click(event) {
    const element = /** @type {Element} */ (event.target).closest('tr')
    const row = element && this.#rows.get(element)
    if (!row || isSelected(element)) return
    element.querySelector('button')?.focus()
    this.#onopen(row)
  }

  /** @param {Column} column */
  #header(column) {
    const header = document.createElement('th')
    header.setAttribute('role', 'columnheader')
    header.scope = 'col'
    if (column.kind === 'number') header.className = 'number'
    const button = document.createElement('button')
    button.type = 'button'
    button.className = 'plain sort'
    button.textContent = column.title
    button.addEventListener('click', () => this.#sortBy(column))
    header.append(button)
    return header
  }

  /** @param {Column} column */
  #sortBy(column) {
    const again = this.view.sort === column.key
    const descending = again ? !this.view.descending : !!column.largest !== !!column.reversed
    this.set({sort: column.key, descending})
  }

  #showOrder() {
    COLUMNS.forEach((column, index) => {
      const falling = this.view.descending !== !!column.reversed
      const order = column.key !== this.view.sort ? 'none' : falling ? 'descending' : 'ascending'
      this.#head.cells[index].setAttribute('aria-sort', order)
    })
  }
}
