// Node's ws.
"use strict";

const { WebSocketServer } = require("ws");

const listening = new Set();
const server = new WebSocketServer({
  host: "127.0.0.1",
  port: Number(process.env.BENCHMARK_PORT),
  perMessageDeflate: process.env.BENCHMARK_COMPRESSION === "1",
});

server.on("connection", (ws, request) => {
  if (request.url === "/echo") {
    ws.on("message", (data, isBinary) => ws.send(data, { binary: isBinary }));
    return;
  }
  listening.add(ws);
  ws.on("close", () => listening.delete(ws));
  ws.on("message", (data, isBinary) => {
    for (const each of listening) each.send(data, { binary: isBinary });
  });
});
