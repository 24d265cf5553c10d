// @ts-check
/** The table of rooms, and the inside of one: who is there, and what was said last. */

import {ask} from './actions.js'
import {confirm, named, tell} from './dialogs.js'
import {LONG, bytes, count, counted, moment, say, sayName} from './text.js'

/** @typedef {{room: string, connections: number}} Room */

/** @param {string} id */
const at = id => /** @type {HTMLElement} */ (document.getElementById(id))

/**
 * Show the rooms with the most connections.
 * @param {{rows: Room[], more: boolean}} rooms
 */
export function showRooms({rows, more}) {
  const body = /** @type {HTMLTableElement} */ (at('rooms')).tBodies[0]
  if (body.contains(document.activeElement)) return
  rows.forEach((room, index) => showRoom(body.rows[index] ?? makeRow(body), room))
  while (body.rows.length > rows.length) body.deleteRow(-1)
  at('no-room').hidden = rows.length > 0
  say(at('rooms-count'), more ? `the ${count(rows.length)} largest` : count(rows.length))
}

/** @param {HTMLTableSectionElement} body */
function makeRow(body) {
  const row = body.insertRow()
  const name = document.createElement('th')
  name.scope = 'row'
  const button = document.createElement('button')
  button.type = 'button'
  button.className = 'plain open'
  button.append(named(''))
  name.append(button)
  row.append(name)
  row.insertCell().className = 'number'
  return row
}

/** @param {HTMLTableRowElement} row @param {Room} room */
function showRoom(row, {room, connections}) {
  const button = /** @type {HTMLButtonElement} */ (row.querySelector('button'))
  sayName(/** @type {Element} */ (button.firstElementChild), room)
  button.onclick = () => look(room)
  say(row.cells[1], count(connections))
}

/**
 * Look into a room, once it is confirmed.
 * @param {string} room
 */
export async function look(room) {
  const filled = await confirm({
    title: 'Look into this room?',
    text: ['You see who is in ', named(room), ' and how much was said there last.'],
    verb: 'Look into the room',
    fields: [
      {name: 'payloads', kind: 'check', label: 'Show what was said, too, and what the app keeps about its members'},
    ],
  })
  if (!filled) return
  const answer = await ask('room', {room, payloads: filled.has('payloads')})
  if (!answer.ok) tell(answer.say, false)
  else showInside(room, answer)
}

/** @param {string} room @param {import('./actions.js').Answer} answer */
function showInside(room, {data, say: summary}) {
  const box = /** @type {HTMLDialogElement} */ (at('inside'))
  sayName(/** @type {Element} */ (box.querySelector('h2 bdi')), room, LONG)
  box.dataset.room = room
  at('inside-count').textContent = summary
  at('inside-incomplete').hidden = data.complete
  showList('inside-presence', data.presence, member, 'Who is here is not kept for this room.', data.presence_total)
  showList('inside-history', data.history?.messages, message, 'What was said is not kept for this room.')
  if (!box.open) box.showModal()
}

/**
 * @param {string} id @param {any[] | null | undefined} values @param {(value: any) => Element} show
 * @param {string} otherwise @param {number} total
 */
function showList(id, values, show, otherwise, total = 0) {
  const items = (values ?? []).map(show)
  const more = values && total > values.length ? `and ${count(total - values.length)} more` : ''
  const text = values ? more || (values.length ? '' : 'Nothing yet.') : otherwise
  at(id).replaceChildren(...items)
  if (!text) return
  const item = document.createElement('li')
  item.className = 'quiet'
  item.textContent = text
  at(id).append(item)
}

/** @param {{user: string | null, connections: number, info?: string}} value info: as JSON */
function member({user, connections, info}) {
  const item = document.createElement('li')
  item.append(named(user), document.createElement('small'))
  const known = info === undefined || info === 'null' ? '' : `, ${info}`
  sayName(/** @type {Element} */ (item.lastElementChild), `${counted(connections, 'connection')}${known}`, LONG)
  return item
}

/** @param {{time: number, text: boolean, size: number, data?: string}} value */
function message({time, text, size, data}) {
  const item = document.createElement('li')
  const head = document.createElement('small')
  head.textContent = `${moment(time)}, ${bytes(size)}${text ? '' : ', binary'}`
  item.append(head)
  if (data !== undefined) item.append(named(data))
  return item
}
