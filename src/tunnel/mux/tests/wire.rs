//! One end against scripted bytes: what is on the wire, to the byte.

use std::{task::Poll, time::Instant};

use bytes::Bytes;

use super::{
    super::{
        batch::Batch,
        code::{CloseCode, StreamCode},
        config::Config,
        connection::{Connection, Ending},
        failure::StreamFailure,
        frame::Frame,
        id::Role,
        settings::Settings,
    },
    control, data, fin, hello, id, open, raw,
};
use crate::ErrorKind;

/// One end, whose peer is a test.
pub(super) struct Scripted {
    pub(super) connection: Connection,
    pub(super) now: Instant,
}

impl Scripted {
    pub(super) fn new(role: Role, config: Config) -> Self {
        let now = Instant::now();
        Self {
            connection: Connection::new(role, config, now),
            now,
        }
    }

    /// Introduced, with the introduction and the first ping read off.
    pub(super) fn ready(role: Role) -> Self {
        let mut end = Self::new(role, Config::default());
        end.feed(&hello(Settings::INITIAL));
        end.sent();
        end
    }

    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.connection
            .handle_input(self.now, Bytes::copy_from_slice(bytes));
        self.connection.assert_consistent();
    }

    pub(super) fn sent(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            let mut batch = Batch::default();
            self.connection.poll_transmit(self.now, &mut batch);
            if batch.is_empty() {
                return all;
            }
            all.extend_from_slice(&batch.take());
        }
    }

    /// How the session ended.
    pub(super) fn ending(&self) -> (ErrorKind, String, Ending) {
        let (error, ending) = self.connection.ended().expect("the session has not ended");
        (error.kind(), error.to_string(), ending)
    }

    /// The code in the GOAWAY that ends what is sent.
    pub(super) fn last_code(&mut self) -> CloseCode {
        let sent = self.sent();
        let start = (0..sent.len().saturating_sub(15))
            .rev()
            .find(|start| {
                let length =
                    u32::from_be_bytes([0, sent[*start], sent[start + 1], sent[start + 2]]);
                sent[start + 3] == 0x80
                    && sent[start + 4..start + 8] == [0; 4]
                    && *start + 8 + length as usize == sent.len()
            })
            .expect("a GOAWAY");
        let code = &sent[start + 12..start + 16];
        CloseCode(u32::from_be_bytes(code.try_into().expect("four bytes")))
    }
}

#[test]
fn an_end_introduces_itself_and_measures_the_path() {
    let mut client = Scripted::new(Role::Client, Config::default());
    #[rustfmt::skip]
    let expected = [
        b'A', b'C', b'C', b'1',
        // SETTINGS: version 1, window 16 KiB, 16 streams, frames of 64 KiB, no features
        0, 0, 24, 0x90, 0, 0, 0, 0,
        0, 0, 0, 1, 0, 0, 0x40, 0, 0, 0, 0, 16, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        // PING 1
        0, 0, 8, 0x60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,
    ];
    assert_eq!(client.sent(), expected);
    assert!(!client.connection.wants_transmit());
}

#[test]
fn opening_costs_one_frame_and_no_round_trip() {
    let mut client = Scripted::new(Role::Client, Config::default());
    client.sent();
    let Poll::Ready(Ok(stream)) = client.connection.open(&Bytes::from_static(b"api")) else {
        panic!("the first stream needs nobody's leave");
    };
    assert_eq!(
        client.connection.write(stream, b"hi").map(Result::unwrap),
        Poll::Ready(2)
    );
    #[rustfmt::skip]
    let expected = [
        // DATA with OPEN on stream 1: metadata "api", then "hi"
        0, 0, 7, 0x11, 0, 0, 0, 1, 0, 3, b'a', b'p', b'i', b'h', b'i',
        // CREDIT: 128 KiB
        0, 0, 8, 0x20, 0, 0, 0, 1, 0, 0, 0, 0, 0, 2, 0, 0,
    ];
    assert_eq!(client.sent(), expected);
}

