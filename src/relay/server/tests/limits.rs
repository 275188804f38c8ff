use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::Instant,
};

use super::{
    super::{
        connection::{HEADER_DEADLINE, MAX_HEAD},
        entity::MAX_PENDING_PER_LISTENER,
    },
    bed::*,
};
use crate::{
    net::{Alpn, Connector, TlsAcceptor, TrustRoots},
    relay::ConnectionString,
};

#[tokio::test]
async fn connections_have_a_limit() {
    let bed = Bed::of(builder().max_connections(2), Transport::Tcp).await;
    let (listener, _another) = (bed.listen().await, bed.listen().await);
    // The third is closed at once.
    let mut third = bed.tcp().await;
    assert!(matches!(third.read(&mut [0; 1]).await, Ok(0) | Err(_)));

    // A connection counts as long as it lives, also after its upgrade; then its place is free.
    drop(listener);
    for _ in 0..1000 {
        let mut next = bed.tcp().await;
        let _ = next.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let mut answer = Vec::new();
        let _ = next.read_to_end(&mut answer).await;
        if answer.starts_with(b"HTTP/1.1 401 ") {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the place of the lost connection stays taken");
}

#[tokio::test(start_paused = true)]
async fn a_request_must_arrive_in_time() {
    let bed = Bed::start(Transport::Memory).await;
    for start_of_request in ["", "GET /$hc/a HTTP/1.1\r\nHost:"] {
        let mut client = bed.memory(1024);
        let start = Instant::now();
        client.write_all(start_of_request.as_bytes()).await.unwrap();
        client.read_to_end(&mut Vec::new()).await.unwrap();
        assert_eq!(start.elapsed().as_secs(), HEADER_DEADLINE.as_secs());
    }
}

#[tokio::test]
async fn a_head_has_a_limit() {
    let bed = Bed::start(Transport::Tcp).await;
    let mut client = bed.tcp().await;
    let long = "x".repeat(MAX_HEAD + 1);
    let request = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n");
    // The relay may stop reading before all is written.
    let _ = client.write_all(request.as_bytes()).await;
    let mut answer = [0; 12];
    client.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 431");
}

#[tokio::test]
async fn headers_that_do_not_fit_into_a_message_are_refused() {
    let bed = Bed::start(Transport::Tcp).await;
    let _listener = bed.listen().await;
    let token = bed.root_token();
    // A quotation mark takes two bytes in JSON.
    let quotes = "\"".repeat(32 * 1024);
    let headers = [("ServiceBusAuthorization", &*token), ("X-Quotes", &*quotes)];
    let refused = bed
        .request(&format!("/$hc/{PATH}"), &headers)
        .await
        .err()
        .unwrap();
    assert_eq!(refused.status, 431);
}

#[tokio::test(start_paused = true)]
async fn senders_that_wait_for_one_listener_have_a_limit() {
    let bed = Bed::start(Transport::Memory).await;
    let mut listener = bed.listen().await;
    let senders = (0..MAX_PENDING_PER_LISTENER).map(|_| bed.connect());
    let all = futures_util::future::join_all(senders);
    let one_too_many = async {
        for _ in 0..MAX_PENDING_PER_LISTENER {
            listener.accept_message().await;
        }
        let refused = bed.connect().await.err().unwrap();
        assert_eq!(refused.status, 503);
        // The listener is not offered as a way out, so it was not told either.
        let more = tokio::time::timeout(Duration::from_secs(1), listener.accept_message());
        more.await.expect_err("no message");
    };
    let (refused, ()) = tokio::join!(all, one_too_many);
    assert!(
        refused
            .into_iter()
            .all(|result| result.err().unwrap().status == 504)
    );
    // Their places are free again.
    bed.pair(&mut listener).await;
}

#[tokio::test]
async fn a_relay_with_tls_gives_wss_addresses() {
    let certificate = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (chain, key) = (
        certificate.cert.pem(),
        certificate.signing_key.serialize_pem(),
    );
    let tls = TlsAcceptor::from_pem(chain.as_bytes(), key.as_bytes(), Alpn::Http1).unwrap();
    let bed = Bed::of(builder().tls(tls).host("localhost"), Transport::Tcp).await;
    let text = bed.server.connection_string("root", PATH).unwrap();
    assert!(text.starts_with("Endpoint=sb://localhost:"), "{text}");
    let hybrid_connection = ConnectionString::parse(&text)
        .unwrap()
        .hybrid_connection()
        .unwrap();
    let connector = Connector::new(TrustRoots::only_pem(chain.as_bytes()).unwrap()).unwrap();
    let token = root().sign(
        &hybrid_connection,
        std::time::SystemTime::now() + Duration::from_secs(60),
    );
    let dial = async |target: String, with_token: bool| {
        let io = connector
            .connect(hybrid_connection.endpoint(), Alpn::Http1)
            .await
            .unwrap();
        let mut request = http::Request::get(target)
            .header("host", hybrid_connection.endpoint().authority())
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        if with_token {
            request = request.header("ServiceBusAuthorization", token.secret());
        }
        exchange(io, request.body(http_body_util::Empty::new()).unwrap()).await
    };
    let control = dial(format!("/$hc/{PATH}?sb-hc-action=listen"), true)
        .await
        .unwrap();
    let mut listener = Listener {
        control: foreign(control.io),
    };
    let (sender, accepted) = tokio::join!(dial(format!("/$hc/{PATH}"), true), async {
        let accept = listener.accept_message().await;
        let start = format!("wss://{}/$hc/", hybrid_connection.endpoint().authority());
        assert!(accept["address"].as_str().unwrap().starts_with(&start));
        dial(target_of(&accept), false).await
    });
    sender.unwrap();
    accepted.unwrap();
}
