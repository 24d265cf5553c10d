// Socket.IO with its adapter for Redis.
"use strict";

const { createAdapter } = require("@socket.io/redis-adapter");
const Redis = require("ioredis");
const { Server } = require("socket.io");

const publisher = new Redis(process.env.BENCHMARK_REDIS);
const io = new Server({
  transports: ["websocket"],
  adapter: createAdapter(publisher, publisher.duplicate()),
});

io.on("connection", (socket) => {
  socket.on("join", (room) => socket.join(room));
  socket.on("say", (room, message) => io.to(room).emit("said", message));
});

io.listen(Number(process.env.BENCHMARK_PORT));
