use std::{
    net::Ipv4Addr,
    sync::atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use azure_core::credentials::{AccessToken, TokenCredential, TokenRequestOptions};
use bytes::Bytes;
use http::StatusCode;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    net::TcpListener,
    task::JoinHandle,
};

use super::{
    channel::{Ended, text},
    renewal::{RENEWAL_MARGIN, RENEWAL_RETRY, RENEWAL_TRIES, Renewal, renewal_delay},
    *,
};
use crate::{
    net::{Endpoint, Security},
    relay::{
        RelayTokenSource, SasRule,
        incoming::{MAX_BACKGROUND_REJECTIONS, MAX_DIALS},
        tests::connector,
        websocket::{CloseReason, Event, MessageEnd, MessageKind, Outgoing, Role},
    },
};

/// A control channel that is served, and the relay's end of it.
struct Channel {
    relay: WebSocket<DuplexStream>,
    incoming: mpsc::Receiver<IncomingConnection>,
    stop: CancellationToken,
    served: JoinHandle<Result<Ended<DuplexStream>>>,
}

impl Channel {
    fn open(port: u16) -> Self {
        Self::open_with(port, SasRule::new("rule", "key").unwrap().into())
    }

    fn open_with(port: u16, credential: RelayCredential) -> Self {
        let endpoint = Endpoint::new("127.0.0.1", port, Security::Plain);
        let hybrid_connection = HybridConnection::new(endpoint, "hyco").unwrap();
        let (incoming_sender, incoming) = mpsc::channel(INCOMING_QUEUE);
        let states = Arc::new(StateBoard::new(1));
        let stop = CancellationToken::new();
        let listening = Listening {
            connector: connector(),
            hybrid_connection,
            credential,
            options: ListenerOptions::new(),
            clock: virtual_clock(),
            dialler: Arc::new(Dialler::new(connector())),
            incoming: incoming_sender,
            states,
            stop: stop.clone(),
        };
        let registration = Registration::new(listening, 0);
        let (ours, theirs) = duplex(256 * 1024);
        let served = tokio::spawn(async move {
            let token = registration.grant().await?.token().clone();
            let socket = WebSocket::new(ours, Role::Client, Bytes::new());
            registration
                .serve(socket, token, &mut Retiring::new())
                .await
        });
        Self {
            relay: WebSocket::new(theirs, Role::Server, Bytes::new()),
            incoming,
            stop,
            served,
        }
    }

    async fn send(&mut self, message: &str) {
        self.relay.send(text(message)).await.unwrap();
    }

    /// The next text message, pings aside.
    async fn receive(&mut self) -> Value {
        loop {
            match self.relay.next_event().await.unwrap() {
                Event::Ping | Event::Pong => {}
                Event::Data { payload, .. } => return serde_json::from_slice(&payload).unwrap(),
                other => panic!("{other:?}"),
            }
        }
    }

    async fn ended(self) -> Error {
        match self.served.await.unwrap() {
            Ok(_) => panic!("stopped"),
            Err(error) => error,
        }
    }
}

/// What [`virtual_clock`] begins at.
const START: SystemTime = SystemTime::UNIX_EPOCH;

/// Runs with tokio's clock.
fn virtual_clock() -> WallClock {
    let start = Instant::now();
    Arc::new(move || START + start.elapsed())
}

fn announcement(port: u16, id: &str) -> String {
    format!(
        r#"{{"accept":{{"address":"ws:\/\/127.0.0.1:{port}\/$hc\/hyco?x=1&sb-hc-action=accept&sb-hc-id={id}","id":"{id}",
           "connectHeaders":{{"X-Probe":"7"}},"remoteEndpoint":{{"address":"192.0.2.1","port":9}}}}}}"#
    )
}

#[tokio::test(start_paused = true)]
async fn a_sender_is_handed_on() {
    let mut channel = Channel::open(9);
    channel.send(&announcement(9, "id_G0")).await;
    let incoming = channel.incoming.recv().await.unwrap();
    assert_eq!(incoming.id(), "id_G0");
    assert_eq!(
        incoming.remote_address(),
        Some("192.0.2.1:9".parse().unwrap())
    );
    assert_eq!(incoming.headers()["x-probe"], "7");
    assert_eq!(incoming.path_and_query(), "/hyco?x=1");
    let printed = format!("{incoming:?}");
    assert!(
        printed.contains("x-probe") && !printed.contains("\"7\""),
        "{printed}"
    );
}

