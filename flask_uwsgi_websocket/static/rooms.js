/**
 * The client of Flask-uWSGI-WebSocket: reconnects by itself, and gets what was sent meanwhile to rooms
 * that are kept, in order and once; or is told that it has missed too much. For routes with
 * resume=True; docs/javascript.rst of the package tells more.
 */

export const PROTOCOL = 'flask-uwsgi-rooms.v1'

/** Names that `on` takes and that are no rooms: a room of such a name is heard by '*'. */
const EVENTS = ['message', 'join', 'leave', 'resync', 'presence', 'state', '*']
/** Seconds: of the first wait and the longest, each a random part of it; those after 1012, 1013. */
const FIRST = 0.5, LONGEST = 30, RESTART = 5, BUSY = 5
/** Seconds after which a connection that was open counts as a good one: the waits begin anew. */
const GOOD = 5
/** Refusals after which a request of the same URL tells whether it is of use to go on. */
const REFUSALS = 5
/** Signs of life that may fail to come. */
const PATIENCE = 2.5
/** Bytes of positions in a URL: servers limit what they read of a request. */
const SINCE = 1500

/** Connect to a route; see rooms.d.ts for the options. */
export function connect(url, options) {
  return new Connection(url, options)
}

export class Connection {
  /** The id that the server knows this connection by, such as for `exclude=`; new for each. */
  id = ''
  #url
  #options
  #socket
  #state = 'connecting'
  #listeners = new Map()
  #positions // of rooms that are kept; the one that was heard of last is the last
  #queue = []
  #attempts = 0
  #refusals = 0
  #openedAt = 0
  #heardAt = 0
  #patience = 0 // milliseconds without a sign of life; 0: for ever
  #serial = 0 // of what waits: something newer makes it void
  #timer
  #alarm

  constructor(url, options = {}) {
    this.#options = {buffer: 0, timeout: 20, since: {}, ...options}
    this.#url = url
    this.#positions = new Map(Object.entries(this.#options.since).filter(([, at]) => at))
    if (typeof url !== 'function') this.#address(url) // raises
    this.#open()
  }

  /** 'connecting', 'open', 'waiting' or 'closed'. */
  get state() {
    return this.#state
  }

