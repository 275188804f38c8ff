//! The crate's own sender and listener against the relay.

use std::time::Duration;

use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::bed::*;
use crate::{
    ErrorKind,
    net::{Connector, TrustRoots},
    relay::{
        ConnectionString, HybridConnection, RelayCredential, RelayListener, RelaySender, SasRule,
    },
};

struct Ends {
    connector: Connector,
    hybrid_connection: HybridConnection,
}

impl Ends {
    fn of(bed: &Bed) -> Self {
        let text = bed.server.connection_string("root", PATH).unwrap();
        let parsed = ConnectionString::parse(&text).unwrap();
        Self {
            connector: Connector::new(TrustRoots::platform()).unwrap(),
            hybrid_connection: parsed.hybrid_connection().unwrap(),
        }
    }

    fn listener(&self, rule: SasRule) -> RelayListener {
        RelayListener::start(
            self.connector.clone(),
            self.hybrid_connection.clone(),
            RelayCredential::from(rule),
        )
    }

    fn sender(&self, rule: SasRule) -> RelaySender {
        RelaySender::new(
            self.connector.clone(),
            self.hybrid_connection.clone(),
            RelayCredential::from(rule),
        )
    }
}

#[tokio::test]
async fn bytes_pass_both_ways_and_each_direction_ends_by_itself() {
    let bed = Bed::start(Transport::Tcp).await;
    let ends = Ends::of(&bed);
    let mut listener = ends.listener(root());
    listener.online().await.unwrap();
    let sender = ends.sender(root());
    let (outgoing, incoming) = tokio::join!(sender.connect(), async {
        listener.accept().await.unwrap().accept().await
    });
    let (mut outgoing, mut incoming) = (outgoing.unwrap(), incoming.unwrap());

    let question: Vec<u8> = (0..3_000_000u32).map(|i| i as u8).collect();
    let (sent, received) = tokio::join!(
        async {
            outgoing.write_all(&question).await?;
            outgoing.shutdown().await
        },
        async {
            let mut received = Vec::new();
            incoming.read_to_end(&mut received).await.map(|_| received)
        }
    );
    sent.unwrap();
    assert!(received.unwrap() == question);

    incoming.write_all(b"the answer").await.unwrap();
    incoming.shutdown().await.unwrap();
    let mut answer = String::new();
    outgoing.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "the answer");
}

#[tokio::test]
async fn a_dropped_stream_is_an_error_at_the_other_end() {
    let bed = Bed::start(Transport::Tcp).await;
    let ends = Ends::of(&bed);
    let mut listener = ends.listener(root());
    listener.online().await.unwrap();
    let sender = ends.sender(root());
    let (outgoing, incoming) = tokio::join!(sender.connect(), async {
        listener.accept().await.unwrap().accept().await
    });
    let mut incoming = incoming.unwrap();
    drop(outgoing.unwrap());
    incoming.read_to_end(&mut Vec::new()).await.unwrap_err();
}

#[tokio::test]
async fn refusals_reach_the_caller() {
    let bed = Bed::start(Transport::Tcp).await;
    let ends = Ends::of(&bed);

    let error = ends.sender(root()).connect().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.status()),
        (ErrorKind::NotFound, Some(404))
    );
    assert!(error.tracking_id().is_some());

    let error = ends.sender(rule("root", "no")).connect().await.unwrap_err();
    assert!(error.is_unauthorized());
    let error = ends
        .listener(rule("send", "send-key"))
        .online()
        .await
        .unwrap_err();
    assert!(error.is_unauthorized(), "{error:?}");

    let mut listener = ends.listener(root());
    listener.online().await.unwrap();
    let sender = ends.sender(root());
    let (connected, rejected) = tokio::join!(sender.connect(), async {
        let incoming = listener.accept().await.unwrap();
        incoming
            .reject(StatusCode::TOO_MANY_REQUESTS, "come back later")
            .await
    });
    rejected.unwrap();
    let error = connected.unwrap_err();
    assert_eq!(error.status(), Some(429));
    assert!(
        error.report().contains("come back later"),
        "{}",
        error.report()
    );
}

#[tokio::test]
async fn a_listener_finds_a_relay_that_was_started_again() {
    let bed = Bed::start(Transport::Tcp).await;
    let ends = Ends::of(&bed);
    let address = bed.server.local_addr();
    let mut listener = ends.listener(root());
    listener.online().await.unwrap();
    bed.server.shutdown().await;

    let socket = tokio::net::TcpListener::bind(address).await.unwrap();
    let _server = builder().start(socket).unwrap();
    let sender = ends.sender(root());
    let connect = async {
        // Refused until the listener is back.
        loop {
            match sender.connect().await {
                Ok(stream) => break stream,
                Err(error) if error.is_retryable() => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(error) => panic!("{error:?}"),
            }
        }
    };
    let accept = async { listener.accept().await.unwrap().accept().await.unwrap() };
    let both = tokio::time::timeout(Duration::from_secs(30), async {
        tokio::join!(connect, accept)
    });
    both.await.expect("the listener did not come back");
}

#[tokio::test]
async fn our_listener_refuses_an_http_request_at_once() {
    let bed = Bed::start(Transport::Tcp).await;
    let ends = Ends::of(&bed);
    let listener = ends.listener(root());
    listener.online().await.unwrap();
    // A pointer as well as a whole request.
    for length in [0, 100_000] {
        let body = http_body_util::Full::new(bytes::Bytes::from(vec![1; length]));
        let request = http::Request::post(format!("/{PATH}"))
            .header("host", bed.server.endpoint().authority())
            .header("ServiceBusAuthorization", bed.root_token())
            .body(body)
            .unwrap();
        let io = hyper_util::rt::TokioIo::new(bed.tcp().await);
        let (mut client, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        tokio::spawn(connection);
        let response = client.send_request(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::NOT_IMPLEMENTED);
        assert!(response.headers().contains_key("via"));
    }
}
