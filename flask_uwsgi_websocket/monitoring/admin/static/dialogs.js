// @ts-check
/** The dialogs: what is asked before anything is done, a connection, and the inside of a room. */

import {ask} from './actions.js'
import {LONG, SHORT, bytes, clock, count, counted, duration, latency, moment, say, sayName} from './text.js'

/** @typedef {import('./table.js').Row} Row */

/** @param {string} id */
const at = id => /** @type {HTMLElement} */ (document.getElementById(id))
/** @param {string} id */
const dialog = id => /** @type {HTMLDialogElement} */ (at(id))

/**
 * Tell what came of an action, where it is seen and read out: in the dialog that is on top, or on the page.
 * @param {string} text @param {boolean} ok
 */
export function tell(text, ok = true) {
  const open = [...document.querySelectorAll('dialog[open] .result')].pop()
  for (const place of new Set([open ?? at('result'), at('result')])) {
    place.classList.toggle('bad', !ok)
    place.textContent = `${clock(Date.now() / 1000)}: ${text}`
  }
}

/**
 * @typedef {{
 *   name: string, label: string, kind: 'text' | 'number' | 'lines' | 'check', value?: string,
 *   [attribute: string]: any,
 * }} Field
 */

/**
 * Say what will happen, and ask whether it shall.
 * @param {{title: string, text: (string | Element)[], verb: string, danger?: boolean, fields?: Field[]}} question
 * @returns {Promise<FormData | null>} what was filled in; null: it shall not
 */
export function confirm({title, text, verb, danger, fields = []}) {
  const box = dialog('confirm')
  const form = /** @type {HTMLFormElement} */ (box.querySelector('form'))
  at('confirm-title').textContent = title
  at('confirm-text').replaceChildren(...text)
  at('confirm-fields').replaceChildren(...fields.map(field))
  at('confirm-cancel').onclick = () => box.close()
  at('confirm-do').textContent = verb
  at('confirm-do').classList.toggle('danger', !!danger)
  box.returnValue = ''
  box.showModal()
  forget()
  return new Promise(resolve => {
    forget = () => resolve(null)
    box.onclose = () => {
      if (box.open) return // it tells late of the question before
      resolve(box.returnValue === 'do' ? new FormData(form) : null)
    }
  })
}

/** Answer with no what was asked last, if that is still open. */
let forget = () => {}

/** @param {Field} field */
function field({name, label, kind, value = '', ...attributes}) {
  const place = document.createElement('label')
  const input = document.createElement(kind === 'lines' ? 'textarea' : 'input')
  if (input instanceof HTMLInputElement) input.type = kind === 'check' ? 'checkbox' : kind
  input.name = name
  input.setAttribute('autocomplete', 'off')
  if (kind !== 'check') input.value = value
  for (const [key, given] of Object.entries(attributes)) input.setAttribute(key, given)
  place.append(...(kind === 'check' ? [input, ` ${label}`] : [label, ' ', input]))
  place.className = kind === 'check' ? 'check' : 'field'
  return place
}

/** @param {string | null | undefined} name @param {number} limit */
export function named(name, limit = LONG) {
  const element = document.createElement('bdi')
  element.className = 'name'
  sayName(element, name, limit)
  return element
}

/** @param {Row} row @returns {(string | Element)[]} */
const whose = row => [
  row.user === null ? 'nobody in particular' : named(row.user, SHORT),
  ' at ', named(row.address, SHORT), ' on ', named(row.route, SHORT),
]

/** A connection, as long as the panel is open. */
export class Detail {
  /** @type {Row | undefined} */
  #row
  #gone = false
  #onwatch
  #onroom

