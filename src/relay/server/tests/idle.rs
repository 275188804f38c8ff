//! Idle sockets at a relay that cuts them. In memory and virtual time.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::Instant,
};

use super::{super::Emulation, bed::*};
use crate::relay::{
    ListenerOptions, RelayCredential, RelayListener, RelaySender,
    websocket::{CloseReason, Event, MessageEnd, MessageKind, Outgoing, WebSocket},
};

const SECOND: Duration = Duration::from_secs(1);

fn idle_cut() -> Emulation {
    Emulation::new()
        .cut_idle_listeners(240 * SECOND)
        .cut_idle_connections(120 * SECOND)
}

/// A ping every so often; what comes is read. Ends when the socket does.
async fn pinging(socket: &mut WebSocket<Io>, every: Duration) -> Option<CloseReason> {
    loop {
        tokio::select! {
            event = next(socket) => match event {
                Ok(Event::Close(reason)) => return reason,
                Ok(Event::Ended) | Err(_) => return None,
                Ok(_) => {}
            },
            () = tokio::time::sleep(every) => {
                socket.start_ping(b"");
                // The socket's end shows in the next event.
                let _ = socket.flush().await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_control_channel_is_cut_without_a_close() {
    let bed = Bed::of(builder().emulate(idle_cut()), Transport::Memory).await;
    let mut listener = ours(bed.listen_raw().await);
    let start = Instant::now();
    assert_eq!(listener.next_event().await.unwrap(), Event::Ended);
    assert_eq!(start.elapsed(), 250 * SECOND);
    assert_eq!(bed.server.listeners(PATH), 0);
}

#[tokio::test(start_paused = true)]
async fn a_control_channel_that_pings_or_is_told_of_senders_is_spared() {
    let bed = Bed::of(builder().emulate(idle_cut()), Transport::Memory).await;
    let mut listener = ours(bed.listen_raw().await);
    let spared = tokio::time::timeout(3000 * SECOND, pinging(&mut listener, 239 * SECOND));
    assert!(spared.await.is_err());

    // It sends nothing itself.
    for _ in 0..5 {
        let told = tokio::join!(
            tokio::time::timeout(30 * SECOND, bed.connect()),
            next(&mut listener)
        );
        assert!(matches!(told.1, Ok(Event::Data { .. })));
        tokio::time::sleep(200 * SECOND).await;
    }
    assert_eq!(bed.server.listeners(PATH), 1);
    let start = Instant::now();
    assert_eq!(listener.next_event().await.unwrap(), Event::Ended);
    assert!(start.elapsed() < 25 * SECOND, "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_relayed_connection_with_an_idle_end_is_cut() {
    let bed = Bed::of(builder().emulate(idle_cut()), Transport::Memory).await;
    for pings in [[false, false], [true, false], [false, true]] {
        let (mut sender, mut accepted) = pair(&bed).await;
        let start = Instant::now();
        let every = |pings| if pings { 30 * SECOND } else { 10_000 * SECOND };
        let closes = tokio::join!(
            pinging(&mut sender, every(pings[0])),
            pinging(&mut accepted, every(pings[1]))
        );
        assert_eq!(closes, (None, None));
        assert_eq!(start.elapsed(), 125 * SECOND, "{pings:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_relayed_connection_in_use_is_spared() {
    let bed = Bed::of(builder().emulate(idle_cut()), Transport::Memory).await;
    let (mut sender, mut accepted) = pair(&bed).await;
    // Data one way is activity at both ends.
    for _ in 0..20 {
        tokio::time::sleep(110 * SECOND).await;
        let piece = Outgoing::Data {
            kind: MessageKind::Binary,
            payload: b"x",
            end: MessageEnd::Last,
        };
        sender.send(piece).await.unwrap();
        assert!(matches!(next(&mut accepted).await, Ok(Event::Data { .. })));
    }
    let both = async {
        tokio::join!(
            pinging(&mut sender, 100 * SECOND),
            pinging(&mut accepted, 119 * SECOND)
        )
    };
    assert!(tokio::time::timeout(3000 * SECOND, both).await.is_err());
}

/// The two ends of a connection whose listener is gone afterwards.
async fn pair(bed: &Bed) -> (WebSocket<Io>, WebSocket<Io>) {
    let mut listener = bed.listen().await;
    let (sender, accepted) = bed.pair(&mut listener).await;
    (ours(sender), ours(accepted))
}

/// Sender and listener of this crate ping every 30 s.
#[tokio::test(start_paused = true)]
async fn our_own_ends_are_never_cut() {
    let start = SystemTime::now();
    let virtual_start = Instant::now();
    let bed = Bed::of(builder().emulate(idle_cut()), Transport::Memory).await;
    let mut listener = RelayListener::start_at(
        bed.connector(),
        bed.hybrid_connection(),
        root().into(),
        ListenerOptions::new(),
        Arc::new(move || start + virtual_start.elapsed()),
    );
    listener.online().await.unwrap();
    let entity = bed.server.relay.entities.named(PATH).unwrap();
    let channel = entity.listeners_now().remove(0);
    let token = root().sign(&bed.hybrid_connection(), start + 100_000 * SECOND);
    let sender = RelaySender::new(
        bed.connector(),
        bed.hybrid_connection(),
        RelayCredential::sas_token(token.secret()).unwrap(),
    );
    let (sent, accepted) = tokio::join!(sender.connect(), async {
        listener.accept().await.unwrap().accept().await
    });
    let (mut sent, mut accepted) = (sent.unwrap(), accepted.unwrap());
    // A stream pings while it is read.
    let quiet = async {
        let (mut one, mut other) = ([0; 1], [0; 1]);
        tokio::join!(sent.read_exact(&mut one), accepted.read_exact(&mut other))
    };
    let hour = 3600 * SECOND;
    let lost = tokio::time::timeout(hour, async {
        tokio::select! {
            ended = quiet => panic!("{ended:?}"),
            incoming = listener.accept() => panic!("{incoming:?}"),
        }
    });
    assert!(lost.await.is_err());
    sent.write_all(b"!").await.unwrap();
    sent.flush().await.unwrap();
    assert_eq!(accepted.read_u8().await.unwrap(), b'!');
    let channels = entity.listeners_now();
    assert!(Arc::ptr_eq(&channels[0], &channel));
}
