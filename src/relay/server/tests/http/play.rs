//! What sender and listener do in HTTP mode, by hand.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{Request, Response, request::Builder};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::{
    body::{Body, Frame, Incoming},
    ext::ReasonPhrase,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_websockets::Message;

use super::super::bed::*;
use crate::relay::websocket::{MessageEnd, MessageKind, Outgoing, WebSocket};

pub(super) type Sent = JoinHandle<hyper::Result<Response<Incoming>>>;

pub(super) fn post(bed: &Bed, target: &str) -> Builder {
    Request::post(target)
        .header("host", "relay.example:443")
        .header("ServiceBusAuthorization", bed.token_for("relay.example"))
}

impl Bed {
    pub(super) fn token_for(&self, host: &str) -> String {
        let endpoint = crate::net::Endpoint::new(host, 443, crate::net::Security::Plain);
        let hybrid_connection = crate::relay::HybridConnection::new(endpoint, PATH).unwrap();
        let until = self.server.relay.now() + Duration::from_secs(3600);
        root().sign(&hybrid_connection, until).secret().to_owned()
    }

    /// Sends a request over a connection of its own.
    pub(super) fn send<B>(&self, request: Request<B>) -> Sent
    where
        B: Body<Data = Bytes, Error = std::io::Error> + Send + Unpin + 'static,
    {
        let io = self.memory(64 * 1024);
        tokio::spawn(async move {
            let (mut client, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(io)).await?;
            tokio::spawn(connection);
            client.send_request(request).await
        })
    }

    pub(super) async fn dial(&self, request: &Value) -> Foreign {
        foreign(self.request(&target_of(request), &[]).await.unwrap().io)
    }
}

pub(super) fn whole(
    body: impl Into<Bytes>,
) -> impl Body<Data = Bytes, Error = std::io::Error> + Send + Unpin {
    Full::new(body.into()).map_err(|never| match never {})
}

/// A body in pieces, of unknown length.
pub(super) fn pieces() -> (
    mpsc::UnboundedSender<std::io::Result<Frame<Bytes>>>,
    impl Body<Data = Bytes, Error = std::io::Error> + Send + Unpin,
) {
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let stream = futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx));
    (sender, StreamBody::new(stream))
}

/// The next `request`, with the body that follows it.
pub(super) async fn request_of(socket: &mut Foreign) -> (Value, Option<Bytes>) {
    let text = next_message(socket).await;
    let value: Value = serde_json::from_str(text.as_text().unwrap()).unwrap();
    let request = value["request"].clone();
    let body = match request["body"] {
        Value::Bool(true) => Some(next_message(socket).await.into_payload().into()),
        _ => None,
    };
    (request, body)
}

pub(super) async fn next_message(socket: &mut Foreign) -> Message {
    loop {
        let message = socket.next().await.unwrap().unwrap();
        if message.is_text() || message.is_binary() {
            break message;
        }
    }
}

pub(super) async fn respond(socket: &mut Foreign, request: &Value, body: Option<Bytes>) {
    let response = json!({ "response": {
        "requestId": request["id"], "statusCode": 201, "statusDescription": "Made",
        "responseHeaders": { "X-Mine": "1", "Connection": "close" }, "body": body.is_some(),
    }});
    socket
        .send(Message::text(response.to_string()))
        .await
        .unwrap();
    if let Some(body) = body {
        socket.send(Message::binary(body)).await.unwrap();
    }
}

pub(super) fn reason(response: &Response<Incoming>) -> String {
    let phrase = response.extensions().get::<ReasonPhrase>();
    phrase.map_or(String::new(), |phrase| {
        String::from_utf8(phrase.as_bytes().to_vec()).unwrap()
    })
}

pub(super) async fn body_of(response: Response<Incoming>) -> Bytes {
    response.into_body().collect().await.unwrap().to_bytes()
}

pub(super) async fn send_piece(
    socket: &mut WebSocket<Io>,
    kind: MessageKind,
    payload: &[u8],
    end: MessageEnd,
) {
    let piece = Outgoing::Data { kind, payload, end };
    socket.send(piece).await.unwrap();
}
