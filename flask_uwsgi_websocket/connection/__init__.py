"""One WebSocket connection over a descriptor, and all of a worker: the rules of every engine."""
