// One of Microsoft's relay clients, driven from the outside: JSON lines on standard output say what happened.
//
//   node peer.js ws-listen|ws-send|https-listen|https-send BASE PATH KEY_NAME KEY [SUB_PROTOCOL]
//
// BASE is ws://host:port or wss://host:port. The packages' own URI helpers are not used: they always add port 443.
const [role, base, path, keyName, key, subProtocol] = process.argv.slice(2);
const { RENEW_MILLISECONDS, TOKEN_SECONDS, MEBIBYTES, PONG_MILLISECONDS } = process.env;

const say = (event) => console.log(JSON.stringify(event));

if (RENEW_MILLISECONDS) {
  // Both packages renew once an hour, through `moment`, which they share with us.
  // They call it with `new`, which an arrow function does not take.
  require("moment").duration = function duration() {
    return { asMilliseconds: () => Number(RENEW_MILLISECONDS) };
  };
}

const relay = require(role === "https-listen" ? "hyco-https" : "hyco-ws");
const uri = (action) => `${base}/$hc/${path}?sb-hc-action=${action}`;
const token = (target, seconds = TOKEN_SECONDS) => relay.createRelayToken(target, keyName, key, Number(seconds || 3600));

// The first token lives TOKEN_SECONDS; the later ones, if the packages ask for them, RENEWED_TOKEN_SECONDS.
function renewing(target) {
  let asked = 0;
  return () => {
    asked += 1;
    if (asked > 1) say({ event: "renewed" });
    return token(target, asked > 1 ? process.env.RENEWED_TOKEN_SECONDS || TOKEN_SECONDS : TOKEN_SECONDS);
  };
}

function listen() {
  const target = `${uri("listen")}&sb-hc-id=${require("crypto").randomUUID()}`;
  const server = relay.createRelayedServer({ server: target, token: renewing(target) }, (socket) => {
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

// Echoes a request's body, or answers with `size` bytes; with the status and the reason that the query asks for, and with
// what it saw in headers of its own.
function serve() {
  const target = `${uri("listen")}&sb-hc-id=${require("crypto").randomUUID()}`;
  const keepAliveTimeout = PONG_MILLISECONDS ? require("moment").duration(Number(PONG_MILLISECONDS), "ms") : null;
  const server = relay.createRelayedServer({ server: target, token: renewing(target), keepAliveTimeout }, (request, response) => {
    const parts = [];
    request.on("data", (part) => parts.push(part));
    request.on("end", () => {
      const body = Buffer.concat(parts);
      const query = new URL(request.url, "http://relay").searchParams;
      response.statusCode = Number(query.get("status") || 200);
      if (query.has("reason")) response.statusMessage = query.get("reason");
      response.setHeader("X-Saw-Method", request.method);
      response.setHeader("X-Saw-Target", request.url);
      response.setHeader("X-Saw-Length", String(body.length));
      response.setHeader("X-Saw-Headers", encodeURIComponent(JSON.stringify(request.headers)));
      if (query.has("pieces")) {
        for (let piece = 0; piece < Number(query.get("pieces")); piece += 1) response.write(Buffer.alloc(1000, 65));
        response.end();
      } else if (query.has("size")) response.end(Buffer.alloc(Number(query.get("size")), 65));
      else if (body.length) response.end(body);
      else response.end();
    });
  });
  server.on("listening", () => say({ event: "listening" }));
  server.on("error", (error) => say({ event: "error", message: String(error && error.message) }));
  server.listen();
}

// Node's own HTTP client. BODY_BYTES, sent in one piece with its length or, if CHUNKED, without; QUERY goes behind the path.
function request() {
  const { BODY_BYTES, CHUNKED, QUERY, METHOD } = process.env;
  const http = require(base.startsWith("wss") ? "https" : "http");
  const body = Buffer.alloc(Number(BODY_BYTES || 0), 66);
  const headers = { ServiceBusAuthorization: token(uri("connect")), "X-Probe": "1" };
  if (!CHUNKED && body.length) headers["Content-Length"] = body.length;
  const outgoing = http.request(
    `${base.replace(/^ws/, "http")}/${path}${QUERY || ""}`,
    { method: METHOD || (body.length ? "POST" : "GET"), headers },
    (response) => {
      let length = 0;
      let isEcho = true;
      response.on("data", (part) => {
        length += part.length;
        isEcho = isEcho && part.every((byte) => byte === 66);
      });
      response.on("end", () =>
        say({
          event: "response",
          status: response.statusCode,
          reason: response.statusMessage,
          headers: response.headers,
          length,
          isEcho,
          isComplete: response.complete,
        }),
      );
      response.on("error", (error) => say({ event: "error", message: String(error && error.message) }));
    },
  );
  outgoing.on("error", (error) => say({ event: "error", message: String(error && error.message) }));
  if (CHUNKED) {
    for (let at = 0; at < body.length; at += 10000) outgoing.write(body.subarray(at, at + 10000));
    outgoing.end();
  } else outgoing.end(body);
}

({ "ws-listen": listen, "ws-send": send, "https-listen": serve, "https-send": request })[role]();