  /** How far it has got in each room that is kept, for `since`. */
  get positions() {
    return Object.fromEntries(this.#positions)
  }

  /** Call a function with what comes from a room, or happens; return what ends that. */
  on(name, listener) {
    if (!this.#listeners.has(name)) this.#listeners.set(name, new Set())
    this.#listeners.get(name).add(listener)
    return () => this.#listeners.get(name).delete(listener)
  }

  /** Send a text or bytes as they are, all else as JSON. */
  send(data) {
    const raw = typeof data === 'string' || data instanceof ArrayBuffer || ArrayBuffer.isView(data)
    if (!raw && !(globalThis.Blob && data instanceof Blob)) data = JSON.stringify(data)
    if (this.#state === 'open' && this.#socket.readyState === 1) this.#socket.send(data)
    else if (this.#state !== 'closed' && this.#queue.length < this.#options.buffer) this.#queue.push(data)
    else throw new Error(`not sent: the connection is ${this.#state === 'open' ? 'closing' : this.#state}`)
  }

  /** Close it for good, or until reconnect(). */
  close(code = 1000, reason = '') {
    const socket = this.#forget()
    this.#end({code, reason})
    socket?.close(code, reason)
  }

  /** Connect now: while it waits, or when it was closed. */
  reconnect() {
    if (this.#state === 'waiting' || this.#state === 'closed') this.#open()
  }

  #emit(name, ...values) {
    for (const listener of [...(this.#listeners.get(name) ?? [])]) {
      try {
        listener(...values)
      } catch (error) {
        queueMicrotask(() => {
          throw error // as listeners of the platform do: it stops nobody else
        })
      }
    }
  }

  #set(state, detail = {}) {
    this.#state = state
    this.#emit('state', state, detail)
  }

  // ---- connecting

  #wake = event => {
    if (event.type === 'visibilitychange' && document.hidden) return
    if (this.#state === 'waiting') this.#open()
    else if (this.#state === 'open') this.#watch() // timers may be late by a minute, or a night
  }

  #address(url, since) {
    const address = new URL(url, globalThis.location?.href)
    address.protocol = address.protocol.replace(/^http/, 'ws')
    if (since) address.search += (address.search ? '&' : '?') + `_since=${since}&_was=${this.id}`
    return address.href
  }

  /** What the query says: the rooms heard of last, as many as there is place for. */
  #since() {
    let since = ''
    for (const [room, at] of [...this.#positions].reverse()) {
      const one = encodeURIComponent(`${room.replace(/[%,:]/g, encodeURIComponent)}:${at}`)
      if (since.length + one.length < SINCE) since += (since && ',') + one
    }
    return since
  }

  async #open() {
    const serial = ++this.#serial
    clearTimeout(this.#timer)
    globalThis.addEventListener?.('online', this.#wake)
    globalThis.document?.addEventListener('visibilitychange', this.#wake)
    await 0 // whoever has called it hears of all that follows
    if (serial !== this.#serial) return
    this.#set('connecting')
    let address
    try {
      const url = typeof this.#url === 'function' ? await this.#url() : this.#url
      address = this.#address(url, this.#since())
    } catch (error) {
      if (serial === this.#serial) this.#lost({code: 1006, reason: `${error}`})
      return
    }
    if (serial === this.#serial) this.#connect(address)
  }

  #connect(address) {
    const socket = new (this.#options.WebSocket ?? WebSocket)(address, PROTOCOL)
    this.#socket = socket
    socket.binaryType = 'arraybuffer'
    socket.onopen = () => {
      if (socket.protocol === PROTOCOL) return
      this.#forget().close() // a browser that is less strict than others
      this.#end({code: 1002, reason: 'the route has no resume=True'})
    }
    socket.onmessage = ({data}) => this.#receive(data)
    socket.onerror = () => {} // its close follows; Node's ws raises where nobody listens
    socket.onclose = ({code, reason}) => this.#lost({code, reason})
    this.#heardAt = Date.now()
    this.#patience = 1000 * this.#options.timeout
    this.#watch()
  }

  /** Wait for signs of life. */
  #watch() {
    clearTimeout(this.#alarm)
    if (!this.#patience) return
    const left = this.#heardAt + this.#patience - Date.now()
    // A timer takes 24 days at most, and takes more for none.
    if (left > 0) this.#alarm = setTimeout(() => this.#watch(), Math.min(left, 1e9))
    else {
      const socket = this.#forget()
      this.#lost({code: 1006, reason: 'no sign of life'})
      socket?.close()
    }
  }

  /** Hear no more of the socket, if there is one; return it. */
  #forget() {
    const socket = this.#socket
    this.#socket = undefined
    if (socket) socket.onopen = socket.onmessage = socket.onclose = null
    return socket
  }

  async #lost({code, reason}) {
    const serial = ++this.#serial
    clearTimeout(this.#alarm)
    this.#forget()
    const opened = this.#openedAt
    this.#openedAt = 0
    this.#refusals = opened ? 0 : this.#refusals + 1
    if (opened && Date.now() - opened > 1000 * GOOD) this.#attempts = 0
    if (!(this.#options.retry?.(code, reason) ?? mayRetry(code))) return this.#end({code, reason})
    const seconds = waitAfter(code, this.#attempts++)
    this.#set('waiting', {seconds, code, reason})
    if (serial !== this.#serial) return
    this.#timer = setTimeout(() => this.#open(), 1000 * seconds)
    if (this.#refusals === REFUSALS) this.#ask(serial)
  }

  /** Ask whether it is refused, which a browser does not tell from a network that fails. */
  async #ask(serial) {
    try {
      const url = typeof this.#url === 'function' ? await this.#url() : this.#url
      const ask = this.#options.fetch ?? fetch
      const {status} = await ask(this.#address(url).replace(/^ws/, 'http'), {cache: 'no-store'})
      if ((status === 401 || status === 403) && this.#state !== 'open' && this.#state !== 'closed') {
        this.#forget()?.close()
        this.#end({code: 1006, reason: `refused with ${status}`, status})
      }
    } catch {
      // It is the network.
    }
  }

  #end(detail) {
    this.#serial++
    clearTimeout(this.#timer)
    clearTimeout(this.#alarm)
    globalThis.removeEventListener?.('online', this.#wake)
    globalThis.document?.removeEventListener('visibilitychange', this.#wake)
    this.#attempts = this.#refusals = this.#openedAt = 0
    const unsent = this.#queue
    this.#queue = []
    if (this.#state !== 'closed') this.#set('closed', {...detail, unsent})
  }

  // ---- receiving

  #receive(data) {
    this.#heardAt = Date.now()
    if (typeof data !== 'string') return this.#emit('message', data)
    const frame = JSON.parse(data)
    if (frame.hello) this.#greet(frame.hello)
    else if ('in' in frame) this.#joined(frame.in, frame)
    else if ('out' in frame) {
      this.#positions.delete(frame.out)
      this.#emit('leave', frame.out)
    } else if (frame.presence) this.#emit('presence', frame.presence)
    else if ('room' in frame) this.#deliver(frame)
    else if ('text' in frame || 'json' in frame) this.#emit('message', contentOf(frame))
  }

  #greet({id, ping}) {
    this.id = id
    this.#openedAt = Date.now()
    this.#patience = 1000 * PATIENCE * ping
    this.#watch()
    while (this.#queue.length && this.#socket.readyState === 1) this.#socket.send(this.#queue.shift())
    this.#set('open')
  }

  #joined(room, {at, recovered}) {
    const known = this.#positions.get(room)
    // It was asked for what it has missed, or there was no place for that in the URL.
    const missed = recovered === false || (recovered === undefined && known && at && at !== known)
    if (at && !recovered) this.#move(room, at)
    this.#emit('join', room, {at, recovered})
    if (missed) this.#emit('resync', room)
  }

  #deliver(frame) {
    const {room, at} = frame
    if (at) {
      if (isBehind(at, this.#positions.get(room))) return
      this.#move(room, at)
    }
    const data = contentOf(frame)
    if (data === undefined) return // it was for others
    if (!EVENTS.includes(room)) this.#emit(room, data, {room, at})
    this.#emit('*', data, {room, at})
  }

  #move(room, at) {
    this.#positions.delete(room)
    this.#positions.set(room, at)
  }
}

function mayRetry(code) {
  return ![1000, 1002, 1003].includes(code) && !(code >= 1007 && code <= 1010) && !(code >= 4000)
}

/** Seconds to wait: at random, for the others wait too. */
function waitAfter(code, attempts) {
  if (code === 1012) return Math.random() * RESTART
  const most = Math.min(LONGEST, FIRST * 2 ** attempts)
  return Math.random() * most + (code === 1013 ? BUSY : 0)
}

function isBehind(at, known) {
  const [epoch, offset] = split(at)
  const [ours, last] = split(known ?? '')
  return epoch === ours && offset <= last
}

function split(at) {
  const dot = at.lastIndexOf('.')
  return [at.slice(0, dot), Number(at.slice(dot + 1))]
}

function contentOf({text, json, b64}) {
  return text ?? (b64 === undefined ? json : Uint8Array.from(atob(b64), c => c.charCodeAt(0)).buffer)
}
