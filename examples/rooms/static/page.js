import { connect } from "/rooms.js";

const [log, composer, text, send, status, process, members, here] =
  ["log", "composer", "text", "send", "status", "process", "members", "here"]
    .map((id) => document.getElementById(id));
const { name, user, position, said } = JSON.parse(document.getElementById("page").textContent);
const room = `chat/${name}`;

const KEPT_LINES = 500;
const present = new Map(); // by user
let last; // who has spoken last

// The page has what was said until `position`; the connection goes on from there, also later.
const chat = connect(location.pathname, { since: { [room]: position } });

chat.on(room, addMessage);
chat.on("doors", showCounts);
chat.on("message", ({ process: id, members: all, counts }) => {
  process.textContent = `process ${id}`;
  present.clear();
  all.forEach((member) => present.set(member.user, member.info));
  showMembers();
  showCounts(counts);
});
chat.on("presence", ({ join = [], leave = [] }) => {
  join.forEach((member) => present.set(member.user, member.info));
  leave.forEach((member) => present.delete(member.user));
  showMembers();
});
chat.on("resync", () => location.reload()); // away for more than the room keeps

let countdown;
chat.on("state", (state, { seconds, code, reason }) => {
  clearInterval(countdown);
  status.className = state;
  send.disabled = state !== "open";
  if (state === "open") status.textContent = "Connected";
  if (state === "connecting") status.textContent = "Connecting";
  if (state === "closed") status.textContent = `Closed: ${code} ${reason}`;
  if (state === "waiting") {
    process.textContent = "";
    const until = Date.now() + 1000 * seconds;
    const show = () => {
      const left = Math.max(0, Math.ceil((until - Date.now()) / 1000));
      status.textContent = `Away, back in ${left} s`;
    };
    show();
    countdown = setInterval(show, 500);
  }
});

composer.onsubmit = (event) => {
  event.preventDefault();
  if (chat.state !== "open") return;
  chat.send(text.value);
  composer.reset();
};

// What people write reaches the page as text only, never as HTML.
function element(tag, className, content = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = content;
  return made;
}

function avatar(of, called) {
  const made = element("span", "avatar", Array.from(called)[0].toUpperCase());
  made.style.setProperty("--hue", hue(of));
  made.ariaHidden = "true";
  return made;
}

function addMessage(message) {
  const atBottom = log.scrollHeight - log.scrollTop - log.clientHeight < 60;
  const line = element("li", message.user === user ? "mine" : "");
  if (message.user === last) line.classList.add("again");
  last = message.user;
  const words = element("div", "words");
  const head = element("div", "head");
  const time = new Date(1000 * message.time);
  head.append(
    element("span", "name", message.name),
    element("time", "", time.toLocaleTimeString([], { timeStyle: "short" })),
  );
  words.append(head, element("div", "bubble", message.text));
  line.append(avatar(message.user, message.name), words);
  log.append(line);
  if (log.childElementCount > KEPT_LINES) log.firstElementChild.remove();
  if (atBottom) log.scrollTop = log.scrollHeight;
}

function showMembers() {
  here.textContent = present.size;
  members.replaceChildren(...Array.from(present, ([id, info]) => {
    const line = element("li", id === user ? "me" : "");
    line.append(avatar(id, info.name), element("span", "name", info.name));
    return line;
  }));
}

function showCounts(counts) {
  for (const [which, number] of Object.entries(counts)) {
    const link = document.querySelector(`a[data-room="${CSS.escape(which)}"] .count`);
    if (link) link.textContent = number || "";
  }
}

function hue(word) {
  let sum = 0;
  for (const letter of word) sum = (sum * 31 + letter.codePointAt()) % 360;
  return sum;
}

said.forEach(addMessage);
log.scrollTop = log.scrollHeight;
if (matchMedia("(hover: hover)").matches) text.focus();