#[test]
fn an_echo_with_all_its_frames() {
    let mut server = Scripted::ready(Role::Server);
    server.feed(&open(1, b"echo", b"abc"));
    let Poll::Ready(Some((stream, metadata))) = server.connection.accept() else {
        panic!("a stream was opened");
    };
    assert_eq!((stream.value(), &metadata[..]), (1, &b"echo"[..]));
    let credit = control(Frame::Credit {
        stream,
        limit: 128 * 1024,
    });
    assert_eq!(server.sent(), credit);
    let Poll::Ready(Ok(Some(bytes))) = server.connection.read(stream, 100) else {
        panic!("bytes were sent");
    };
    assert_eq!(&bytes[..], b"abc");
    server.feed(&fin(1, b""));
    assert!(matches!(
        server.connection.read(stream, 100),
        Poll::Ready(Ok(None))
    ));
    assert_eq!(
        server.connection.write(stream, &bytes).map(Result::unwrap),
        Poll::Ready(3)
    );
    server.connection.finish(stream).unwrap();
    assert_eq!(server.sent(), fin(1, b"abc"));
    assert_eq!(server.connection.held_streams(), 1);
    server.connection.release(stream, StreamCode::CANCELLED);
    assert_eq!(server.connection.held_streams(), 0);
    assert_eq!(server.sent(), b"", "an ended stream leaves in silence");
}

#[test]
fn a_dropped_stream_is_stopped_and_reset() {
    let mut client = Scripted::ready(Role::Client);
    let Poll::Ready(Ok(stream)) = client.connection.open(&Bytes::new()) else {
        panic!("a stream");
    };
    assert!(client.connection.write(stream, b"xy").is_ready());
    client.sent();
    client.connection.release(stream, StreamCode::CANCELLED);
    #[rustfmt::skip]
    let expected = [
        0, 0, 4, 0x40, 0, 0, 0, 1, 0, 0, 0, 0,
        0, 0, 12, 0x30, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2,
    ];
    assert_eq!(client.sent(), expected);
    // The tombstone takes late data, counts it, and goes with the peer's RESET.
    client.feed(&data(1, b"late"));
    assert_eq!(client.connection.held_streams(), 1);
    client.feed(&control(Frame::Reset {
        stream,
        code: StreamCode::CANCELLED,
        final_size: 4,
    }));
    assert_eq!(client.connection.held_streams(), 0);
    assert!(!client.connection.is_closing());
}

#[test]
fn a_stop_is_answered_by_a_reset_with_its_code() {
    let mut client = Scripted::ready(Role::Client);
    let Poll::Ready(Ok(stream)) = client.connection.open(&Bytes::new()) else {
        panic!("a stream");
    };
    client.sent();
    let code = StreamCode::new(300);
    client.feed(&control(Frame::Stop { stream, code }));
    let failure = client.connection.write(stream, b"x");
    assert!(matches!(failure, Poll::Ready(Err(StreamFailure::Stopped(seen))) if seen == code));
    let reset = Frame::Reset {
        stream,
        code,
        final_size: 0,
    };
    assert_eq!(client.sent(), control(reset));
}

#[test]
fn pings_are_answered_once_with_the_last_token() {
    let mut server = Scripted::ready(Role::Server);
    server.feed(&[control(Frame::Ping(7)), control(Frame::Ping(8))].concat());
    assert_eq!(server.sent(), control(Frame::Pong(8)));
    server.now += std::time::Duration::from_millis(20);
    server.feed(&control(Frame::Pong(1)));
    assert_eq!(
        server.connection.status().round_trip_time,
        Some(std::time::Duration::from_millis(20))
    );
}

#[test]
fn going_away_names_the_last_stream_that_is_taken() {
    let mut server = Scripted::ready(Role::Server);
    server.feed(&open(1, b"", b""));
    server.sent();
    server.connection.go_away("update");
    #[rustfmt::skip]
    let expected = [
        0, 0, 14, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0,
        b'u', b'p', b'd', b'a', b't', b'e',
    ];
    assert_eq!(server.sent(), expected);
    // A stream that crossed the GOAWAY leads nowhere; the one before it goes on.
    server.feed(&[open(3, b"", b"lost"), data(3, b"too"), data(1, b"kept")].concat());
    assert!(!server.connection.is_closing());
    assert_eq!(server.connection.held_streams(), 1);
    let Poll::Ready(Some((stream, _))) = server.connection.accept() else {
        panic!("the first stream");
    };
    server.feed(&fin(1, b""));
    server.connection.finish(stream).unwrap();
    server.sent();
    assert_eq!(server.ending().2, Ending::Clean);
}

