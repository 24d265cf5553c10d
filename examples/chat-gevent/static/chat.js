const [join, name, chat, log, composer, text, send, status, online, process] =
  ["join", "name", "chat", "log", "composer", "text", "send", "status", "online", "process"]
    .map((id) => document.getElementById(id));

const RETRIED = [1001, 1006, 1012]; // going away, vanished, restarting
const KEPT_LINES = 500;
let socket, attempt = 0, me;

function connect() {
  const url = new URL("chat", location.href);
  url.protocol = url.protocol.replace("http", "ws");
  url.searchParams.set("name", name.value);
  show("Connecting");
  socket = new WebSocket(url);
  socket.onopen = () => { attempt = 0; show("Connected", true); };
  socket.onmessage = ({ data }) => receive(JSON.parse(data));
  socket.onclose = ({ code, reason }) => {
    const why = `Closed: ${code}${reason && ` ${reason}`}`;
    online.textContent = process.textContent = "";
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
  if (event.you) {
    me = event.you;
    process.textContent = `process ${event.process}`;
  } else if (event.kind === "message") {
    addMessage(event);
  } else {
    online.textContent = `${event.online} online`;
    addNotice(`${event.name} ${event.kind === "join" ? "joined" : "left"}`);
  }
}

// What people write reaches the page as text only, never as HTML.
function element(tag, className, content) {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = content;
  return made;
}

function addNotice(content) {
  addLine(element("li", "notice", content));
}

function addMessage(event) {
  const line = element("li", event.id === me ? "mine" : "", "");
  const author = element("span", "name", event.name);
  author.style.setProperty("--hue", hue(event.name));
  const bubble = element("div", "bubble", event.text);
  bubble.append(element("time", "", new Date().toLocaleTimeString([], { timeStyle: "short" })));
  line.append(author, bubble);
  addLine(line);
}

function addLine(line) {
  const atBottom = log.scrollHeight - log.scrollTop - log.clientHeight < 50;
  log.append(line);
  if (log.childElementCount > KEPT_LINES) log.firstElementChild.remove();
  if (atBottom) log.scrollTop = log.scrollHeight;
}

function hue(word) {
  let sum = 0;
  for (const letter of word) sum = (sum * 31 + letter.codePointAt()) % 360;
  return sum;
}

join.onsubmit = (event) => {
  event.preventDefault();
  join.hidden = true;
  chat.hidden = false;
  text.focus();
  connect();
};

composer.onsubmit = (event) => {
  event.preventDefault();
  if (socket.readyState !== WebSocket.OPEN) return;
  socket.send(text.value);
  composer.reset();
};
