// @ts-check
/** The WebSocket that the figures come by: it connects again by itself. */

/** Seconds: the first wait and the longest, each a random part of it, at least half. */
const FIRST = 1, LONGEST = 30
/** Seconds that a connection has to hold so that the waits begin with the first again. */
const GOOD = 5
/** Seconds without a message after which a connection is given up. */
const SILENCE = 15
/** The close code by which the server asks whether this user may still be here: by a new handshake. */
const RENEW = 4001

/** @typedef {'connecting' | 'open' | 'waiting' | 'refused'} State */
/** @typedef {{seconds?: number, status?: number, refused?: boolean}} Detail refused: again, while the page is not */

export class Link {
  /** @type {WebSocket | undefined} */
  #socket
  #url
  #attempts = 0
  #refusals = 0
  #openedAt = 0
  #heardAt = 0
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer
  #onstate
  #onmessage

  /**
   * @param {string} path
   * @param {(state: State, detail: Detail) => void} onstate
   * @param {(message: any) => void} onmessage
   */
  constructor(path, onstate, onmessage) {
    this.#url = new URL(path, document.baseURI)
    this.#url.protocol = this.#url.protocol.replace('http', 'ws')
    this.#onstate = onstate
    this.#onmessage = onmessage
    addEventListener('online', () => this.#socket || this.connect())
    setInterval(() => this.#watch(), 1000)
  }

  /** Connect now. */
  connect() {
    this.#onstate('connecting', {})
    this.#open()
  }

  /**
   * Send, if it is open.
   * @param {object} message
   */
  send(message) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message))
  }

  #open() {
    clearTimeout(this.#timer)
    const socket = (this.#socket = new WebSocket(this.#url))
    this.#heardAt = Date.now()
    this.#openedAt = 0
    socket.onopen = () => socket === this.#socket && this.#opened()
    socket.onmessage = event => {
      if (socket !== this.#socket) return
      this.#heardAt = Date.now()
      this.#onmessage(JSON.parse(event.data))
    }
    socket.onclose = event => socket === this.#socket && this.#closed(event.code)
  }

  #opened() {
    this.#openedAt = Date.now()
    this.#onstate('open', {})
  }

  #watch() {
    const socket = this.#socket
    if (!socket || Date.now() - this.#heardAt < SILENCE * 1000) return
    this.#closed(1006)
    socket.close()
  }

  /** @param {number} code */
  async #closed(code) {
    this.#socket = undefined
    const held = this.#openedAt && Date.now() - this.#openedAt > GOOD * 1000
    if (held) this.#attempts = 0
    if (held && code === RENEW) return this.#open()
    // Browsers do not tell a page why a handshake was refused: a request of the page does.
    const status = this.#openedAt && code !== RENEW ? 200 : await statusOfPage()
    if (this.#socket) return undefined
    if (status === 401 || status === 403) return this.#onstate('refused', {status})
    this.#refusals = !this.#openedAt && status === 200 ? this.#refusals + 1 : 0
    const seconds = Math.min(LONGEST, FIRST * 2 ** this.#attempts++) * (0.5 + Math.random() / 2)
    this.#timer = setTimeout(() => this.connect(), seconds * 1000)
    return this.#onstate('waiting', {seconds, refused: this.#refusals > 1})
  }
}

/** @returns {Promise<number>} 0: nobody answers; 401: it leads to another page, as to one for logging in */
async function statusOfPage() {
  try {
    const answer = await fetch(document.baseURI, {cache: 'no-store', redirect: 'manual'})
    return answer.type === 'opaqueredirect' ? 401 : answer.status
  } catch {
    return 0
  }
}
