//! How streams and sessions end: nothing is lost in silence, and nothing is left behind.

use std::task::Poll;

use bytes::Bytes;

use super::{
    super::{
        batch::Batch,
        code::StreamCode,
        connection::Event,
        failure::StreamFailure,
        id::{MAX_STREAM_COUNT, Role},
        simulation::Pair,
    },
    id,
    wire::Scripted,
};
use crate::ErrorKind;

#[test]
fn m18_a_lost_connection_is_never_an_end_of_file() {
    let mut pair = Pair::ready();
    let cut = pair.established();
    let finished = pair.established();
    pair.server.write(cut, b"half");
    pair.server.write(finished, b"whole");
    pair.server.connection.finish(finished).unwrap();
    pair.drive();
    pair.client.connection.handle_end();
    assert_eq!(pair.client.read(cut), b"half");
    assert!(matches!(
        pair.client.outcome(cut),
        Poll::Ready(Err(StreamFailure::Session(_)))
    ));
    assert_eq!(pair.client.read(finished), b"whole");
    assert!(matches!(
        pair.client.outcome(finished),
        Poll::Ready(Ok(None))
    ));
    assert!(matches!(
        pair.client.connection.write(finished, b"x"),
        Poll::Ready(Err(StreamFailure::Session(_)))
    ));
}

#[test]
fn a_reset_drops_what_was_unread_and_an_end_of_file_does_not() {
    let mut pair = Pair::ready();
    let stream = pair.established();
    pair.client.write(stream, b"truncated");
    pair.drive();
    pair.client.connection.reset(stream, StreamCode::INTERNAL);
    pair.drive();
    assert!(matches!(
        pair.server.outcome(stream),
        Poll::Ready(Err(StreamFailure::Reset(StreamCode::INTERNAL)))
    ));
    // The other direction goes on.
    pair.server.write(stream, b"answer");
    pair.drive();
    assert_eq!(pair.client.read(stream), b"answer");
}

#[test]
fn a_finished_stream_is_sent_after_its_handle_is_gone() {
    let mut pair = Pair::ready();
    let stream = pair.established();
    let data = vec![8; 200_000];
    assert_eq!(pair.client.write(stream, &data), data.len());
    pair.client.connection.finish(stream).unwrap();
    pair.client
        .connection
        .release(stream, StreamCode::CANCELLED);
    let mut received = 0;
    for _ in 0..10 {
        pair.drive();
        received += pair.server.read(stream).len();
    }
    assert_eq!(received, data.len());
    assert!(matches!(pair.server.outcome(stream), Poll::Ready(Ok(None))));
}

#[test]
fn a_stream_dropped_before_it_was_announced_is_announced_and_reset() {
    let mut pair = Pair::ready();
    let stream = pair.client.open();
    pair.client
        .connection
        .release(stream, StreamCode::CANCELLED);
    pair.drive();
    let next = pair.client.open();
    pair.drive();
    assert_eq!(pair.server.accept(), next, "the dropped one is not offered");
    pair.drive();
    assert_eq!(pair.client.connection.held_streams(), 1);
    assert_eq!((stream, next), (id(1), id(3)));
}

#[test]
fn draining_ends_both_sides_once_the_last_stream_has_ended() {
    let mut pair = Pair::ready();
    let stream = pair.established();
    pair.client.connection.go_away("enough");
    pair.drive();
    assert!(pair.server.connection.is_going_away());
    assert!(!pair.client.connection.is_closing() && !pair.server.connection.is_closing());
    pair.client.write(stream, b"last");
    pair.client.connection.finish(stream).unwrap();
    pair.drive();
    assert_eq!(pair.server.read(stream), b"last");
    pair.server.connection.finish(stream).unwrap();
    pair.drive();
    assert!(pair.client.connection.is_closing() && pair.server.connection.is_closing());
}

#[test]
fn a_stream_opened_just_before_going_away_is_served() {
    let mut pair = Pair::ready();
    let stream = pair.client.open();
    pair.client.write(stream, b"in time");
    pair.client.connection.go_away("enough");
    pair.drive();
    assert_eq!(pair.server.accept(), stream);
    assert_eq!(pair.server.read(stream), b"in time");
}

#[test]
fn who_has_announced_to_leave_opens_nothing_more() {
    for role in [Role::Client, Role::Server] {
        let mut pair = Pair::ready();
        let stream = pair.established();
        let end = match role {
            Role::Client => &mut pair.client,
            Role::Server => &mut pair.server,
        };
        while end.connection.open(&Bytes::new()).is_ready() {}
        end.collect_events();
        end.connection.announce_go_away("soon");
        assert!(end.take_event(Event::CanOpen), "the opener hears of it");
        let Poll::Ready(Err(error)) = end.connection.open(&Bytes::new()) else {
            panic!("a peer without streams could end the session before this one comes");
        };
        assert_eq!(error.kind(), ErrorKind::Closed);
        pair.drive();
        // What there is goes on, in both directions.
        pair.client.write(stream, b"question");
        pair.drive();
        assert_eq!(pair.server.read(stream), b"question");
        pair.server.write(stream, b"answer");
        pair.drive();
        assert_eq!(pair.client.read(stream), b"answer");
    }
}