  /** @param {(id: string | null) => void} onwatch @param {(room: string) => void} onroom */
  constructor(onwatch, onroom) {
    this.#onroom = onroom
    this.#onwatch = onwatch
    at('close').addEventListener('click', () => this.#close())
    at('send').addEventListener('click', () => this.#send())
    dialog('detail').addEventListener('close', () => {
      if (dialog('detail').open) return // for another one, meanwhile
      this.#row = undefined
      onwatch(null)
    })
  }

  /** @param {Row} row @param {number} now */
  open(row, now) {
    this.#row = row
    at('detail').querySelector('.result')?.replaceChildren()
    say(at('detail-gone'), '')
    this.#end(false)
    this.#show(row, now)
    dialog('detail').showModal()
    this.#onwatch(row.id)
  }

  /** @param {import('./table.js').Table} table what there is of this connection */
  update(table) {
    const row = table.rows.find(one => one.id === this.#row?.id)
    if (row) this.#show(row, table.time)
    const why = table.complete ? 'It has ended.' : 'Its worker does not answer, or it has ended.'
    say(at('detail-gone'), row ? '' : why)
    this.#end(!row && table.complete)
  }

  /** @param {boolean} gone */
  #end(gone) {
    this.#gone = gone
    for (const id of ['close', 'send']) at(id).setAttribute('aria-disabled', String(gone))
  }

  /** @param {Row} row @param {number} now */
  #show(row, now) {
    this.#row = row
    const facts = /** @type {HTMLElement} */ (at('detail').querySelector('.facts'))
    const names = {Route: row.route, Path: row.path, User: row.user, Address: row.address}
    const texts = {
      'Open for': `${duration(now - row.since)}, since ${moment(row.since)}`,
      Received: `${counted(row.messages_received, 'message')}, ${bytes(row.bytes_received)}`,
      Sent: `${counted(row.messages_sent, 'message')}, ${bytes(row.bytes_sent)}`,
      Latency: latency(row.latency),
      Queued: bytes(row.queued),
    }
    for (const [term, value] of Object.entries(names)) sayName(fact(facts, term), value, LONG)
    for (const [term, value] of Object.entries(texts)) say(fact(facts, term), value)
    sayName(fact(facts, 'Worker'), `${row.worker} on ${row.host}`)
    sayName(fact(facts, 'Id'), row.id)
    this.#showRooms(row)
  }

  /** @param {Row} row */
  #showRooms(row) {
    const list = at('detail-rooms')
    const key = JSON.stringify([row.rooms, row.rooms_total])
    if (list.dataset.key === key) return
    list.dataset.key = key
    list.replaceChildren(...row.rooms.map(room => this.#room(room)))
    const more = row.rooms_total - row.rooms.length
    if (more > 0 || !row.rooms.length) {
      const item = document.createElement('li')
      item.textContent = more > 0 ? `and ${count(more)} more` : 'In no room'
      list.append(item)
    }
  }

  /** @param {string} room */
  #room(room) {
    const item = document.createElement('li')
    const button = document.createElement('button')
    button.type = 'button'
    button.className = 'plain'
    button.append('Look into ', named(room), '…')
    button.addEventListener('click', () => this.#onroom(room))
    item.append(button)
    return item
  }

  async #close() {
    const row = this.#row
    if (!row || this.#gone) return
    const filled = await confirm({
      title: 'Close this connection?',
      text: ['The connection of ', ...whose(row), ' is closed. Its page may connect again by itself.'],
      verb: 'Close the connection',
      danger: true,
      fields: [
        {name: 'code', label: 'Close code', kind: 'number', value: '1000', min: 1000, max: 4999, required: ''},
        {name: 'reason', label: 'Reason, which the client gets', kind: 'text', maxlength: 123},
      ],
    })
    if (!filled) return
    const answer = await ask('close', {id: row.id, code: Number(filled.get('code')), reason: filled.get('reason')})
    tell(answer.say, answer.ok)
  }

  async #send() {
    const row = this.#row
    if (!row || this.#gone) return
    const filled = await confirm({
      title: 'Send a test message?',
      text: [...whose(row), ' gets this text as a message, as if the app had sent it.'],
      verb: 'Send the message',
      fields: [{name: 'text', label: 'Text', kind: 'lines', rows: 4, maxlength: 4096, required: ''}],
    })
    if (!filled) return
    const answer = await ask('send', {id: row.id, text: filled.get('text')})
    tell(answer.say, answer.ok)
  }
}

/** @param {Element} facts @param {string} term */
function fact(facts, term) {
  const id = `fact-${term.replace(' ', '-').toLowerCase()}`
  const known = facts.querySelector(`#${id}`)
  if (known) return known
  const place = document.createElement('div')
  const [title, value] = ['dt', 'dd'].map(tag => document.createElement(tag))
  const text = document.createElement('bdi')
  title.textContent = term
  text.id = id
  value.append(text)
  place.append(title, value)
  facts.append(place)
  return text
}
