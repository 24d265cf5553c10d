let socket;
let attempt = 0;

function connect() {
  socket = new WebSocket(`${location.origin.replace("http", "ws")}/chat?name=ada`);
  socket.onopen = () => { attempt = 0; };
  socket.onmessage = (event) => show(JSON.parse(event.data));
  socket.onclose = () => { // what Socket.IO's client did for you
    setTimeout(connect, Math.random() * Math.min(30000, 500 * 2 ** attempt++));
  };
}

form.onsubmit = () => {
  socket.send(text.value);
  return false;
};

connect();