#[tokio::test(start_paused = true)]
async fn what_can_not_be_used_is_ignored() {
    let mut channel = Channel::open(9);
    let long = announcement(9, &"x".repeat(64 * 1024));
    for message in [
        "not json",
        "{}",
        r#"{"accept":{}}"#,
        r#"{"injectFault":{}}"#,
        &announcement(10, "another-port"),
        &long,
    ] {
        channel.send(message).await;
    }
    let body = Outgoing::Data {
        kind: MessageKind::Binary,
        payload: b"the body of a request",
        end: MessageEnd::Last,
    };
    channel.relay.send(body).await.unwrap();
    channel.send(&announcement(9, "good")).await;
    assert_eq!(channel.incoming.recv().await.unwrap().id(), "good");
}

#[tokio::test(start_paused = true)]
async fn an_http_request_is_answered_at_once() {
    let mut channel = Channel::open(9);
    channel
        .send(r#"{"request":{"address":"wss://x","id":"r1"}}"#)
        .await;
    let answer = channel.receive().await;
    assert_eq!(answer["response"]["requestId"], "r1");
    assert_eq!(answer["response"]["statusCode"], 501);
}

#[tokio::test(start_paused = true)]
async fn a_token_is_renewed_after_three_quarters_of_its_life() {
    let mut channel = Channel::open(9);
    let start = Instant::now();
    for renewal in 1..4_u32 {
        let message = channel.receive().await;
        let token = message["renewToken"]["token"].as_str().unwrap();
        assert!(token.starts_with("SharedAccessSignature sr="));
        assert_eq!(start.elapsed().as_secs(), u64::from(45 * 60 * renewal));
    }
}

#[tokio::test(start_paused = true)]
async fn a_finished_token_is_not_sent_again() {
    let endpoint = Endpoint::new("127.0.0.1", 9, Security::Plain);
    let hybrid_connection = HybridConnection::new(endpoint, "hyco").unwrap();
    let token = SasRule::new("rule", "key").unwrap().sign(
        &hybrid_connection,
        SystemTime::now() + Duration::from_secs(600),
    );
    let mut channel = Channel::open_with(9, RelayCredential::sas_token(token.secret()).unwrap());
    let quiet = timeout(Duration::from_secs(3600), channel.receive()).await;
    assert!(quiet.is_err());
}

/// Signs for an hour each time, but for one question that it never answers.
struct Slow {
    clock: WallClock,
    asked: AtomicUsize,
    silent_at: usize,
}

#[async_trait]
impl RelayTokenSource for Slow {
    async fn grant(&self) -> Result<RelayGrant> {
        if self.asked.fetch_add(1, Ordering::SeqCst) == self.silent_at {
            std::future::pending::<()>().await;
        }
        let elsewhere = Endpoint::new("elsewhere.example", 9, Security::Plain);
        let hybrid_connection = HybridConnection::new(elsewhere, "hyco/1")?;
        let end = (self.clock)() + Duration::from_secs(3600);
        let token = SasRule::new("rule", "key")?.sign(&hybrid_connection, end);
        Ok(RelayGrant::new(hybrid_connection, token))
    }
}

/// Gives the same token until it is all but over, as the managed identity of a machine does.
#[derive(Debug)]
struct Hoarder {
    start: Instant,
}

#[async_trait]
impl TokenCredential for Hoarder {
    async fn get_token(
        &self,
        _scopes: &[&str],
        _options: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AccessToken> {
        let minutes = self.start.elapsed().as_secs() / 60;
        let number = if minutes < 55 { 0 } else { 1 };
        let end = START + Duration::from_secs(3_600 * (number + 1));
        Ok(AccessToken::new(format!("jwt.number.{number}"), end.into()))
    }
}

#[tokio::test(start_paused = true)]
async fn an_identity_is_asked_for_a_newer_token_until_it_has_one() {
    let start = Instant::now();
    let credential = RelayCredential::entra(Arc::new(Hoarder { start }));
    let mut channel = Channel::open_with(9, credential);
    let message = channel.receive().await;
    assert_eq!(message["renewToken"]["token"], "jwt.number.1");
    assert_eq!(start.elapsed().as_secs(), 55 * 60);
    assert!(!channel.served.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_source_is_asked_for_each_token_and_not_waited_for_long() {
    let source = Slow {
        clock: virtual_clock(),
        asked: AtomicUsize::new(0),
        silent_at: 1,
    };
    let mut channel = Channel::open_with(9, RelayCredential::refreshing(Arc::new(source)));
    let start = Instant::now();
    let message = channel.receive().await;
    let token = message["renewToken"]["token"].as_str().unwrap();
    assert!(token.contains("elsewhere.example"));
    // Three quarters of an hour, the limit of a question, and the wait before the next.
    assert_eq!(start.elapsed().as_secs(), 45 * 60 + 5 + 30);
}

#[test]
fn renewals_leave_a_margin() {
    for (life, delay) in [
        (3600, 2700),
        (1200, 900),
        (600, 300),
        (301, 1),
        (300, 225),
        (60, 45),
        (1, 1),
        (0, 1),
        (10 * 3600, 27000),
    ] {
        assert_eq!(
            renewal_delay(Duration::from_secs(life)),
            Duration::from_secs(delay)
        );
    }
}

#[test]
fn a_token_without_a_real_end_is_no_trouble() {
    // `se=` of a finished token may be any number that is a time.
    let now = SystemTime::UNIX_EPOCH;
    for seconds in [1 << 40, i64::MAX as u64] {
        let token = RelayToken::new(
            "SharedAccessSignature".to_owned(),
            now.checked_add(Duration::from_secs(seconds)),
        );
        let renewal = Renewal::new(&token, Instant::now(), now);
        assert!(renewal.due_at.is_some());
    }
}

#[test]
fn a_renewal_is_tried_three_times() {
    let hybrid_connection =
        HybridConnection::new(Endpoint::new("a", 1, Security::Plain), "hyco").unwrap();
    let token = SasRule::new("rule", "key")
        .unwrap()
        .sign(&hybrid_connection, SystemTime::now());
    let now = Instant::now();
    let mut renewal = Renewal::new(&token, now, SystemTime::now());
    assert!(renewal.try_again(now));
    assert_eq!(renewal.due_at, Some(now + RENEWAL_RETRY));
    assert!(renewal.try_again(now));
    assert!(!renewal.try_again(now));
    assert!(RENEWAL_RETRY * RENEWAL_TRIES < RENEWAL_MARGIN);
}

#[tokio::test(start_paused = true)]
async fn a_relay_without_a_sign_of_life_is_given_up() {
    let channel = Channel::open(9);
    let start = Instant::now();
    let error = channel.ended().await;
    assert!(error.is_timeout());
    assert_eq!(start.elapsed().as_secs(), 40);
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_closes_or_breaks_the_channel_ends_it() {
    for (code, kind, help) in [
        (Some(1008), ErrorKind::Closed, true),
        (Some(1011), ErrorKind::Closed, false),
        (None, ErrorKind::Closed, false),
    ] {
        let mut channel = Channel::open(9);
        let reason = code.map(|code| CloseReason::new(code, "NameRenewalFailed"));
        channel
            .relay
            .send(Outgoing::Close(reason.as_ref()))
            .await
            .unwrap();
        let error = channel.ended().await;
        assert_eq!(error.kind(), kind);
        assert_eq!(error.help().is_some(), help);
        assert!(error.is_retryable());
        if let Some(code) = code {
            let text = error.to_string();
            assert!(
                text.contains(&format!("{code} NameRenewalFailed")),
                "{text}"
            );
        }
    }
    let Channel { relay, served, .. } = Channel::open(9);
    drop(relay);
    let error = served.await.unwrap().map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Network);
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_stops_signs_off() {
    let mut channel = Channel::open(9);
    channel.send("{}").await;
    channel.stop.cancel();
    assert!(matches!(channel.served.await.unwrap(), Ok(Ended::Stopped)));
    let Event::Close(Some(reason)) = channel.relay.next_event().await.unwrap() else {
        panic!("no Close");
    };
    assert_eq!(reason.code, CloseReason::NORMAL);
    assert_eq!(channel.relay.next_event().await.unwrap(), Event::Ended);
}

/// A relay's accept endpoint: takes one connection after another and answers each with 410.
async fn rejections(server: &TcpListener) -> String {
    let (mut socket, _) = server.accept().await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.unwrap());
    }
    socket
        .write_all(b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n")
        .await
        .unwrap();
    let head = String::from_utf8(head).unwrap();
    assert!(
        !head
            .to_ascii_lowercase()
            .contains("servicebusauthorization")
    );
    head.lines().next().unwrap().to_owned()
}

#[tokio::test]
async fn the_sender_beyond_the_queue_is_rejected() {
    let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = server.local_addr().unwrap().port();
    let mut channel = Channel::open(port);
    for index in 0..=INCOMING_QUEUE {
        channel
            .send(&announcement(port, &format!("id{index}")))
            .await;
    }
    let line = rejections(&server).await;
    assert!(
        line.contains("sb-hc-id=id64&sb-hc-statusCode=503&sb-hc-statusDescription=Too%20many"),
        "{line}"
    );
    assert_eq!(channel.incoming.len(), INCOMING_QUEUE);
}

#[tokio::test]
async fn a_sender_without_an_answer_is_rejected() {
    let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = server.local_addr().unwrap().port();
    let mut channel = Channel::open(port);
    channel.send(&announcement(port, "dropped")).await;
    drop(channel.incoming.recv().await.unwrap());
    let line = rejections(&server).await;
    assert!(
        line.contains("sb-hc-id=dropped&sb-hc-statusCode=503"),
        "{line}"
    );

    channel.send(&announcement(port, "rejected")).await;
    let incoming = channel.incoming.recv().await.unwrap();
    let reject = incoming.reject(StatusCode::FORBIDDEN, "not you");
    let (result, line) = tokio::join!(reject, rejections(&server));
    result.unwrap();
    assert_eq!(
        line,
        "GET /$hc/hyco?x=1&sb-hc-action=accept&sb-hc-id=rejected&sb-hc-statusCode=403&sb-hc-statusDescription=not%20you HTTP/1.1"
    );
}

#[tokio::test]
async fn a_flood_of_senders_makes_few_dials() {
    let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = server.local_addr().unwrap().port();
    let mut channel = Channel::open(port);
    for index in 0..INCOMING_QUEUE + 100 {
        let announced = announcement(port, &format!("id{index}"));
        channel.send(&announced).await;
    }
    // Its answer shows that everything before it was handled.
    channel.send(r#"{"request":{"id":"last"}}"#).await;
    channel.receive().await;

    let mut dials = Vec::new();
    while let Ok(dial) = timeout(Duration::from_millis(200), server.accept()).await {
        // Not answered, so that each keeps its place.
        dials.push(dial.unwrap());
    }
    assert_eq!(dials.len(), MAX_BACKGROUND_REJECTIONS);
}

/// Fewer are rejected at a time than there are, but each one is.
#[tokio::test]
async fn each_sender_of_a_flood_is_answered() {
    let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = server.local_addr().unwrap().port();
    let mut channel = Channel::open(port);
    const TOO_MANY: usize = 100;
    for index in 0..INCOMING_QUEUE + TOO_MANY {
        let announced = announcement(port, &format!("id{index}"));
        channel.send(&announced).await;
    }
    let mut answered = std::collections::HashSet::new();
    for _ in 0..TOO_MANY {
        answered.insert(rejections(&server).await);
    }
    assert_eq!(answered.len(), TOO_MANY);
    assert!(answered.iter().all(|line| line.contains("statusCode=503")));
}

/// The owner takes every sender at once; the listener dials for so many at a time, and for all of them in the end.
#[tokio::test]
async fn answers_have_a_limit_at_a_time() {
    let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = server.local_addr().unwrap().port();
    let mut channel = Channel::open(port);
    const BEYOND: usize = 10;
    let mut accepting = Vec::new();
    for index in 0..MAX_DIALS + BEYOND {
        let announced = announcement(port, &format!("id{index}"));
        channel.send(&announced).await;
        let incoming = channel.incoming.recv().await.unwrap();
        accepting.push(tokio::spawn(incoming.accept()));
    }
    let mut dials = Vec::new();
    for _ in 0..MAX_DIALS {
        dials.push(server.accept().await.unwrap());
    }
    // None beyond, until one is done.
    let beyond = timeout(Duration::from_millis(200), server.accept()).await;
    beyond.expect_err("too many dials");
    for _ in 0..BEYOND {
        drop(dials.pop());
        dials.push(server.accept().await.unwrap());
    }
    assert!(
        timeout(Duration::from_millis(200), server.accept())
            .await
            .is_err()
    );
    for task in accepting {
        task.abort();
    }
}

/// Whoever could not be dialled for in time is turned away.
#[tokio::test]
async fn a_sender_whose_turn_does_not_come_is_rejected() {
    let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = server.local_addr().unwrap().port();
    let mut channel = Channel::open(port);
    let mut accepting = Vec::new();
    let mut dials = Vec::new();
    for index in 0..MAX_DIALS {
        let announced = announcement(port, &format!("id{index}"));
        channel.send(&announced).await;
        let incoming = channel.incoming.recv().await.unwrap();
        accepting.push(tokio::spawn(incoming.accept()));
        // Never answered.
        dials.push(server.accept().await.unwrap());
    }
    channel.send(&announcement(port, "last")).await;
    let incoming = channel.incoming.recv().await.unwrap();
    // Dropped before its turn, which is as good as late.
    let accept = timeout(Duration::from_millis(50), incoming.accept()).await;
    accept.expect_err("it is not its turn");
    let line = rejections(&server).await;
    assert!(
        line.contains("sb-hc-id=last&sb-hc-statusCode=503"),
        "{line}"
    );
    for task in accepting {
        task.abort();
    }
}
