//! Everything that a peer may not do is done.

use super::{
    super::{
        code::{CloseCode, StreamCode},
        config::{Config, MAX_METADATA},
        flow::MAX_OFFSET,
        frame::Frame,
        id::Role,
        settings::Settings,
    },
    control, data, fin, hello, id, open, raw,
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
