const socket = io({ query: { name: "ada" } });
socket.on("message", (message) => show(message));
form.onsubmit = () => {
  socket.emit("message", text.value);
  return false;
};
