use std::{pin::pin, time::Duration};

use futures_util::{SinkExt, StreamExt, poll};
use tokio::time::Instant;
use tokio_websockets::Message;

use super::{super::rendezvous::ACCEPT_WINDOW, bed::*};

#[tokio::test(start_paused = true)]
async fn a_sender_is_held_until_the_listener_has_dialled() {
    let bed = Bed::start(Transport::Memory).await;
    let mut listener = bed.listen().await;
    let mut sender = pin!(bed.connect());
    let accept = tokio::select! {
        accept = listener.accept_message() => accept,
        _ = &mut sender => panic!("answered too early"),
    };
    // However long nothing happens.
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(poll!(&mut sender).is_pending());

    let (sender, accepted) = tokio::join!(sender, bed.request_owned(&accept));
    let (mut sender, mut accepted) = (foreign(sender.unwrap().io), foreign(accepted.unwrap().io));
    sender.send(Message::text("hello")).await.unwrap();
    assert_eq!(
        accepted.next().await.unwrap().unwrap().as_text(),
        Some("hello")
    );
    accepted.send(Message::binary(vec![1, 2])).await.unwrap();
    assert!(is_binary(&sender.next().await.unwrap().unwrap(), &[1, 2]));
}

#[tokio::test]
async fn what_the_listener_learns() {
    let bed = Bed::start(Transport::Tcp).await;
    let mut listener = bed.listen().await;
    let target = "/$hc/Clusters%2FEast/a%20b?x=1&sb-hc-action=connect&sb-hc-id=my-id&sb-hc-token=t";
    let token = bed.root_token();
    let headers = [
        ("ServiceBusAuthorization", &*token),
        ("X-Custom", "one"),
        ("X-Custom", "two"),
        ("Sec-WebSocket-Protocol", "p1, p2"),
    ];
    let mut sender = pin!(bed.request(target, &headers));
    let accept = tokio::select! {
        accept = listener.accept_message() => accept,
        _ = &mut sender => panic!("answered too early"),
    };

    let address = accept["address"].as_str().unwrap();
    let start = format!(
        "ws://{}/$hc/clusters/east/a%20b?x=1&sb-hc-action=accept&sb-hc-id=",
        bed.server.local_addr()
    );
    assert!(address.starts_with(&start), "{address}");
    assert_eq!(address.len(), start.len() + 32);
    assert_eq!(accept["id"], "my-id_G0");
    assert_eq!(accept["remoteEndpoint"]["address"], "127.0.0.1");
    assert!(accept["remoteEndpoint"]["port"].as_u64().unwrap() > 0);
    let connect_headers = accept["connectHeaders"].as_object().unwrap();
    assert_eq!(connect_headers["X-Custom"], "one, two");
    assert_eq!(connect_headers["Sec-WebSocket-Protocol"], "p1, p2");
    assert_eq!(connect_headers["Host"], bed.server.endpoint().authority());
    assert!(connect_headers.contains_key("Sec-WebSocket-Key"));
    assert!(!accept.to_string().contains("SharedAccessSignature"));
    assert!(!accept.to_string().contains("sb-hc-token"));

    // The listener's choice is shown to both.
    let target = target_of(&accept);
    let headers = [("Sec-WebSocket-Protocol", "p2")];
    let (sender, accepted) = tokio::join!(sender, bed.request(&target, &headers));
    assert_eq!(accepted.unwrap().protocol.as_deref(), Some("p2"));
    assert_eq!(sender.unwrap().protocol.as_deref(), Some("p2"));
}

#[tokio::test]
async fn a_listener_may_say_no() {
    let bed = Bed::start(Transport::Tcp).await;
    let mut listener = bed.listen().await;
    for (parameters, status, reason) in [
        (
            "sb-hc-statusCode=418&sb-hc-statusDescription=short+and%20stout",
            418,
            "short and stout",
        ),
        ("statusCode=401&statusDescription=who%3F", 401, "who?"),
        ("sb-hc-statusDescription=no", 400, "no"),
    ] {
        let (sender, rejection) = tokio::join!(bed.connect(), async {
            let accept = listener.accept_message().await;
            bed.request(&format!("{}&{parameters}", target_of(&accept)), &[])
                .await
        });
        assert_eq!(rejection.err().unwrap().status, 410);
        let refused = sender.err().unwrap();
        assert_eq!(
            (refused.status.as_u16(), &*refused.reason),
            (status, reason)
        );
    }
}

