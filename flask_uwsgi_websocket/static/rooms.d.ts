/** The subprotocol that the server speaks on routes with resume=True. */
export const PROTOCOL: 'flask-uwsgi-rooms.v1'

/** What goes as it is; all else is sent as JSON. */
export type Raw = string | ArrayBuffer | ArrayBufferView | Blob

export type State = 'connecting' | 'open' | 'waiting' | 'closed'

export interface StateDetail {
  /** waiting: seconds until it connects again. */
  seconds?: number
  /** waiting, closed: the close code; 1006 where there was none. */
  code?: number
  reason?: string
  /** closed: the status of HTTP by which it was refused, 401 or 403. */
  status?: number
  /** closed: what was to be sent. */
  unsent?: unknown[]
}

export interface From {
  room: string
  /** The position of the message, in a room that is kept. */
  at?: string
}

export interface Presence {
  room: string
  /** How many users are there. */
  count: number
  /** Who came and went; not in large rooms. */
  join?: {user: string; info: any}[]
  leave?: {user: string}[]
}

export interface Options {
  /** Positions to go on from, by room, such as the page was rendered with. */
  since?: Record<string, string | null | undefined>
  /** How many messages `send` keeps while it is not connected; by default 0: it throws. */
  buffer?: number
  /** Whether to reconnect after a close code; undefined: as by default. */
  retry?: (code: number, reason: string) => boolean | undefined
  /** Seconds that connecting may take; by default 20. */
  timeout?: number
  /** In the place of the platform's, such as the one of the package ws. */
  WebSocket?: new (url: string, protocols: string) => unknown
  fetch?: (url: string, options: {cache: 'no-store'}) => Promise<{status: number}>
}

/** Where to connect to; a function is asked each time, such as for a token in the URL. */
export type Address = string | URL | (() => string | URL | Promise<string | URL>)

/** Connect to a route with resume=True, and reconnect whenever that is of use. */
export function connect(url: Address, options?: Options): Connection

export class Connection {
  constructor(url: Address, options?: Options)

  /** The id that the server knows this connection by; new for each. */
  readonly id: string
  readonly state: State
  /** How far it has got in each room that is kept, for `since`. */
  readonly positions: Record<string, string>

  on(event: 'state', listener: (state: State, detail: StateDetail) => void): () => void
  /** What was sent to this client alone, to its user, or to all. */
  on(event: 'message', listener: (data: any) => void): () => void
  on(event: 'join', listener: (room: string, detail: {at?: string; recovered?: boolean}) => void): () => void
  on(event: 'leave', listener: (room: string) => void): () => void
  /** Too much was missed in a room: its state must be loaded anew. */
  on(event: 'resync', listener: (room: string) => void): () => void
  on(event: 'presence', listener: (presence: Presence) => void): () => void
  /** Messages from a room; with '*' from all rooms. */
  on(room: string, listener: (data: any, from: From) => void): () => void

  /**
   * Send a text or bytes as they are, all else as JSON.
   * @throws Error where it is not connected, and no place in the buffer is left.
   */
  send(data: Raw | object | number | boolean | null): void

  close(code?: number, reason?: string): void
  /** Connect now: while it waits, or after it was closed. */
  reconnect(): void
}
