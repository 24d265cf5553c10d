// @ts-check
/** The page: what it asks the server to watch, and where what comes is shown. */

import {useToken} from './actions.js'
import {Detail} from './dialogs.js'
import {Link} from './link.js'
import {Overview} from './overview.js'
import {look, showRooms} from './rooms.js'
import {Rows} from './table.js'
import {clock, count, duration, say, sayName} from './text.js'

/** Seconds after which figures that should have come count as old. */
const OLD = 6
/** Milliseconds that somebody may type before it is searched for. */
const TYPING = 250

/** @param {string} id */
const at = id => /** @type {HTMLElement} */ (document.getElementById(id))
/** @template {keyof HTMLElementTagNameMap} T @param {T} tag @param {string} id */
const element = (tag, id) => /** @type {HTMLElementTagNameMap[T]} */ (document.getElementById(id))

const overview = new Overview()
const rows = new Rows(element('table', 'rows'), () => watch(), row => detail.open(row, now))
const detail = new Detail(watchOne, look)
const link = new Link('updates', showState, take)

/** @type {string | null} the one connection that is shown in the panel */
let one = null
let tag = 0 // of the last watch
let answered = true // whether it has been answered
let heardAt = 0
let now = 0 // by the server's clock
let paused = false
/** @type {import('./link.js').State} */
let state = 'connecting'
let againAt = 0
/** @type {import('./table.js').Table | undefined} */
let table

// ---- what is watched

/**
 * Say what is to come.
 * @param {boolean} asked whether somebody wants to see something else in the table
 * @param {boolean} history whether what was before is to come, too
 */
function watch(asked = true, history = false) {
  answered = !asked && table !== undefined
  const connections = one === null
    ? {...rows.view, tag: ++tag}
    : {search: one, field: 'id', exact: true, limit: 1, hide_admins: false, tag: ++tag}
  const rooms = {search: element('input', 'rooms-search').value, limit: 25}
  link.send({type: 'watch', stats: true, history, connections, rooms})
}

/** @param {string | null} id */
function watchOne(id) {
  one = id
  watch(false)
}

/** @param {any} message */
function take(message) {
  heardAt = Date.now()
  if (message.type === 'hello') greet(message)
  else if (message.type === 'connections') takeConnections(message)
  else if (message.type === 'error') say(at('trouble'), `The server says: ${message.error}`)
  else if (paused) return
  else if (message.type === 'stats') overview.update(message)
  else if (message.type === 'history') overview.remember(message.points)
  else if (message.type === 'rooms') showRooms(message)
  showAge()
}

/** @param {import('./table.js').Table} message */
function takeConnections(message) {
  now = message.time
  if (message.tag !== undefined && message.tag !== null && message.tag !== tag) return
  say(at('trouble'), '')
  if (one !== null) return detail.update(message)
  if (paused && answered) return
  table = message
  const held = rows.update(message, !answered)
  answered = true
  at('held').hidden = !held
  showPlace(message)
  showMissing(message)
}

// ---- what is shown

/** @param {{who: string, token: string}} hello */
function greet({who, token}) {
  useToken(token)
  at('you').hidden = false
  sayName(at('who'), who)
}

const STATES = {
  connecting: 'Connecting', open: 'Live', waiting: 'Disconnected', refused: 'Not allowed',
}

/** @param {import('./link.js').State} next @param {import('./link.js').Detail} more */
function showState(next, more) {
  state = next
  againAt = Date.now() + 1000 * (more.seconds ?? 0)
  if (next !== 'connecting') {
    const place = at('state')
    place.dataset.state = next
    say(place, STATES[next])
  }
  at('retry').hidden = next === 'open' || next === 'connecting'
  at('refused').hidden = next !== 'refused'
  if (more.refused) say(at('trouble'), 'This page loads, but its WebSocket is refused: the log of the server says why.')
  if (next === 'open') watch(false, true)
  else overview.interrupt()
  showAge()
}

/** @param {import('./table.js').Table} table */
function showPlace({position, rows: shown, matched, total, first, last}) {
  const end = position + shown.length - 1
  const all = matched === total ? '' : ` (${count(total)} in all)`
  const lines = shown.length ? `${count(position)} to ${count(end)} of ${count(matched)}` : 'none'
  say(at('count'), lines + all)
  at('none').hidden = shown.length > 0
  const isFirst = !shown.length || position <= 1
  const isLast = !shown.length || end >= matched
  // Not `disabled`, which would take the focus from the button that somebody pages with.
  for (const id of ['first', 'previous']) at(id).setAttribute('aria-disabled', String(isFirst))
  for (const id of ['next', 'last']) at(id).setAttribute('aria-disabled', String(isLast))
  at('next').onclick = () => isLast || rows.set({after: last})
  at('previous').onclick = () => isFirst || rows.set({before: first})
}

/** @param {import('./table.js').Table} shown */
function showMissing({complete, missing}) {
  const who = missing.length === 1 ? `worker ${missing[0]}` : `workers ${missing.join(', ')}`
  const text = missing.length ? who : 'another machine'
  const notice = `Incomplete: ${text} did not answer, so some connections and rooms are missing.`
  say(at('incomplete'), complete ? '' : notice)
}

/** Say how old the figures are where they are, each second. */
function showAge() {
  const seconds = (Date.now() - heardAt) / 1000
  const old = heardAt > 0 && seconds > OLD
  document.body.classList.toggle('old', old || paused)
  at('stale').hidden = !old
  if (old) say(at('stale'), `These figures are ${duration(seconds)} old, of ${clock(heardAt / 1000)}.`)
  const wait = Math.max(0, Math.ceil((againAt - Date.now()) / 1000))
  say(at('again'), state === 'waiting' ? `again in ${wait} s` : '')
}

// ---- what people do

/** @param {string} id @param {() => void} then */
function typed(id, then) {
  let timer = 0
  at(id).addEventListener('input', () => {
    clearTimeout(timer)
    timer = setTimeout(then, TYPING)
  })
  at(id).closest('form')?.addEventListener('submit', event => {
    event.preventDefault()
    clearTimeout(timer)
    then()
  })
}

function search() {
  const text = element('input', 'search').value
  rows.set({search: text, field: element('select', 'field').value, exact: false})
}

typed('search', search)
typed('rooms-search', () => watch(false))
at('field').addEventListener('change', search)
at('own').addEventListener('change', () => rows.set({hide_admins: !element('input', 'own').checked}))
at('limit').addEventListener('change', () => rows.set({limit: Number(element('select', 'limit').value)}))
at('first').addEventListener('click', () => rows.set({}))
at('last').addEventListener('click', () => rows.set({before: 'end'}))
at('retry').addEventListener('click', () => link.connect())
at('reload').addEventListener('click', () => location.reload())
at('pause').addEventListener('click', () => {
  paused = !paused
  at('pause').setAttribute('aria-pressed', String(paused))
  if (paused) overview.interrupt()
  else watch(false)
  showAge()
})
at('inside-connections').addEventListener('click', () => {
  const room = at('inside').dataset.room ?? ''
  for (const open of document.querySelectorAll('dialog[open]')) /** @type {HTMLDialogElement} */ (open).close()
  element('input', 'search').value = room
  element('select', 'field').value = 'room'
  rows.set({search: room, field: 'room', exact: true})
  at('connections').focus()
})

setInterval(showAge, 1000)
link.connect()