#[tokio::test]
async fn an_address_is_used_once() {
    let bed = Bed::start(Transport::Tcp).await;
    let mut listener = bed.listen().await;
    let (sender, accept) = tokio::join!(bed.connect(), async {
        let accept = listener.accept_message().await;
        bed.request_owned(&accept).await.unwrap();
        accept
    });
    sender.unwrap();
    assert_eq!(bed.request_owned(&accept).await.err().unwrap().status, 403);
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_does_not_dial_in_time_is_too_late() {
    let bed = Bed::start(Transport::Memory).await;
    let mut listener = bed.listen().await;
    let start = Instant::now();
    let (sender, accept) = tokio::join!(bed.connect(), listener.accept_message());
    let refused = sender.err().unwrap();
    assert_eq!(refused.status, 504);
    assert!(
        refused
            .reason
            .starts_with("None of the connected listeners accepted the connection")
    );
    assert_eq!(start.elapsed(), ACCEPT_WINDOW);
    assert_eq!(bed.request_owned(&accept).await.err().unwrap().status, 403);
}

#[tokio::test]
async fn a_sender_that_left_is_forgotten() {
    let bed = Bed::start(Transport::Tcp).await;
    let mut listener = bed.listen().await;
    let accept = tokio::select! {
        accept = listener.accept_message() => accept,
        _ = bed.connect() => panic!("answered too early"),
    };
    // The sender's connection is closed now; the relay notices in its own time.
    let status = loop {
        match bed.request_owned(&accept).await {
            Err(refused) => break refused.status,
            // It had not noticed; then the leg just ends.
            Ok(opened) => {
                assert!(
                    foreign(opened.io)
                        .next()
                        .await
                        .is_none_or(|message| message.is_err())
                );
            }
        }
    };
    assert_eq!(status, 403);
}

#[tokio::test]
async fn senders_may_choose_among_listeners() {
    let bed = Bed::start(Transport::Tcp).await;
    let (mut one, mut two) = (bed.listen_as("ID-1").await, bed.listen_as("ID-2").await);
    let token = bed.root_token();
    let target = format!("/$hc/{PATH}");
    for (header, value) in [
        ("Microsoft-Relay-AllowedListeners", "id-0, id-2"),
        ("Microsoft-Relay-DisallowedListeners", "id-1"),
    ] {
        for _ in 0..4 {
            let headers = [("ServiceBusAuthorization", &*token), (header, value)];
            let (sender, ()) = tokio::join!(bed.request(&target, &headers), async {
                let accept = tokio::select! {
                    accept = two.accept_message() => accept,
                    _ = one.accept_message() => panic!("not allowed"),
                };
                bed.request_owned(&accept).await.unwrap();
            });
            sender.unwrap();
        }
    }
    let headers = [
        ("ServiceBusAuthorization", &*token),
        ("Microsoft-Relay-AllowedListeners", "id-3"),
    ];
    let refused = bed.request(&target, &headers).await.err().unwrap();
    assert_eq!(refused.status, 404);
    assert!(
        refused
            .reason
            .starts_with("None of the connected listeners meet")
    );
}

#[tokio::test]
async fn senders_are_spread_over_listeners() {
    let bed = Bed::start(Transport::Tcp).await;
    let (mut one, mut two) = (bed.listen_as("1").await, bed.listen_as("2").await);
    let mut counts = [0, 0];
    for _ in 0..64 {
        let (sender, ()) = tokio::join!(bed.connect(), async {
            let accept = tokio::select! {
                accept = one.accept_message() => { counts[0] += 1; accept }
                accept = two.accept_message() => { counts[1] += 1; accept }
            };
            bed.request_owned(&accept).await.unwrap();
        });
        sender.unwrap();
    }
    // One of them getting none has a chance of 2^-63.
    assert!(counts.iter().all(|&count| count > 0), "{counts:?}");
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_takes_no_message_is_passed_over() {
    let bed = Bed::start(Transport::Memory).await;
    // Its pipe takes the 101, but is too small for a message, and nobody reads it.
    let target = format!("/$hc/{PATH}?sb-hc-action=listen&sb-hc-id=stuck");
    let token = bed.root_token();
    let _stuck = bed
        .request_over(300, &target, &[("ServiceBusAuthorization", &token)])
        .await
        .unwrap();
    let mut listener = bed.listen().await;
    for _ in 0..3 {
        bed.pair(&mut listener).await;
    }
}

impl Bed {
    pub(super) async fn request_owned(
        &self,
        accept: &serde_json::Value,
    ) -> Result<Opened, Refused> {
        self.request(&target_of(accept), &[]).await
    }
}
