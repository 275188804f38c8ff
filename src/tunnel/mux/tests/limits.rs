//! Every limit is reached, and everything that a peer may not do is done.

use std::{task::Poll, time::Duration};

use bytes::Bytes;

use super::{
    super::{
        batch::Batch,
        code::{CloseCode, StreamCode},
        config::{Config, MAX_METADATA, RECEIVE_BLOCK},
        flow::MAX_OFFSET,
        frame::Frame,
        id::{MAX_STREAM_COUNT, Role},
        settings::Settings,
    },
    control, data, fin, hello, id, open,
    pair::Pair,
    raw,
    wire::Scripted,
};
use crate::ErrorKind;

/// What `bytes` make of a server that has a stream 1 with nothing sent on it.
fn refused(bytes: &[u8]) -> CloseCode {
    let mut server = Scripted::ready(Role::Server);
    server.feed(&open(1, b"", b""));
    assert!(!server.connection.is_closing());
    server.feed(bytes);
    assert!(server.connection.is_closing(), "not refused");
    assert_eq!(server.ending().0, ErrorKind::Protocol);
    server.last_code()
}

#[test]
fn stream_ids_are_used_in_order_and_once() {
    assert_eq!(refused(&open(2, b"", b"")), CloseCode::PROTOCOL, "parity");
    assert_eq!(refused(&open(1, b"", b"")), CloseCode::PROTOCOL, "reuse");
    assert_eq!(refused(&open(5, b"", b"")), CloseCode::PROTOCOL, "gap");
    assert_eq!(refused(&data(3, b"x")), CloseCode::STREAM_STATE, "not open");
    assert_eq!(
        refused(&data(2, b"x")),
        CloseCode::STREAM_STATE,
        "ours, not open"
    );
    assert_eq!(refused(&raw(1, 0, 0, b"x")), CloseCode::PROTOCOL);
}

#[test]
fn nothing_follows_an_end() {
    let end = fin(1, b"x");
    let reset = control(Frame::Reset {
        stream: id(1),
        code: StreamCode::CANCELLED,
        final_size: 1,
    });
    assert_eq!(
        refused(&[end.clone(), data(1, b"y")].concat()),
        CloseCode::STREAM_STATE
    );
    assert_eq!(
        refused(&[end.clone(), end.clone()].concat()),
        CloseCode::STREAM_STATE
    );
    assert_eq!(
        refused(&[end, reset.clone()].concat()),
        CloseCode::STREAM_STATE
    );
    assert_eq!(
        refused(&[data(1, b"x"), reset.clone(), data(1, b"y")].concat()),
        CloseCode::STREAM_STATE
    );
    // A final size must be what arrived.
    assert_eq!(refused(&reset), CloseCode::STREAM_STATE);
}

#[test]
fn credit_is_kept_to_and_only_grows() {
    let window = 16 * 1024;
    let mut server = Scripted::ready(Role::Server);
    server.feed(&open(1, b"", &vec![0; window]));
    assert!(!server.connection.is_closing());
    server.feed(&data(1, b"x"));
    assert_eq!(server.last_code(), CloseCode::FLOW_CONTROL);

    let mut server = Scripted::ready(Role::Server);
    server.feed(&open(1, b"", &vec![0; window + 1]));
    assert_eq!(
        server.connection.held_streams(),
        0,
        "no state before the check"
    );
    assert_eq!(server.last_code(), CloseCode::FLOW_CONTROL);

    let credit = |limit| {
        control(Frame::Credit {
            stream: id(1),
            limit,
        })
    };
    assert_eq!(refused(&credit(1)), CloseCode::FLOW_CONTROL);
    assert_eq!(refused(&credit(MAX_OFFSET + 1)), CloseCode::FLOW_CONTROL);
    let mut server = Scripted::ready(Role::Server);
    server.feed(&open(1, b"", b""));
    server.feed(&[credit(20_000), credit(20_000), credit(MAX_OFFSET)].concat());
    assert!(!server.connection.is_closing(), "duplicates are harmless");
}

#[test]
fn announcements_are_not_taken_back() {
    let go_away = |last_stream| {
        control(Frame::GoAway {
            last_stream,
            code: CloseCode::DRAIN,
            reason: String::new(),
        })
    };
    assert_eq!(
        refused(&control(Frame::MaxStreams(15))),
        CloseCode::PROTOCOL
    );
    assert_eq!(
        refused(&control(Frame::MaxStreams(1 << 31))),
        CloseCode::FLOW_CONTROL
    );
    assert_eq!(
        refused(&[go_away(2), go_away(4)].concat()),
        CloseCode::PROTOCOL
    );
    assert_eq!(
        refused(&go_away(3)),
        CloseCode::PROTOCOL,
        "not a stream of the server's"
    );
    let mut server = Scripted::ready(Role::Server);
    let mut events = 0;
    server.feed(&go_away(2).repeat(900));
    while server.connection.poll_event().is_some() {
        events += 1;
    }
    assert!(events <= 2, "{events} events for one piece of news");
}

