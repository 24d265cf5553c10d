const [log, form, text, status, people] = ["log", "form", "text", "status", "people"]
  .map((id) => document.getElementById(id));

let socket;
let attempt = 0;

function connect() {
  socket = new WebSocket(log.dataset.url);
  socket.onopen = () => {
    attempt = 0;
    status.textContent = "Connected";
    log.replaceChildren(); // what was said comes again
  };
  socket.onmessage = (event) => show(JSON.parse(event.data));
  socket.onclose = (event) => {
    if (event.code === 4401) return location.assign("/login");
    // A random delay that grows: thousands of pages must not all come back in the same second.
    const most = Math.min(30000, 500 * 2 ** attempt++);
    status.textContent = "Connection lost, trying again";
    setTimeout(connect, Math.random() * most);
  };
}

function show(message) {
  if (message.here) {
    people.textContent = `Here: ${message.here.join(", ")}`;
    return;
  }
  const line = document.createElement("li");
  line.textContent = `${message.name}: ${message.text}`;
  log.append(line);
}

form.onsubmit = (event) => {
  event.preventDefault();
  if (socket.readyState !== WebSocket.OPEN) return;
  socket.send(text.value);
  form.reset();
};

connect();
