const [log, composer, text, send, status, process] =
  ["log", "composer", "text", "send", "status", "process"].map((id) => document.getElementById(id));

const RETRIED = [1001, 1006, 1012, 1013]; // going away, vanished, restarting, Redis is away
const KEPT_LINES = 500;
let socket, attempt = 0, me;

function connect() {
  const url = new URL(location.href);
  url.protocol = url.protocol.replace("http", "ws");
  url.hash = "";
  show("Connecting");
  socket = new WebSocket(url);
  socket.onmessage = ({ data }) => receive(JSON.parse(data));
  socket.onclose = ({ code, reason }) => {
    process.textContent = "";
    const why = `Closed: ${code}${reason && ` ${reason}`}`;
    if (!RETRIED.includes(code)) return show(why);
    // The jitter keeps a thousand pages from coming back in the same instant.
    const delay = Math.min(15, 0.5 * 2 ** attempt++) * (0.5 + Math.random() / 2);
    show(`${why}, back in ${delay.toFixed(1)} s`);
    setTimeout(connect, delay * 1000);
  };
}

function show(message, open = false) {
  status.textContent = message;
  status.className = open ? "open" : "";
  send.disabled = !open;
}

function receive(event) {
  if (event.you) { // comes first, once we are in the room
    me = event.you;
    attempt = 0;
    process.textContent = `process ${event.process}`;
    return show("Connected", true);
  }
  // What people write reaches the page as text only, never as HTML.
  const line = element("li", event.from === me ? "mine" : "", "");
  const bubble = element("div", "bubble", event.text);
  bubble.append(element("time", "", new Date().toLocaleTimeString([], { timeStyle: "short" })));
  line.append(bubble);
  const atBottom = log.scrollHeight - log.scrollTop - log.clientHeight < 50;
  log.append(line);
  if (log.childElementCount > KEPT_LINES) log.firstElementChild.remove();
  if (atBottom) log.scrollTop = log.scrollHeight;
}

function element(tag, className, content) {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = content;
  return made;
}

composer.onsubmit = (event) => {
  event.preventDefault();
  if (socket.readyState !== WebSocket.OPEN) return;
  socket.send(text.value);
  composer.reset();
};

connect();