#[test]
fn an_announced_departure_fails_no_stream() {
    let mut server = Scripted::ready(Role::Server);
    server.connection.announce_go_away("bye");
    server.connection.announce_go_away("again");
    #[rustfmt::skip]
    let expected = [
        0, 0, 11, 0x80, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xfd, 0, 0, 0, 0, b'b', b'y', b'e',
    ];
    assert_eq!(server.sent(), expected, "once");
    assert!(!server.connection.is_going_away() && !server.connection.is_closing());
    // What crossed it is taken.
    server.feed(&open(1, b"", b"kept"));
    assert!(server.connection.accept().is_ready());
    server.connection.go_away("now");
    #[rustfmt::skip]
    let expected = [
        0, 0, 11, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, b'n', b'o', b'w',
    ];
    assert!(server.sent().ends_with(&expected));
    server.feed(&open(3, b"", b"lost"));
    assert_eq!(server.connection.held_streams(), 1);
}

#[test]
fn streams_that_the_peer_did_not_take_fail_as_such() {
    let mut client = Scripted::ready(Role::Client);
    let opened: Vec<_> = (0..2)
        .map(|_| match client.connection.open(&Bytes::new()) {
            Poll::Ready(Ok(stream)) => stream,
            other => panic!("{other:?}"),
        })
        .collect();
    client.sent();
    client.feed(&control(Frame::GoAway {
        last_stream: 1,
        code: CloseCode::DRAIN,
        reason: String::new(),
    }));
    assert!(client.connection.write(opened[0], b"x").is_ready());
    assert!(matches!(
        client.connection.write(opened[1], b"x"),
        Poll::Ready(Err(StreamFailure::NotTaken))
    ));
    assert!(matches!(
        client.connection.read(opened[1], 1),
        Poll::Ready(Err(StreamFailure::Reset(StreamCode::REFUSED)))
    ));
    assert!(matches!(
        client.connection.open(&Bytes::new()),
        Poll::Ready(Err(_))
    ));
    assert!(!client.connection.is_closing());
}

#[test]
fn a_foreign_protocol_is_refused_with_a_reason() {
    let mut client = Scripted::new(Role::Client, Config::default());
    client.sent();
    client.feed(b"HTTP/1.1 400 Bad Request\r\n");
    let (kind, text, ending) = client.ending();
    assert_eq!((kind, ending), (ErrorKind::Protocol, Ending::Failed));
    assert!(
        text.starts_with("the peer does not speak this tunnel protocol: first bytes 48 54 54 50"),
        "{text}"
    );
    assert_eq!(client.last_code(), CloseCode::UNSUPPORTED);
}

#[test]
fn another_version_and_a_required_feature_are_refused() {
    let version = Settings {
        version: 2,
        ..Settings::INITIAL
    };
    let feature = Settings {
        features: 1 << 33,
        ..Settings::INITIAL
    };
    for settings in [version, feature] {
        let mut server = Scripted::new(Role::Server, Config::default());
        server.feed(&hello(settings));
        assert_eq!(server.last_code(), CloseCode::UNSUPPORTED);
    }
}

#[test]
fn an_unknown_frame_is_skipped_only_when_it_says_so() {
    let mut server = Scripted::ready(Role::Server);
    server.feed(&raw(12, 0x8, 77, b"something from the future"));
    server.feed(&control(Frame::Ping(3)));
    assert_eq!(server.sent(), control(Frame::Pong(3)));
    server.feed(&raw(12, 0, 77, b""));
    assert_eq!(server.last_code(), CloseCode::UNSUPPORTED);
}

#[test]
fn the_peers_last_word_is_the_reason() {
    let mut client = Scripted::ready(Role::Client);
    client.feed(&control(Frame::GoAway {
        last_stream: 0,
        code: CloseCode::FLOW_CONTROL,
        reason: "too much".into(),
    }));
    let (kind, text, _) = client.ending();
    assert_eq!(kind, ErrorKind::Protocol);
    assert_eq!(text, "the peer ended the session (flow control): too much");
}

#[test]
fn settings_raise_what_was_opened_before_them() {
    let mut client = Scripted::new(Role::Client, Config::default());
    let Poll::Ready(Ok(stream)) = client.connection.open(&Bytes::new()) else {
        panic!("a stream");
    };
    assert!(client.connection.write(stream, &[1; 40_000]).is_ready());
    client.sent();
    assert_eq!(client.connection.status().bytes_sent, 16 * 1024);
    client.feed(&hello(Settings {
        initial_stream_window: 32 * 1024,
        ..Settings::INITIAL
    }));
    client.sent();
    assert_eq!(client.connection.status().bytes_sent, 32 * 1024);
    assert_eq!(id(1), stream);
}
