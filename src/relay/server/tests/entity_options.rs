//! Hybrid connections that take something else than the others.

use std::time::Duration;

use futures_util::StreamExt;
use http::Request;
use http_body_util::Empty;
use serde_json::Value;

use super::{super::EntityOptions, bed::*};

const OPEN: &str = "webhooks";

fn open() -> EntityOptions {
    EntityOptions::new().anonymous_senders()
}

async fn bed(options: EntityOptions) -> Bed {
    let builder = builder().hybrid_connection_with(OPEN, options);
    Bed::of(builder, Transport::Memory).await
}

async fn listen(bed: &Bed) -> Listener {
    let token = bed.token(&root(), OPEN, Duration::from_secs(3600));
    let headers = [("ServiceBusAuthorization", &*token)];
    let target = format!("/$hc/{OPEN}?sb-hc-action=listen");
    let opened = bed.request(&target, &headers).await.unwrap();
    Listener {
        control: foreign(opened.io),
    }
}

#[tokio::test(start_paused = true)]
async fn an_anonymous_sender_is_passed_on_whatever_it_shows() {
    let bed = bed(open()).await;
    let mut listener = listen(&bed).await;
    let expired = bed.token(&root(), OPEN, Duration::ZERO);
    for headers in [
        vec![],
        vec![("ServiceBusAuthorization", "no token at all")],
        vec![("ServiceBusAuthorization", &*expired)],
    ] {
        let target = format!("/$hc/{OPEN}/below?x=1");
        let (sender, accept) = tokio::join!(bed.request(&target, &headers), async {
            let accept = listener.accept_message().await;
            bed.request_owned(&accept).await.unwrap();
            accept
        });
        sender.unwrap();
        let names = accept["connectHeaders"].as_object().unwrap();
        assert!(!names.contains_key("Servicebusauthorization"), "{names:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn anonymity_is_for_the_senders_of_that_hybrid_connection() {
    let bed = bed(open()).await;
    for target in [
        format!("/$hc/{OPEN}?sb-hc-action=listen"),
        format!("/$hc/{PATH}"),
        // Nobody learns whether it exists.
        format!("/$hc/{OPEN}2"),
    ] {
        let refused = bed.request(&target, &[]).await.err().unwrap();
        assert_eq!(refused.status, 401, "{target}");
        assert!(refused.reason.starts_with("MissingToken: "));
    }
}

#[tokio::test(start_paused = true)]
async fn an_anonymous_request_keeps_its_own_authorization() {
    let bed = bed(open()).await;
    let mut listener = listen(&bed).await;
    let request = Request::get(format!("/{OPEN}"))
        .header("host", bed.server.endpoint().authority())
        .header("authorization", "Bearer for-the-listener")
        .body(Empty::new())
        .unwrap();
    let io = bed.memory(64 * 1024);
    let sent = tokio::spawn(exchange(io, request));
    let message = listener.control.next().await.unwrap().unwrap();
    let message: Value = serde_json::from_str(message.as_text().unwrap()).unwrap();
    let headers = &message["request"]["requestHeaders"];
    assert_eq!(headers["Authorization"], "Bearer for-the-listener");
    sent.abort();
}

#[tokio::test(start_paused = true)]
async fn http_may_be_switched_off() {
    let bed = bed(EntityOptions::new().websockets_only()).await;
    let mut listener = listen(&bed).await;
    let token = bed.token(&root(), OPEN, Duration::from_secs(3600));
    let ask = async |token: &str| {
        let request = Request::get(format!("/{OPEN}"))
            .header("host", bed.server.endpoint().authority())
            .header("ServiceBusAuthorization", token)
            .body(Empty::new())
            .unwrap();
        exchange(bed.memory(64 * 1024), request)
            .await
            .err()
            .unwrap()
    };
    let refused = ask(&token).await;
    assert_eq!(refused.status, 404);
    assert!(
        refused
            .reason
            .starts_with("The endpoint takes WebSocket connections only.")
    );
    // Who may not send does not learn it.
    assert_eq!(ask("no token").await.status, 401);

    let target = format!("/$hc/{OPEN}");
    let headers = [("ServiceBusAuthorization", &*token)];
    let (sender, ()) = tokio::join!(bed.request(&target, &headers), async {
        let accept = listener.accept_message().await;
        bed.request_owned(&accept).await.unwrap();
    });
    sender.unwrap();
}

/// A second line of a configuration must not open what the first one has closed.
#[tokio::test(start_paused = true)]
async fn what_is_added_first_counts() {
    let builder = builder()
        .hybrid_connection(OPEN)
        .hybrid_connection_with(OPEN.to_uppercase(), open());
    let bed = Bed::of(builder, Transport::Memory).await;
    let refused = bed.request(&format!("/$hc/{OPEN}"), &[]).await;
    assert_eq!(refused.err().unwrap().status, 401);
}
