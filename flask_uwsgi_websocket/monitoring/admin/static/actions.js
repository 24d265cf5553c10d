// @ts-check
/** What the page asks the server to do: requests with the page's token, which no other page has. */

import {bytes, counted} from './text.js'

/** Seconds that an answer may take. */
const PATIENCE = 20

/** @typedef {{ok: boolean, say: string, data: any}} Answer */

let token = ''

/** @param {string} latest what came by the page's own WebSocket */
export function useToken(latest) {
  token = latest
}

/** @param {'close' | 'send' | 'room'} action @param {object} values @returns {Promise<Answer>} */
export async function ask(action, values) {
  const waiting = new AbortController()
  setTimeout(() => waiting.abort(), PATIENCE * 1000)
  try {
    const response = await fetch(new URL(action, document.baseURI), {
      method: 'POST',
      headers: {'Content-Type': 'application/json', 'X-Admin-Token': token},
      body: JSON.stringify(values),
      redirect: 'error',
      signal: waiting.signal,
    })
    return read(response.status, await response.json())
  } catch {
    return {ok: false, say: 'No answer came: whether it was done is not known.', data: {}}
  }
}

/** @param {number} status @param {any} data @returns {Answer} */
function read(status, data) {
  if (status === 200) return {ok: true, say: done(data), data}
  const cause = data.error ?? `the server answered ${status}`
  return {ok: false, say: `Not done: ${cause}${data.reload ? ' (reload this page)' : ''}`, data}
}

/** @param {any} data */
function done(data) {
  if (data.done === 'closing') return 'The connection is being closed.'
  if (data.done === 'sent') return 'The message was sent.'
  if (data.done === 'queued') return `The message waits: the client has ${bytes(data.queued)} to read first.`
  return `${counted(data.connections, 'connection')} of ${counted(data.users, 'user')}.`
}
