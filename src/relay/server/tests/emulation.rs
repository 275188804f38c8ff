//! What the relay does slowly on purpose. In memory and virtual time, where everything else takes no time at all.

use std::time::Duration;

use tokio::time::Instant;

use super::{super::Emulation, bed::*};
use crate::relay::websocket::{
    Event, MessageEnd, MessageKind, Outgoing, WebSocket, WebSocketError,
};

const MS: Duration = Duration::from_millis(1);

async fn bed(emulation: Emulation) -> Bed {
    Bed::of(builder().emulate(emulation), Transport::Memory).await
}

/// How long a sender and the listener that it found waited for their 101s, and when the listener was told.
struct Dialled {
    told: Duration,
    sender: Duration,
    listener: Duration,
}

async fn dial(bed: &Bed, listener: &mut Listener) -> Dialled {
    let start = Instant::now();
    let sender = async {
        bed.connect().await.unwrap();
        start.elapsed()
    };
    let (sender, (told, listener)) = tokio::join!(sender, async {
        let accept = listener.accept_message().await;
        let told = Instant::now();
        bed.request_owned(&accept).await.unwrap();
        (told - start, told.elapsed())
    });
    Dialled {
        told,
        sender,
        listener,
    }
}

#[tokio::test(start_paused = true)]
async fn a_dial_takes_six_trips_of_each_side_and_the_hold() {
    let emulation = Emulation::new()
        .sender_delay(20 * MS)
        .listener_delay(7 * MS)
        .dial_hold(50 * MS);
    let bed = bed(emulation).await;
    let start = Instant::now();
    let mut listener = bed.listen().await;
    assert_eq!(start.elapsed(), 6 * 7 * MS);
    let dialled = dial(&bed, &mut listener).await;
    assert_eq!(dialled.told, 5 * 20 * MS + 50 * MS + 7 * MS);
    assert_eq!(dialled.listener, 6 * 7 * MS);
    assert_eq!(dialled.sender, 6 * 20 * MS + 50 * MS + 6 * 7 * MS);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_takes_its_way_too() {
    let bed = bed(Emulation::new().sender_delay(20 * MS)).await;
    let start = Instant::now();
    assert_eq!(bed.connect().await.err().unwrap().status, 404);
    assert_eq!(start.elapsed(), 6 * 20 * MS);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_slow_unless_it_is_asked_for() {
    let bed = bed(Emulation::new()).await;
    let mut listener = bed.listen().await;
    let dialled = dial(&bed, &mut listener).await;
    assert!(dialled.sender.is_zero() && dialled.listener.is_zero());
}

#[tokio::test(start_paused = true)]
async fn one_dial_in_so_many_is_much_slower() {
    let second = Duration::from_secs(1);
    let emulation = Emulation::new()
        .dial_spikes(4, 3 * second..=7 * second)
        .seed(1);
    let bed = bed(emulation).await;
    let mut listener = bed.listen().await;
    let mut slow = 0;
    for _ in 0..200 {
        let dialled = dial(&bed, &mut listener).await;
        // It is the relay that takes the time: its listener hears of nothing.
        assert_eq!(dialled.told, dialled.sender);
        if !dialled.sender.is_zero() {
            assert!((3 * second..=7 * second).contains(&dialled.sender));
            slow += 1;
        }
    }
    // The expected 50 with a standard deviation of 6; the seed is fixed.
    assert!((35..65).contains(&slow), "{slow}");
}

/// A sender that gives a slow dial up leaves nothing behind: no listener is told of it later.
#[tokio::test(start_paused = true)]
async fn a_dial_that_is_given_up_reaches_no_listener() {
    let bed = bed(Emulation::new().dial_hold(5000 * MS)).await;
    let mut listener = bed.listen().await;
    let given_up = tokio::time::timeout(1000 * MS, bed.connect()).await;
    assert!(given_up.is_err());
    let told = tokio::time::timeout(20_000 * MS, listener.accept_message()).await;
    assert!(told.is_err(), "{told:?}");
}

async fn pair(bed: &Bed) -> (WebSocket<Io>, WebSocket<Io>) {
    let mut listener = bed.listen().await;
    let (sender, accepted) = bed.pair(&mut listener).await;
    tokio::spawn(async move { listener.closed().await });
    (ours(sender), ours(accepted))
}

fn message(payload: &[u8]) -> Outgoing<'_> {
    Outgoing::Data {
        kind: MessageKind::Binary,
        payload,
        end: MessageEnd::Last,
    }
}

/// The size of the next piece.
async fn received(socket: &mut WebSocket<Io>) -> usize {
    match next(socket).await.unwrap() {
        Event::Data { payload, .. } => payload.len(),
        other => panic!("{other:?}"),
    }
}

fn held(bed: &Bed) -> usize {
    bed.server.relay.emulation.held()
}

#[tokio::test(start_paused = true)]
async fn a_message_takes_a_trip_on_each_side_and_many_take_no_longer() {
    let emulation = Emulation::new()
        .sender_delay(20 * MS)
        .listener_delay(7 * MS);
    let bed = bed(emulation).await;
    let (mut sender, mut accepted) = pair(&bed).await;
    for [from, to] in [[0, 1], [1, 0]] {
        let ends = [&mut sender, &mut accepted];
        let start = Instant::now();
        for _ in 0..100 {
            ends[from].send(message(b"0123456789")).await.unwrap();
        }
        assert!(start.elapsed().is_zero());
        for _ in 0..100 {
            assert_eq!(received(ends[to]).await, 10);
            assert_eq!(start.elapsed(), 27 * MS);
        }
    }
    assert_eq!(held(&bed), 0);
}

/// Delay and rate do not know of each other: what is sent without a pause arrives without one.
#[tokio::test(start_paused = true)]
async fn a_megabyte_takes_its_time_at_any_delay() {
    const SIZE: usize = 1 << 20;
    let expected = Duration::from_secs_f64(SIZE as f64 * 8.0 / 14e6);
    for delay in [0, 30, 200] {
        let emulation = Emulation::azure().sender_delay(delay * MS);
        let bed = bed(emulation.dial_spikes(0, MS..=MS)).await;
        let (mut sender, mut accepted) = pair(&bed).await;
        let start = Instant::now();
        let (_, ()) = tokio::join!(sender.send(message(&[7; SIZE])), async {
            let mut left = SIZE;
            while left > 0 {
                left -= received(&mut accepted).await;
            }
        });
        let took = start.elapsed() - (30 + delay) * MS;
        let share = took.as_secs_f64() / expected.as_secs_f64();
        assert!((0.99..1.02).contains(&share), "{share} at {delay} ms");
    }
}

/// What a sender can send to a listener that does not read, and what the relay then has in memory.
#[tokio::test(start_paused = true)]
async fn a_full_buffer_holds_the_sender_up_and_no_more() {
    const BUFFER: usize = 1 << 20;
    for size in [32 * 1024, 10] {
        let bed = bed(Emulation::new().buffer(BUFFER)).await;
        let (mut sender, mut accepted) = pair(&bed).await;
        let payload = vec![7; size];
        let mut sent = 0;
        let mut most = 0;
        while tokio::time::timeout(1000 * MS, sender.send(message(&payload)))
            .await
            .is_ok()
        {
            sent += size;
            most = most.max(held(&bed));
            assert!(sent < 8 * BUFFER, "nothing holds the sender up");
        }
        assert!((BUFFER..BUFFER + 40 * 1024).contains(&most), "{most}");
        if size > 1000 {
            // What is in the sockets' own buffers comes on top of it.
            assert!((BUFFER..BUFFER + 400 * 1024).contains(&sent), "{sent}");
        }
        // The last message was taken, but for its end.
        let mut left = sent + size;
        let finish = async {
            sender.flush().await.unwrap();
            sender.send(message(b"behind")).await.unwrap();
        };
        tokio::join!(finish, async {
            while left > 0 {
                left -= received(&mut accepted).await;
            }
        });
        assert_eq!(received(&mut accepted).await, 6);
        assert_eq!(held(&bed), 0);
    }
}

/// Why a tunnel needs a flow control of its own: one bulk stream freezes everything on its connection.
#[tokio::test(start_paused = true)]
async fn a_small_message_waits_behind_a_full_buffer_as_long_as_on_azure() {
    let bed = bed(Emulation::azure().dial_spikes(0, MS..=MS)).await;
    let (mut sender, mut accepted) = pair(&bed).await;
    let reading = tokio::spawn(async move {
        loop {
            if received(&mut accepted).await == 5 {
                return Instant::now();
            }
        }
    });
    let chunk = vec![7; 32 * 1024];
    let mut sent = 0;
    while held(&bed) < 15 << 20 {
        sender.send(message(&chunk)).await.unwrap();
        sent += chunk.len();
        assert!(sent < 20 << 20);
    }
    let start = Instant::now();
    sender.send(message(b"small")).await.unwrap();
    let waited = reading.await.unwrap() - start;
    // 15 MiB at 14 Mbit/s.
    assert!((8.9..9.3).contains(&waited.as_secs_f64()), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn what_was_sent_before_a_loss_arrives_before_it() {
    for lost_is_the_sender in [true, false] {
        let bed = bed(Emulation::new().listener_delay(500 * MS).rate(8_000_000)).await;
        let (sender, accepted) = pair(&bed).await;
        let (mut lost, mut left) = if lost_is_the_sender {
            (sender, accepted)
        } else {
            (accepted, sender)
        };
        let start = Instant::now();
        lost.send(message(&[7; 20_000])).await.unwrap();
        drop(lost);
        // The other end does not know, and writes to nobody.
        for _ in 0..3 {
            left.send(message(b"to nobody")).await.unwrap();
        }
        let mut size = 0;
        let ending = loop {
            match next(&mut left).await {
                Ok(Event::Data { payload, .. }) => size += payload.len(),
                other => break other,
            }
        };
        assert_eq!(size, 20_000);
        assert!(
            matches!(ending, Ok(Event::Ended) | Err(WebSocketError::Io(_))),
            "{ending:?}"
        );
        // A byte takes a microsecond.
        assert_eq!(start.elapsed(), 520 * MS);
        drop(left);
        tokio::time::sleep(5000 * MS).await;
        assert_eq!(held(&bed), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_close_comes_behind_the_data_and_ends_its_direction_only() {
    let bed = bed(Emulation::new().sender_delay(10 * MS)).await;
    let (mut sender, mut accepted) = pair(&bed).await;
    let start = Instant::now();
    sender.send(message(b"last words")).await.unwrap();
    sender.send(Outgoing::Close(None)).await.unwrap();
    assert_eq!(received(&mut accepted).await, 10);
    assert_eq!(next(&mut accepted).await.unwrap(), Event::Close(None));
    accepted.send(message(b"answer")).await.unwrap();
    accepted.send(Outgoing::Close(None)).await.unwrap();
    assert_eq!(received(&mut sender).await, 6);
    assert_eq!(next(&mut sender).await.unwrap(), Event::Close(None));
    assert_eq!(next(&mut sender).await.unwrap(), Event::Ended);
    assert_eq!(start.elapsed(), 20 * MS);
}
