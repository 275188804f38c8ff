//! The close codes of the relay itself (those of its tokens are in `control`).

use std::time::Duration;

use tokio::time::Instant;

use super::{super::Emulation, bed::*};
use crate::{
    ErrorKind,
    relay::websocket::{Event, MessageEnd, MessageKind, Outgoing},
};

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test(start_paused = true)]
async fn a_control_channel_is_recycled_at_its_age_with_1011() {
    for (builder, age) in [
        (builder().recycle_after(10 * HOUR), 10 * HOUR),
        (builder().emulate(Emulation::azure()), 24 * HOUR),
        // What is said explicitly wins, in either order.
        (
            builder().recycle_after(HOUR).emulate(Emulation::azure()),
            HOUR,
        ),
    ] {
        let bed = Bed::of(builder, Transport::Memory).await;
        let mut listener = ours(bed.listen_raw().await);
        let start = Instant::now();
        let reason = loop {
            tokio::select! {
                event = listener.next_event() => match event.unwrap() {
                    Event::Close(reason) => break reason.unwrap(),
                    Event::Ping | Event::Pong => {}
                    other => panic!("{other:?}"),
                },
                () = tokio::time::sleep(Duration::from_secs(30)) => {
                    listener.start_ping(b"");
                    listener.flush().await.unwrap();
                }
            }
        };
        assert_eq!(reason.code, 1011);
        assert_eq!(reason.reason, "InternalServerError: NameRenewalFailed");
        assert_eq!(start.elapsed(), age);
    }
}

#[tokio::test]
async fn recycling_takes_the_oldest_channel_of_each() {
    let bed = Bed::start(Transport::Tcp).await;
    let (mut old, mut new) = (bed.listen_as("old").await, bed.listen_as("new").await);
    bed.server.recycle();
    assert_eq!(old.closed().await.0, 1011);
    assert_eq!(bed.server.listeners(PATH), 1);
    bed.pair(&mut new).await;
}

#[tokio::test]
async fn what_is_removed_says_goodbye_and_was_never_there() {
    let bed = Bed::start(Transport::Tcp).await;
    let mut listener = bed.listen().await;
    let [token, token_for_other] = [PATH, "other"].map(|path| bed.token(&root(), path, HOUR));
    let (sender, accepted) = bed.pair(&mut listener).await;
    let (mut sender, mut accepted) = (foreign(sender), foreign(accepted));
    // One more is waiting.
    let (held, ()) = tokio::join!(bed.connect(), async {
        listener.accept_message().await;
        bed.server.remove("Clusters/East").unwrap();
    });
    assert_eq!(held.err().unwrap().status, 404);
    for (code, reason) in [
        listener.closed().await,
        closed(&mut sender).await,
        closed(&mut accepted).await,
    ] {
        assert_eq!((code, &*reason), (1001, "The endpoint was deleted"));
    }

    let listen = |path: &str, token: String| {
        let target = format!("/$hc/{path}?sb-hc-action=listen");
        let bed = &bed;
        async move {
            let headers = [("ServiceBusAuthorization", &*token)];
            bed.request(&target, &headers).await
        }
    };
    let refused = listen(PATH, token).await.err().unwrap();
    assert_eq!(refused.status, 404);
    assert!(refused.reason.starts_with("Endpoint does not exist"));
    let other = listen("other", token_for_other).await;
    assert!(other.is_ok(), "the others are still there");
    assert_eq!(bed.server.listeners(PATH), 0);
    for path in [PATH, "nowhere"] {
        let error = bed.server.remove(path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
}

/// By the guide. Without the emulation it is an end without a Close, because many take a Close for a clean end.
#[tokio::test(start_paused = true)]
async fn on_azure_a_listener_is_told_that_its_sender_went_away() {
    let emulation = Emulation::azure().dial_spikes(0, Duration::ZERO..=Duration::ZERO);
    let bed = Bed::of(builder().emulate(emulation), Transport::Memory).await;
    let mut listener = bed.listen().await;
    let (sender, accepted) = bed.pair(&mut listener).await;
    let (mut sender, mut accepted) = (ours(sender), ours(accepted));
    let piece = Outgoing::Data {
        kind: MessageKind::Binary,
        payload: b"last words",
        end: MessageEnd::Last,
    };
    sender.send(piece).await.unwrap();
    drop(sender);
    assert!(matches!(next(&mut accepted).await, Ok(Event::Data { .. })));
    match next(&mut accepted).await {
        Ok(Event::Close(Some(reason))) => assert_eq!(reason.code, 1001),
        other => panic!("{other:?}"),
    }

    // A lost listener is an end without a Close, as ever.
    let (sender, accepted) = bed.pair(&mut listener).await;
    let mut sender = ours(sender);
    drop(accepted);
    assert!(!matches!(next(&mut sender).await, Ok(Event::Close(_))));
}
