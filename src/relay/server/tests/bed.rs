//! A relay, and clients that know nothing of this crate's own.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures_util::StreamExt;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::{ext::ReasonPhrase, upgrade::Upgraded};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    time::Instant,
};
use tokio_websockets::{ClientBuilder, Limits, Message, WebSocketStream};

use super::super::{RelayServer, RelayServerBuilder, Rights, connection, service::Relay};
use crate::net::Connector;
use crate::relay::{
    ConnectionString, SasRule,
    websocket::{Event, Role, WebSocket, WebSocketError, handshake},
};

pub(super) const PATH: &str = "clusters/east";

/// Real sockets, or memory: where time is virtual, a socket's delay would count as idleness.
#[derive(Clone, Copy)]
pub(super) enum Transport {
    Tcp,
    Memory,
}

pub(super) struct Bed {
    pub(super) server: RelayServer,
    pub(super) transport: Transport,
}

pub(super) type Io = TokioIo<Upgraded>;
pub(super) type Foreign = WebSocketStream<Io>;

/// A status and a reason phrase.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) status: StatusCode,
    pub(super) reason: String,
}

/// A successful upgrade.
pub(super) struct Opened {
    pub(super) io: Io,
    pub(super) protocol: Option<String>,
}

pub(super) fn rule(name: &str, key: &str) -> SasRule {
    SasRule::new(name, key).unwrap()
}

pub(super) fn root() -> SasRule {
    rule("root", "root-key")
}

pub(super) fn builder() -> RelayServerBuilder {
    // Wall clock and virtual time go together.
    let (start, epoch) = (Instant::now(), SystemTime::now());
    RelayServer::builder()
        .hybrid_connection(PATH)
        .hybrid_connection("other")
        .rule(root(), Rights::LISTEN | Rights::SEND)
        .rule(rule("send", "send-key"), Rights::SEND)
        .clock(move || epoch + start.elapsed())
}

impl Bed {
    pub(super) async fn start(transport: Transport) -> Self {
        Self::of(builder(), transport).await
    }

    pub(super) async fn of(builder: RelayServerBuilder, transport: Transport) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self {
            server: builder.start(socket).unwrap(),
            transport,
        }
    }

    pub(super) fn token(&self, rule: &SasRule, path: &str, lifetime: Duration) -> String {
        let text = self.server.connection_string("root", PATH).unwrap();
        let endpoint = ConnectionString::parse(&text).unwrap().endpoint().clone();
        let hybrid_connection = crate::relay::HybridConnection::new(endpoint, path).unwrap();
        rule.sign(&hybrid_connection, self.server.relay.now() + lifetime)
            .secret()
            .to_owned()
    }

    pub(super) fn root_token(&self) -> String {
        self.token(&root(), PATH, Duration::from_secs(3600))
    }

    /// Sends a WebSocket request with these further headers.
    pub(super) async fn request(
        &self,
        target: &str,
        headers: &[(&str, &str)],
    ) -> Result<Opened, Refused> {
        self.request_over(64 * 1024, target, headers).await
    }

    /// As [`Self::request`], over a pipe of that size if it is in memory.
    pub(super) async fn request_over(
        &self,
        pipe: usize,
        target: &str,
        headers: &[(&str, &str)],
    ) -> Result<Opened, Refused> {
        let key = handshake::new_key();
        let mut request = Request::get(target)
            .header("host", self.server.endpoint().authority())
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", &key);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Empty::<Bytes>::new()).unwrap();
        let opened = match self.transport {
            Transport::Tcp => exchange(self.tcp().await, request).await,
            Transport::Memory => exchange(self.memory(pipe), request).await,
        }?;
        Ok(opened)
    }

    pub(super) async fn tcp(&self) -> TcpStream {
        TcpStream::connect(self.server.local_addr()).await.unwrap()
    }

    /// The client's end of a connection in memory.
    pub(super) fn memory(&self, pipe: usize) -> tokio::io::DuplexStream {
        memory(&self.server.relay, pipe)
    }

    /// What connects sender and listener of this crate to the relay, in memory.
    pub(super) fn connector(&self) -> Connector {
        let relay = Arc::clone(&self.server.relay);
        crate::relay::tests::connector().in_memory(move |_| memory(&relay, 64 * 1024))
    }

    pub(super) fn hybrid_connection(&self) -> crate::relay::HybridConnection {
        crate::relay::HybridConnection::new(self.server.endpoint().clone(), PATH).unwrap()
    }

    pub(super) async fn listen(&self) -> Listener {
        self.listen_as("1b4e28ba-2fa1-41d2-883f-0016d3cca427").await
    }

    pub(super) async fn listen_as(&self, id: &str) -> Listener {
        let target = format!("/$hc/{PATH}?sb-hc-action=listen&sb-hc-id={id}");
        let opened = self
            .request(&target, &[("ServiceBusAuthorization", &self.root_token())])
            .await
            .unwrap();
        Listener {
            control: foreign(opened.io),
        }
    }

    /// A control channel for whatever the test does with it. Its token lives as long as virtual time lasts.
    pub(super) async fn listen_raw(&self) -> Io {
        let token = self.token(&root(), PATH, Duration::from_secs(1_000_000));
        let target = format!("/$hc/{PATH}?sb-hc-action=listen");
        self.request(&target, &[("ServiceBusAuthorization", &token)])
            .await
            .unwrap()
            .io
    }

    pub(super) async fn connect(&self) -> Result<Opened, Refused> {
        let target = format!("/$hc/{PATH}?sb-hc-action=connect&sb-hc-id=sender");
        self.request(&target, &[("ServiceBusAuthorization", &self.root_token())])
            .await
    }

    /// A sender's and a listener's leg of one relayed connection.
    pub(super) async fn pair(&self, listener: &mut Listener) -> (Io, Io) {
        let (sender, accepted) = tokio::join!(self.connect(), async {
            let accept = listener.accept_message().await;
            self.request(&target_of(&accept), &[]).await
        });
        (sender.unwrap().io, accepted.unwrap().io)
    }
}

