// Evaluates lines of JavaScript, each a string of JSON, beside the client for rooms; answers with JSON.
import {createRequire} from 'node:module'
import {createInterface} from 'node:readline'

// Debian's package node-ws, where Node has no WebSocket of its own.
globalThis.WebSocket ??= createRequire(import.meta.url)('/usr/share/nodejs/ws').WebSocket
globalThis.rooms = await import(process.argv[2])

for await (const line of createInterface({input: process.stdin})) {
  let answer
  try {
    answer = {value: (await (0, eval)(JSON.parse(line))) ?? null}
  } catch (error) {
    answer = {error: `${error}`}
  }
  console.log(JSON.stringify(answer))
}
