// One of Microsoft's relay clients, driven from the outside: JSON lines on standard output say what happened.
//
//   node peer.js ws-listen|ws-send BASE PATH KEY_NAME KEY [SUB_PROTOCOL]
//
// BASE is ws://host:port or wss://host:port. The packages' own URI helpers are not used: they always add port 443.
const [role, base, path, keyName, key, subProtocol] = process.argv.slice(2);
const { RENEW_MILLISECONDS, TOKEN_SECONDS, MEBIBYTES } = process.env;

const say = (event) => console.log(JSON.stringify(event));

if (RENEW_MILLISECONDS) {
  // Both packages renew once an hour, through `moment`, which they share with us.
  require("moment").duration = () => ({ asMilliseconds: () => Number(RENEW_MILLISECONDS) });
}

const relay = require("hyco-ws");
const uri = (action) => `${base}/$hc/${path}?sb-hc-action=${action}`;
const token = (target) => relay.createRelayToken(target, keyName, key, Number(TOKEN_SECONDS || 3600));

function listen() {
  const target = `${uri("listen")}&sb-hc-id=${require("crypto").randomUUID()}`;
  const server = relay.createRelayedServer({ server: target, token: () => token(target) }, (socket) => {
    socket.on("open", () => say({ event: "open", subProtocol: socket.protocol || null }));
    socket.on("message", (data, flags) => socket.send(data, { binary: Boolean(flags && flags.binary) }));
    socket.on("error", (error) => say({ event: "rendezvous-error", message: String(error && error.message) }));
    socket.on("close", (code, reason) => say({ event: "close", code, reason: String(reason) }));
  });
  server.on("listening", () => say({ event: "listening" }));
  server.on("error", (error) => say({ event: "error", message: String(error && error.message) }));
}

function send() {
  const target = uri("connect");
  const bulk = Buffer.alloc(Number(MEBIBYTES || 1) << 20, 7);
  const socket = new relay(target, subProtocol || null, {
    headers: { ServiceBusAuthorization: token(target), "X-Probe": "1" },
  });
  let messages = 0;
  socket.on("open", () => {
    say({ event: "open", subProtocol: socket.protocol || null });
    socket.send("hello");
  });
  socket.on("message", (data) => {
    messages += 1;
    say({ event: "message", text: typeof data === "string", length: data.length });
    if (messages === 1) socket.send(bulk, { binary: true });
    else if (data.length === bulk.length || process.env.BYTE_STREAM !== "1") socket.close(1000, "bye");
  });
  socket.on("error", (error) => say({ event: "error", message: String(error && error.message) }));
  socket.on("close", (code, reason) => {
    say({ event: "close", code, reason: String(reason) });
    process.exit(0);
  });
}

if (role === "ws-listen") listen();
else send();