#[test]
fn streams_opened_before_an_announcement_are_known_before_it() {
    let mut pair = Pair::ready();
    // More than fits into one batch.
    let mut streams = Vec::new();
    while pair.client.connection.can_open() {
        let stream = pair.client.open();
        pair.client.write(stream, &[1; 16 * 1024]);
        streams.push(stream);
    }
    pair.client.connection.announce_go_away("soon");
    pair.transmit_once(Role::Client);
    pair.deliver_once(Role::Server);
    let server = &pair.server.connection;
    assert!(server.held_streams() > 0 && server.held_streams() < streams.len());
    assert!(!server.is_going_away());
    pair.drive();
    assert!(pair.server.connection.is_going_away());
    for stream in streams {
        assert_eq!(pair.server.accept(), stream);
    }
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

#[test]
fn streams_that_nobody_accepted_go_with_the_session() {
    let mut pair = Pair::ready();
    let stream = pair.client.open();
    pair.client.write(stream, &[7; 10_000]);
    let cancelled = pair.client.open();
    pair.client
        .connection
        .release(cancelled, StreamCode::CANCELLED);
    pair.drive();
    assert_eq!(pair.server.connection.held_streams(), 2);
    pair.server.connection.handle_end();
    assert!(matches!(pair.server.connection.accept(), Poll::Ready(None)));
    assert_eq!(pair.server.connection.held_streams(), 0);
}

#[test]
fn m15_a_writer_to_a_peer_that_reads_no_more_hears_of_it_within_a_round_trip() {
    let mut pair = Pair::ready();
    let stream = pair.established();
    while pair.client.write(stream, &[0; 64 * 1024]) > 0 {
        pair.drive();
    }
    pair.client.events.clear();
    pair.server.connection.stop(stream, StreamCode::new(300));
    pair.advance(2 * pair.latency);
    assert!(pair.client.take_event(Event::Writable(stream)));
    assert!(matches!(
        pair.client.connection.write(stream, b"x"),
        Poll::Ready(Err(StreamFailure::Stopped(code))) if code == StreamCode::new(300)
    ));
    // The other direction has nothing to do with it.
    assert_eq!(pair.server.write(stream, b"go on"), 5);
    pair.drive();
    assert_eq!(pair.client.read(stream), b"go on");
}

#[test]
fn m19_the_end_of_a_session_wakes_reader_writer_watcher_opener_and_acceptor() {
    let mut pair = Pair::ready();
    let stream = pair.established();
    while pair.client.write(stream, &[0; 64 * 1024]) > 0 {
        pair.drive();
    }
    while pair.client.connection.can_open() {
        pair.client.open();
    }
    assert!(pair.client.outcome(stream).is_pending());
    assert!(pair.client.connection.aborted(stream).is_pending());
    assert!(pair.client.connection.open(&Bytes::new()).is_pending());
    assert!(pair.client.connection.accept().is_pending());
    pair.client.collect_events();
    pair.client.events.clear();
    pair.client.connection.handle_end();
    for event in [
        Event::Readable(stream),
        Event::Writable(stream),
        Event::Aborted(stream),
        Event::CanOpen,
        Event::Incoming,
        Event::Changed,
    ] {
        assert!(pair.client.take_event(event), "{event:?}");
    }
    assert!(matches!(
        pair.client.outcome(stream),
        Poll::Ready(Err(StreamFailure::Session(_)))
    ));
    assert!(matches!(
        pair.client.connection.write(stream, b"x"),
        Poll::Ready(Err(StreamFailure::Session(_)))
    ));
    assert!(pair.client.connection.aborted(stream).is_ready());
    assert!(matches!(
        pair.client.connection.open(&Bytes::new()),
        Poll::Ready(Err(_))
    ));
    assert!(matches!(pair.client.connection.accept(), Poll::Ready(None)));
}

#[test]
fn m20_streams_that_were_half_closed_are_not_kept() {
    let mut pair = Pair::ready();
    for round in 0..300 {
        let stream = pair.established();
        pair.client.write(stream, b"request");
        pair.client.connection.finish(stream).unwrap();
        pair.drive();
        assert_eq!(pair.server.read(stream), b"request");
        assert!(matches!(pair.server.outcome(stream), Poll::Ready(Ok(None))));
        pair.server.write(stream, b"answer");
        // Half of them ends in other ways.
        match round % 3 {
            0 => pair.server.connection.finish(stream).unwrap(),
            1 => pair.server.connection.reset(stream, StreamCode::INTERNAL),
            _ => pair.client.connection.stop(stream, StreamCode::INTERNAL),
        }
        pair.drive();
        for end in [&mut pair.client, &mut pair.server] {
            assert_eq!(end.connection.status().live_streams, 0);
            end.connection.release(stream, StreamCode::CANCELLED);
            assert_eq!(end.connection.held_streams(), 0);
        }
    }
}
