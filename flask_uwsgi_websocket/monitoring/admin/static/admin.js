// Shows what comes, as it comes.
const url = new URL("updates", location.href);
url.protocol = url.protocol.replace("http", "ws");
const socket = new WebSocket(url);
socket.onopen = () => socket.send(JSON.stringify({ type: "watch", stats: true, connections: {}, rooms: {} }));
socket.onmessage = (event) => {
  document.getElementById("messages").textContent += event.data + "\n";
};
