use std::time::Duration;

use futures_util::{FutureExt, SinkExt, StreamExt};
use tokio::time::{Instant, sleep};
use tokio_websockets::Message;

use super::bed::*;
use crate::relay::websocket::{Event, MessageEnd, MessageKind, Outgoing};

const GRACE: Duration = Duration::from_secs(300);

async fn listen_until(bed: &Bed, lifetime: Duration) -> Listener {
    let token = bed.token(&root(), PATH, lifetime);
    let target = format!("/$hc/{PATH}?sb-hc-action=listen");
    let opened = bed
        .request(&target, &[("ServiceBusAuthorization", &token)])
        .await;
    Listener {
        control: foreign(opened.unwrap().io),
    }
}

fn renewal(token: &str) -> Message {
    Message::text(serde_json::json!({ "renewToken": { "token": token } }).to_string())
}

#[tokio::test(start_paused = true)]
async fn a_channel_ends_soon_after_its_token() {
    let bed = Bed::start(Transport::Memory).await;
    let mut listener = listen_until(&bed, Duration::from_secs(3600)).await;
    let start = Instant::now();
    let (code, reason) = listener.closed().await;
    assert_eq!(code, 1008);
    assert!(reason.starts_with("ExpiredToken"), "{reason}");
    let lasted = start.elapsed();
    // The token counts whole seconds, rounded down.
    let expected = Duration::from_secs(3599) + GRACE..=Duration::from_secs(3601) + GRACE;
    assert!(expected.contains(&lasted), "{lasted:?}");
    assert_eq!(bed.connect().await.err().unwrap().status, 404);
}

#[tokio::test(start_paused = true)]
async fn a_renewed_token_counts_from_then_on() {
    let bed = Bed::start(Transport::Memory).await;
    let mut listener = listen_until(&bed, Duration::from_secs(600)).await;
    let start = Instant::now();
    let token = bed.token(&root(), PATH, Duration::from_secs(7200));
    listener.control.send(renewal(&token)).await.unwrap();
    let (code, _) = listener.closed().await;
    assert_eq!(code, 1008);
    assert!(start.elapsed() > Duration::from_secs(7000));
}

#[tokio::test]
async fn a_bad_renewal_ends_the_channel() {
    let bed = Bed::start(Transport::Tcp).await;
    for token in [
        bed.token(&rule("root", "another key"), PATH, GRACE),
        // Good, but without the right to listen.
        bed.token(&rule("send", "send-key"), PATH, GRACE),
        "nonsense".to_owned(),
    ] {
        let mut listener = bed.listen().await;
        listener.control.send(renewal(&token)).await.unwrap();
        assert_eq!(listener.closed().await.0, 1008);
    }
}

#[tokio::test]
async fn what_is_not_understood_is_ignored() {
    let bed = Bed::start(Transport::Tcp).await;
    let mut listener = bed.listen().await;
    for message in [
        Message::text("{\"injectFault\":{\"delay\":1}}".to_owned()),
        Message::text("not JSON".to_owned()),
        Message::text("[]".to_owned()),
        Message::binary(vec![0; 1000]),
    ] {
        listener.control.send(message).await.unwrap();
    }
    bed.pair(&mut listener).await;
}

#[tokio::test]
async fn a_control_message_has_a_limit() {
    let bed = Bed::start(Transport::Tcp).await;
    let mut listener = bed.listen().await;
    let long = vec![b' '; super::super::control::MAX_CONTROL_MESSAGE + 1];
    listener.control.send(Message::binary(long)).await.unwrap();
    assert_eq!(listener.closed().await.0, 1009);
}

#[tokio::test]
async fn a_protocol_violation_is_named() {
    let bed = Bed::start(Transport::Tcp).await;
    let target = format!("/$hc/{PATH}?sb-hc-action=listen");
    let token = bed.root_token();
    let mut opened = bed
        .request(&target, &[("ServiceBusAuthorization", &token)])
        .await
        .unwrap();
    // An unmasked frame from a client.
    tokio::io::AsyncWriteExt::write_all(&mut opened.io, b"\x81\x00")
        .await
        .unwrap();
    assert_eq!(closed(&mut foreign(opened.io)).await.0, 1002);
}

#[tokio::test(start_paused = true)]
async fn a_listener_is_pinged_and_lives_as_long_as_it_answers() {
    let bed = Bed::start(Transport::Memory).await;
    // Long enough not to expire meanwhile.
    let mut listener = listen_until(&bed, Duration::from_secs(100 * 3600)).await;
    let start = Instant::now();
    for _ in 0..20 {
        // Answered by the foreign implementation when it is read.
        assert!(listener.control.next().await.unwrap().unwrap().is_ping());
    }
    assert_eq!(start.elapsed().as_secs() / 30, 20);
    bed.pair(&mut listener).await;
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_does_not_answer_is_not_offered_any_longer() {
    let bed = Bed::start(Transport::Memory).await;
    let _silent = bed.listen().await;
    sleep(Duration::from_secs(35)).await;
    assert!(bed.connect().now_or_never().is_none());
    sleep(Duration::from_secs(10)).await;
    assert_eq!(bed.connect().await.err().unwrap().status, 404);
}

#[tokio::test]
async fn a_listener_that_closes_is_answered_and_forgotten() {
    let bed = Bed::start(Transport::Tcp).await;
    let mut listener = bed.listen().await;
    listener.control.close().await.unwrap();
    while listener.control.next().await.is_some() {}
    assert_eq!(bed.connect().await.err().unwrap().status, 404);
}

#[tokio::test(start_paused = true)]
async fn relayed_connections_survive_the_loss_of_the_control_channel() {
    let bed = Bed::start(Transport::Memory).await;
    let mut listener = listen_until(&bed, Duration::from_secs(60)).await;
    let (sender, accepted) = bed.pair(&mut listener).await;
    let (mut sender, mut accepted) = (ours(sender), ours(accepted));
    tokio::select! {
        closed = listener.closed() => assert_eq!(closed.0, 1008),
        event = next(&mut sender) => panic!("{event:?}"),
        event = next(&mut accepted) => panic!("{event:?}"),
    }
    let hello = Outgoing::Data {
        kind: MessageKind::Text,
        payload: b"hello",
        end: MessageEnd::Last,
    };
    sender.send(hello).await.unwrap();
    let event = next(&mut accepted).await.unwrap();
    assert!(matches!(event, Event::Data { payload, .. } if payload == "hello"));
}