#[test]
fn used_up_ids_end_the_session_in_peace() {
    let mut client = Scripted::ready(Role::Client);
    client.connection.skip_streams(MAX_STREAM_COUNT - 1);
    let Poll::Ready(Ok(last)) = client.connection.open(&Bytes::new()) else {
        panic!("one id is left");
    };
    assert_eq!(last.index(), MAX_STREAM_COUNT - 1);
    assert!(matches!(
        client.connection.open(&Bytes::new()),
        Poll::Ready(Err(_))
    ));
    assert!(client.connection.is_going_away() && !client.connection.is_closing());
}

#[test]
fn frames_have_the_lengths_of_their_kinds() {
    assert_eq!(
        refused(&data(1, &vec![0; 64 * 1024 - 7])),
        CloseCode::FRAME_SIZE
    );
    assert_eq!(refused(&raw(2, 0, 1, &[0; 9])), CloseCode::FRAME_SIZE);
    assert_eq!(
        refused(&open(3, &[0; MAX_METADATA + 1], b"")),
        CloseCode::FRAME_SIZE
    );
    assert_eq!(refused(&hello(Settings::INITIAL)[4..]), CloseCode::PROTOCOL);
    assert_eq!(refused(&raw(6, 1, 0, &[0; 8])), CloseCode::UNSUPPORTED);
    let mut server = Scripted::ready(Role::Server);
    server.feed(&open(1, &[7; MAX_METADATA], b""));
    assert!(!server.connection.is_closing());
}

#[test]
fn the_first_frame_is_settings() {
    let mut server = Scripted::new(Role::Server, Config::default());
    server.feed(&[&b"ACC1"[..], &control(Frame::Ping(1))].concat());
    assert_eq!(server.last_code(), CloseCode::PROTOCOL);
}

#[test]
fn opening_above_the_stream_limit_ends_the_session() {
    let mut server = Scripted::ready(Role::Server);
    for index in 0..128 {
        server.feed(&open(2 * index + 1, b"", b""));
    }
    assert!(!server.connection.is_closing());
    server.feed(&open(257, b"", b""));
    assert_eq!(server.last_code(), CloseCode::STREAM_LIMIT);
}

#[test]
fn opening_above_the_limit_of_either_side_ends_the_session_however_fast_streams_are_accepted() {
    for (role, first, limit) in [(Role::Server, 1, 1024), (Role::Client, 2, 16)] {
        let mut end = Scripted::ready(role);
        for index in 0..limit {
            end.feed(&open(first + 2 * index, b"", b""));
            assert!(end.connection.accept().is_ready(), "{role:?} {index}");
            end.sent();
        }
        assert!(!end.connection.is_closing());
        end.feed(&open(first + 2 * limit, b"", b""));
        assert_eq!(end.connection.held_streams(), limit as usize);
        assert_eq!(end.last_code(), CloseCode::STREAM_LIMIT);
    }
}

#[test]
fn each_side_keeps_to_its_own_limit_and_to_its_peers() {
    let config = Config::default().with_max_opened(20).with_max_streams(30);
    let mut pair = Pair::with(config.clone(), config.with_max_opened(1000));
    pair.drive();
    let mut opened = [0, 0];
    for _ in 0..4 {
        while pair.client.connection.can_open() {
            pair.client.open();
            opened[0] += 1;
        }
        while pair.server.connection.can_open() {
            pair.server.open();
            opened[1] += 1;
        }
        pair.drive();
        while pair.client.connection.accept().is_ready() {}
        while pair.server.connection.accept().is_ready() {}
        pair.drive();
    }
    assert_eq!(opened, [20, 30]);
    assert!(!pair.client.connection.is_closing() && !pair.server.connection.is_closing());
}

