//! Whoever can go on does, and is told so.

use std::task::Poll;

use super::{
    super::{config::Config, connection::Event, frame::Frame, id::Role, simulation::Pair},
    control, fin, open,
    wire::Scripted,
};

#[test]
fn m01_both_sides_write_more_than_a_window_without_reading() {
    let mut pair = Pair::ready();
    let stream = pair.established();
    let data: Vec<u8> = (0..1_000_000u32).map(|index| index as u8).collect();
    let mut written = [0, 0];
    // Until both are stopped by their windows.
    loop {
        let more = [
            pair.client.write(stream, &data[written[0]..]),
            pair.server.write(stream, &data[written[1]..]),
        ];
        pair.drive();
        written[0] += more[0];
        written[1] += more[1];
        if more == [0, 0] {
            break;
        }
    }
    assert!(written[0] < data.len() && written[1] < data.len());
    // Another stream does not notice.
    let other = pair.established();
    pair.client.write(other, b"through");
    pair.drive();
    assert_eq!(pair.server.read(other), b"through");
    // Reading resolves it.
    let mut received = [Vec::new(), Vec::new()];
    while received.iter().any(|all| all.len() < data.len()) {
        received[0].extend(pair.server.read(stream));
        received[1].extend(pair.client.read(stream));
        written[0] += pair.client.write(stream, &data[written[0]..]);
        written[1] += pair.server.write(stream, &data[written[1]..]);
        pair.drive();
    }
    assert!(received.iter().all(|all| *all == data));
}

#[test]
fn m02_a_task_that_only_writes_is_woken_by_credit() {
    let mut pair = Pair::ready();
    let stream = pair.established();
    let data = vec![5; 4 * 1024 * 1024];
    let mut written = 0;
    let mut received = 0;
    while received < data.len() {
        if written < data.len() {
            written += pair.client.write(stream, &data[written..]);
        }
        pair.client.events.clear();
        pair.drive();
        let blocked = written < data.len();
        received += pair.server.read(stream).len();
        pair.drive();
        let woken = pair.client.events.contains(&Event::Writable(stream));
        assert!(
            woken || !blocked,
            "a writer that was told to wait must be woken"
        );
    }
}

#[test]
fn m03_an_end_of_file_beside_credit_wakes_the_reader() {
    let mut server = Scripted::ready(Role::Server);
    server.feed(&open(1, b"", b""));
    let Poll::Ready(Some((stream, _))) = server.connection.accept() else {
        panic!("a stream");
    };
    assert!(server.connection.read(stream, 10).is_pending());
    let credit = Frame::Credit {
        stream,
        limit: 50_000,
    };
    server.feed(&[control(credit), fin(1, b"")].concat());
    let events: Vec<_> = std::iter::from_fn(|| server.connection.poll_event()).collect();
    assert!(events.contains(&Event::Readable(stream)), "{events:?}");
    assert!(matches!(
        server.connection.read(stream, 10),
        Poll::Ready(Ok(None))
    ));
}

#[test]
fn m04_one_stopped_reader_of_256_stops_nobody() {
    let mut pair = Pair::ready();
    let mut streams = Vec::new();
    while streams.len() < 256 {
        streams.push(pair.established());
    }
    let (stopped, others) = streams.split_first().expect("streams");
    let chunk = vec![1; 12 * 1024];
    let mut received = vec![0; others.len()];
    for _ in 0..20 {
        pair.client.write(*stopped, &[2; 64 * 1024]);
        for stream in others {
            assert_eq!(pair.client.write(*stream, &chunk), chunk.len());
        }
        for _ in 0..4 {
            pair.drive();
            for (stream, received) in others.iter().zip(&mut received) {
                *received += pair.server.read(*stream).len();
            }
        }
    }
    assert!(
        received
            .iter()
            .all(|received| *received == 20 * chunk.len())
    );
    let unread = pair.server.read(*stopped).len();
    assert!(unread <= 256 * 1024, "{unread}");
}

#[test]
fn credit_follows_the_number_of_streams() {
    let config = Config::default().with_receive_budget(32 << 20);
    let mut pair = Pair::with(config.clone(), config);
    pair.drive();
    let streams: Vec<_> = (0..128).map(|_| pair.client.open()).collect();
    pair.drive();
    for stream in &streams {
        pair.server.accept();
        pair.client.write(*stream, &[0; 300_000]);
    }
    for _ in 0..20 {
        pair.drive();
        for stream in &streams {
            pair.server.read(*stream);
        }
    }
    pair.server.connection.assert_consistent();
}

#[test]
fn idle_streams_leave_window_for_a_big_answer() {
    let mut pair = Pair::ready();
    let mut watches = 0;
    while watches < 1000 {
        while pair.client.connection.can_open() && watches < 1000 {
            pair.client.open();
            watches += 1;
        }
        pair.drive();
        while let Poll::Ready(Some((watch, _))) = pair.server.connection.accept() {
            pair.server.write(watch, &[b'h'; 300]);
            pair.drive();
            pair.client.read(watch);
        }
        pair.drive();
    }
    let list = pair.client.open();
    pair.drive();
    assert_eq!(pair.server.accept(), list);
    let answer = vec![7; 256 * 1024];
    assert_eq!(pair.server.write(list, &answer), answer.len());
    pair.drive();
    let mut received = pair.client.read(list).len();
    assert_eq!(received, 16 * 1024, "the floor");
    pair.drive();
    received += pair.client.read(list).len();
    assert_eq!(received, answer.len(), "one round trip later, all of it");
}

#[test]
fn a_budget_of_floors_still_moves_every_stream() {
    let config = Config::default()
        .with_receive_budget(0)
        .with_max_streams(16)
        .with_max_opened(16);
    let mut pair = Pair::with(Config::default(), config);
    pair.drive();
    let streams: Vec<_> = (0..16).map(|_| pair.client.open()).collect();
    let data = vec![9; 100_000];
    for stream in &streams {
        assert_eq!(pair.client.write(*stream, &data), data.len());
    }
    pair.drive();
    for _ in 0..16 {
        pair.server.accept();
    }
    let mut received = 0;
    for _ in 0..100 {
        for stream in &streams {
            received += pair.server.read(*stream).len();
        }
        pair.drive();
    }
    assert_eq!(received, 16 * data.len());
}
