const [log, form, text, status] = ["log", "form", "text", "status"]
  .map((id) => document.getElementById(id));

let socket;
let attempt = 0;

function connect() {
  socket = new WebSocket(log.dataset.url);
  socket.onopen = () => {
    attempt = 0;
    status.textContent = "Connected";
  };
  socket.onmessage = (event) => show(JSON.parse(event.data));
  socket.onclose = () => {
    // A random delay that grows: thousands of pages must not all come back in the same second.
    const most = Math.min(30000, 500 * 2 ** attempt++);
    status.textContent = "Connection lost, trying again";
    setTimeout(connect, Math.random() * most);
  };
}

function show(message) {
  const line = document.createElement("li");
  line.textContent = message.text; // textContent: what people write never becomes HTML
  log.append(line);
}

form.onsubmit = (event) => {
  event.preventDefault();
  if (socket.readyState !== WebSocket.OPEN) return;
  socket.send(text.value);
  form.reset();
};

connect();
