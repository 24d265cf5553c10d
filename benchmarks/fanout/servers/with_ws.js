// Node's ws, with Redis' pub/sub by hand.
"use strict";

const Redis = require("ioredis");
const { WebSocketServer } = require("ws");

const publisher = new Redis(process.env.BENCHMARK_REDIS);
const subscriber = new Redis(process.env.BENCHMARK_REDIS);
const rooms = new Map();

subscriber.on("message", (room, message) => {
  for (const ws of rooms.get(room) ?? []) ws.send(message);
});

const server = new WebSocketServer({
  host: "127.0.0.1",
  port: Number(process.env.BENCHMARK_PORT),
});

server.on("connection", (ws, request) => {
  const name = request.url.split("/").pop();
  if (!rooms.has(name)) {
    rooms.set(name, new Set());
    subscriber.subscribe(name);
  }
  const room = rooms.get(name);
  room.add(ws);
  ws.on("message", (data) => publisher.publish(name, data.toString()));
  ws.on("close", () => room.delete(ws));
});