/// Where connections in memory come from.
pub(super) const MEMORY_PEER: SocketAddr =
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 62917);

pub(super) fn memory(relay: &Arc<Relay>, pipe: usize) -> tokio::io::DuplexStream {
    let (near, far) = tokio::io::duplex(pipe);
    let place = relay.newcomers.admit().unwrap().into_place();
    let task = Arc::clone(relay);
    relay.spawn(async move { connection::serve(task, far, MEMORY_PEER, place).await });
    near
}

pub(super) struct Listener {
    pub(super) control: Foreign,
}

impl Listener {
    /// The next `accept` message; answers pings on the way.
    pub(super) async fn accept_message(&mut self) -> Value {
        loop {
            let message = self.control.next().await.unwrap().unwrap();
            if let Some(text) = message.as_text() {
                let value: Value = serde_json::from_str(text).unwrap();
                break value["accept"].clone();
            }
        }
    }

    /// The Close that ends the channel.
    pub(super) async fn closed(&mut self) -> (u16, String) {
        closed(&mut self.control).await
    }
}

/// Reads until a Close comes.
pub(super) async fn closed<T: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut WebSocketStream<T>,
) -> (u16, String) {
    while let Some(message) = socket.next().await {
        if let Some((code, reason)) = message.unwrap().as_close() {
            return (code.into(), reason.to_owned());
        }
    }
    panic!("the socket ended without a Close");
}

/// Request target of an accept address.
pub(super) fn target_of(accept: &Value) -> String {
    let address = accept["address"].as_str().unwrap();
    let (_, after_scheme) = address.split_once("://").unwrap();
    after_scheme[after_scheme.find('/').unwrap()..].to_owned()
}

pub(super) fn foreign(io: Io) -> Foreign {
    ClientBuilder::new()
        .limits(Limits::unlimited())
        .take_over(io)
}

pub(super) fn ours(io: Io) -> WebSocket<Io> {
    WebSocket::new(io, Role::Client, Bytes::new())
}

/// The next event that is not a sign of life.
pub(super) async fn next(socket: &mut WebSocket<Io>) -> Result<Event, WebSocketError> {
    loop {
        match socket.next_event().await? {
            Event::Ping | Event::Pong => {}
            event => return Ok(event),
        }
    }
}

pub(super) fn is_binary(message: &Message, expected: &[u8]) -> bool {
    message.is_binary() && message.as_payload()[..] == *expected
}

/// One request on a fresh connection.
pub(super) async fn exchange<T>(io: T, request: Request<Empty<Bytes>>) -> Result<Opened, Refused>
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut client, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io))
        .await
        .unwrap();
    let connection = tokio::spawn(connection.with_upgrades());
    let mut waiting = AbortOnDrop(Some(connection));
    let response = client.send_request(request).await.unwrap();
    // From here on the connection's task is needed.
    waiting.0 = None;

    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let reason = response.extensions().get::<ReasonPhrase>();
        let reason = reason.map_or("", |reason| std::str::from_utf8(reason.as_bytes()).unwrap());
        let refused = Refused {
            status: response.status(),
            reason: reason.to_owned(),
        };
        assert_eq!(response.headers()["connection"], "close");
        response.into_body().collect().await.unwrap();
        return Err(refused);
    }
    assert!(!response.headers().contains_key("sec-websocket-extensions"));
    let protocol = response
        .headers()
        .get("sec-websocket-protocol")
        .map(|value| value.to_str().unwrap().to_owned());
    Ok(Opened {
        io: TokioIo::new(hyper::upgrade::on(response).await.unwrap()),
        protocol,
    })
}

/// A dropped request closes its connection.
struct AbortOnDrop(Option<tokio::task::JoinHandle<hyper::Result<()>>>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        if let Some(task) = self.0.take() {
            task.abort();
        }
    }
}