#[test]
fn metadata_above_its_limit_is_the_callers_error() {
    let mut pair = Pair::ready();
    let metadata = Bytes::from(vec![0; MAX_METADATA + 1]);
    let Poll::Ready(Err(error)) = pair.client.connection.open(&metadata) else {
        panic!("too long");
    };
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[test]
fn unaccepted_streams_hold_the_opener_back() {
    let mut pair = Pair::ready();
    for _ in 0..128 {
        pair.client.open();
    }
    pair.drive();
    assert!(pair.client.connection.open(&Bytes::new()).is_pending());
    for _ in 0..64 {
        pair.server.accept();
    }
    pair.drive();
    for _ in 0..64 {
        pair.client.open();
    }
    assert!(pair.client.connection.open(&Bytes::new()).is_pending());
}

#[test]
fn open_streams_are_limited_however_fast_they_are_accepted() {
    let mut pair = Pair::ready();
    let mut opened = Vec::new();
    let mut waits = 0;
    loop {
        match pair.client.connection.open(&Bytes::new()) {
            Poll::Ready(stream) => opened.push(stream.unwrap()),
            Poll::Pending => {
                let before = opened.len();
                waits += 1;
                pair.drive();
                while pair.server.connection.accept().is_ready() {}
                pair.drive();
                if !pair.client.connection.can_open() {
                    assert_eq!(opened.len(), before);
                    break;
                }
            }
        }
    }
    assert_eq!(opened.len(), 1024);
    // 128 at a time: at 50 ms a thousand watches are open in less than half a second.
    assert!(waits <= 1024 / 128 + 1, "{waits} round trips");
    // One that ends makes room for another.
    pair.client
        .connection
        .release(opened[0], StreamCode::CANCELLED);
    pair.drive();
    assert!(pair.client.connection.open(&Bytes::new()).is_pending());
    pair.server
        .connection
        .release(opened[0], StreamCode::CANCELLED);
    pair.drive();
    pair.client.open();
}

#[test]
fn send_queues_are_bounded_one_by_one_and_together() {
    let mut pair = Pair::ready();
    let first = pair.client.open();
    let data = vec![1; 1024 * 1024];
    assert_eq!(pair.client.write(first, &data), 256 * 1024);
    let mut streams = vec![first];
    while pair.client.connection.can_open() {
        let stream = pair.client.open();
        let written = pair.client.write(stream, &data);
        assert!(written >= 4 * 1024, "every stream has its floor");
        streams.push(stream);
    }
    assert!(pair.client.connection.queued() <= 8 * 1024 * 1024);
    // A chunk goes in whole or not at all.
    let mut chunk = Bytes::from(data);
    assert!(
        pair.client
            .connection
            .write_chunk(first, &mut chunk)
            .is_pending()
    );
    assert_eq!(chunk.len(), 1024 * 1024);
}

#[test]
fn a_queue_of_tiny_chunks_holds_no_slice_for_each() {
    let mut server = Scripted::ready(Role::Server);
    server.feed(&open(1, b"", b""));
    for _ in 0..1000 {
        let mut chunk = Bytes::from_static(b"x");
        let written = server.connection.write_chunk(id(1), &mut chunk);
        assert!(matches!(written, Poll::Ready(Ok(()))));
    }
    assert_eq!(server.connection.queued_slices(id(1)), 0);
    let mut chunk = Bytes::from(vec![b'x'; 1000]);
    let written = server.connection.write_chunk(id(1), &mut chunk);
    assert!(matches!(written, Poll::Ready(Ok(()))));
    assert_eq!(server.connection.queued_slices(id(1)), 1);
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

#[test]
fn slices_that_pin_blocks_are_bounded() {
    let budget = 2 * 16 * 16 * 1024;
    let config = Config::default()
        .with_max_streams(16)
        .with_max_opened(16)
        .with_receive_budget(budget);
    let mut server = Scripted::new(Role::Server, config);
    server.feed(&hello(Settings::INITIAL));
    for index in 0..16 {
        server.feed(&open(2 * index + 1, b"", &[1; 4096]));
        server.feed(&data(2 * index + 1, &[2; 4096]));
    }
    let limit = budget as usize / RECEIVE_BLOCK;
    assert_eq!(server.connection.pinned(), limit);
    let Poll::Ready(Some((stream, _))) = server.connection.accept() else {
        panic!("a stream");
    };
    let mut read = Vec::new();
    while let Poll::Ready(Ok(Some(bytes))) = server.connection.read(stream, 1000) {
        read.extend_from_slice(&bytes);
    }
    assert_eq!(read, [[1; 4096], [2; 4096]].concat());
    assert!(server.connection.pinned() < limit);
}

#[test]
fn a_flood_of_control_frames_is_slowed_then_cut_off() {
    let mut server = Scripted::ready(Role::Server);
    let pings = control(Frame::Ping(1)).repeat(5 * 1024 + 1);
    server.feed(&pings);
    assert!(!server.connection.is_reading());
    let resume = server
        .connection
        .poll_timeout()
        .expect("an end of the pause");
    assert!(resume <= server.now + Duration::from_millis(10));
    server.now = resume;
    server.connection.handle_timeout(resume);
    assert!(server.connection.is_reading());
    server.feed(&pings);
    assert!(!server.connection.is_closing());
    server.feed(&pings);
    assert_eq!(server.last_code(), CloseCode::EXCESSIVE_LOAD);
}

#[test]
fn a_full_session_may_cancel_every_stream_at_once() {
    for canceller in [Role::Client, Role::Server] {
        let mut pair = Pair::ready();
        let mut streams = Vec::new();
        while streams.len() < 1024 {
            while pair.client.connection.can_open() {
                streams.push(pair.client.open());
            }
            pair.drive();
            while pair.server.connection.accept().is_ready() {}
            pair.drive();
        }
        let end = match canceller {
            Role::Client => &mut pair.client,
            Role::Server => &mut pair.server,
        };
        for stream in &streams {
            end.connection.release(*stream, StreamCode::CANCELLED);
        }
        let start = pair.now;
        pair.drive();
        assert!(pair.now - start <= 4 * pair.latency, "nobody had to pause");
    }
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
fn empty_data_and_ignored_frames_count_as_control() {
    for frame in [data(1, b""), raw(15, 8, 0, b"")] {
        let mut server = Scripted::ready(Role::Server);
        server.feed(&open(1, b"", b""));
        server.feed(&frame.repeat(3 * 5 * 1024 + 1));
        assert_eq!(server.last_code(), CloseCode::EXCESSIVE_LOAD);
    }
}

#[test]
fn data_pays_for_the_credit_that_it_causes() {
    let config = Config::default().with_receive_budget(0);
    let mut pair = Pair::with(Config::default(), config);
    pair.drive();
    let stream = pair.client.open();
    let data = vec![3; 64 * 1024];
    for _ in 0..2_000 {
        pair.client.write(stream, &data);
        pair.drive();
        if pair.server.connection.held_streams() == 1 {
            let _ = pair.server.connection.accept();
        }
        pair.server.read(stream);
        assert!(pair.client.connection.is_reading());
    }
}

#[test]
fn data_for_refused_streams_is_bounded() {
    let config = Config::default()
        .with_max_streams(16)
        .with_max_opened(16)
        .with_receive_budget(0);
    let mut server = Scripted::new(Role::Server, config);
    server.feed(&hello(Settings::INITIAL));
    server.feed(&open(1, b"", b""));
    server.connection.go_away("bye");
    server.sent();
    for _ in 0..32 {
        server.feed(&data(9, &[0; 16 * 1024]));
    }
    assert!(!server.connection.is_closing());
    server.feed(&data(9, b"x"));
    assert_eq!(server.last_code(), CloseCode::EXCESSIVE_LOAD);
}

#[test]
fn a_silent_peer_is_pinged_and_then_given_up() {
    let mut client = Scripted::ready(Role::Client);
    let stream = match client.connection.open(&Bytes::new()) {
        Poll::Ready(Ok(stream)) => stream,
        other => panic!("{other:?}"),
    };
    client.sent();
    let mut pings = 0;
    let start = client.now;
    while !client.connection.is_closing() {
        client.now = client.connection.poll_timeout().expect("a deadline");
        client.connection.handle_timeout(client.now);
        if !client.connection.is_closing() {
            assert_eq!(client.sent(), control(Frame::Ping(pings + 2)));
            pings += 1;
        }
    }
    assert_eq!(pings, 2);
    assert_eq!(client.now - start, Duration::from_secs(45));
    assert_eq!(client.ending().0, ErrorKind::Timeout);
    assert_eq!(client.last_code(), CloseCode::TIMEOUT);
    assert!(matches!(
        client.connection.read(stream, 1),
        Poll::Ready(Err(_))
    ));
}

#[test]
fn a_peer_that_does_not_introduce_itself_is_given_up() {
    let mut client = Scripted::new(Role::Client, Config::default());
    client.sent();
    client.feed(b"ACC");
    client.now += Duration::from_secs(15);
    client.connection.handle_timeout(client.now);
    assert_eq!(client.ending().0, ErrorKind::Timeout);
}

#[test]
fn an_idle_pair_lives_on_pings() {
    let mut pair = Pair::ready();
    let stream = pair.client.open();
    pair.drive();
    pair.server.accept();
    pair.advance(Duration::from_secs(3600));
    assert!(!pair.client.connection.is_closing());
    assert!(!pair.server.connection.is_closing());
    pair.client.write(stream, b"still here");
    pair.drive();
    assert_eq!(pair.server.read(stream), b"still here");
    assert_eq!(
        pair.client.connection.status().round_trip_time,
        Some(2 * pair.latency)
    );
}

#[test]
fn a_long_reason_is_cut_at_a_character() {
    let mut client = Scripted::ready(Role::Client);
    client.connection.close(&"é".repeat(1000));
    let sent = client.sent();
    assert_eq!(sent.len(), 8 + 8 + 1024);
    assert!(std::str::from_utf8(&sent[16..]).is_ok());
}

#[test]
fn a_last_word_has_a_time_limit() {
    let mut client = Scripted::ready(Role::Client);
    client.connection.close("done");
    let mut batch = Batch::default();
    client.connection.poll_transmit(client.now, &mut batch);
    let until = client.connection.poll_timeout().expect("a limit");
    assert!(!client.connection.is_expired());
    client.connection.handle_timeout(until);
    assert!(client.connection.is_expired());
}
