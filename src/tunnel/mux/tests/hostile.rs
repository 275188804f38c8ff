//! A peer that says anything.

use std::task::Poll;

use bytes::Bytes;
use proptest::prelude::*;

use super::{
    super::{
        code::{CloseCode, StreamCode},
        config::Config,
        flow::MAX_OFFSET,
        frame::Frame,
        id::{Role, StreamId},
        settings::Settings,
    },
    control, data, fin, hello, open, raw,
    wire::Scripted,
};

/// Frames that are nearly right: what random bytes would take for ever to find.
fn frame() -> impl Strategy<Value = Vec<u8>> {
    let stream = 1u32..12;
    let code = (0u32..3).prop_map(StreamCode::new);
    let offset = prop_oneof![0u64..70_000, Just(MAX_OFFSET), Just(u64::MAX)];
    prop_oneof![
        4 => (stream.clone(), 0usize..20_000)
            .prop_map(|(stream, length)| open(stream, b"m", &vec![1; length])),
        4 => (stream.clone(), 0usize..20_000)
            .prop_map(|(stream, length)| data(stream, &vec![2; length])),
        2 => (stream.clone(), 0usize..100)
            .prop_map(|(stream, length)| fin(stream, &vec![3; length])),
        2 => (stream.clone(), offset.clone()).prop_map(|(stream, limit)| {
            control(Frame::Credit { stream: super::id(stream), limit })
        }),
        2 => (stream.clone(), code.clone(), 0u64..100).prop_map(|(stream, code, final_size)| {
            control(Frame::Reset { stream: super::id(stream), code, final_size })
        }),
        2 => (stream, code)
            .prop_map(|(stream, code)| control(Frame::Stop { stream: super::id(stream), code })),
        1 => offset.prop_map(|count| control(Frame::MaxStreams(count))),
        1 => any::<u64>().prop_map(|token| control(Frame::Ping(token))),
        1 => any::<u64>().prop_map(|token| control(Frame::Pong(token))),
        1 => (0u32..12).prop_map(|last_stream| control(Frame::GoAway {
            last_stream,
            code: CloseCode::DRAIN,
            reason: String::new(),
        })),
        1 => (0u8..16, 0u8..16, 0u32..12, proptest::collection::vec(any::<u8>(), 0..40))
            .prop_map(|(kind, flags, stream, payload)| raw(kind, flags, stream, &payload)),
        1 => proptest::collection::vec(any::<u8>(), 0..40),
    ]
}

/// An application beside a hostile peer. Holds what it accepted, and lets go of some.
struct Application {
    end: Scripted,
    streams: Vec<StreamId>,
}

impl Application {
    fn new(role: Role) -> Self {
        let mut end = Scripted::new(role, Config::default());
        end.feed(&hello(Settings::INITIAL));
        let streams = (0..2)
            .filter_map(|_| match end.connection.open(&Bytes::new()) {
                Poll::Ready(stream) => stream.ok(),
                Poll::Pending => None,
            })
            .collect();
        Self { end, streams }
    }

    fn act(&mut self, choice: u8) {
        let connection = &mut self.end.connection;
        if let Poll::Ready(Some((stream, _))) = connection.accept() {
            self.streams.push(stream);
        }
        if self.streams.is_empty() {
            return;
        }
        let index = usize::from(choice / 8) % self.streams.len();
        let stream = self.streams[index];
        match choice % 8 {
            0 => drop(connection.finish(stream)),
            1 => connection.reset(stream, StreamCode::INTERNAL),
            2 => connection.stop(stream, StreamCode::INTERNAL),
            3 => {
                connection.release(stream, StreamCode::CANCELLED);
                self.streams.swap_remove(index);
            }
            4 => drop(connection.write(stream, &[4; 10_000])),
            5 if choice == 253 => connection.go_away("enough"),
            _ => drop(connection.read(stream, 5000)),
        }
        if choice.is_multiple_of(2) {
            self.end.sent();
        }
        self.end.connection.assert_consistent();
        while self.end.connection.poll_event().is_some() {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn nearly_right_frames_break_nothing(
        frames in proptest::collection::vec((frame(), any::<u8>()), 1..60),
        server in any::<bool>(),
    ) {
        let role = if server { Role::Server } else { Role::Client };
        let mut application = Application::new(role);
        for (frame, choice) in frames {
            application.end.feed(&frame);
            application.act(choice);
        }
        // Whatever was said: everything can be let go, and nothing stays when the session is over.
        application.end.connection.close("done");
        for stream in std::mem::take(&mut application.streams) {
            application.end.connection.release(stream, StreamCode::CANCELLED);
        }
        application.end.sent();
    }

    #[test]
    fn arbitrary_bytes_break_nothing(
        bytes in proptest::collection::vec(any::<u8>(), 0..2000),
        step in 1usize..100,
    ) {
        let mut application = Application::new(Role::Server);
        for piece in bytes.chunks(step) {
            application.end.feed(piece);
            application.act(piece[0]);
        }
    }
}

#[test]
fn what_a_peer_can_make_us_keep_is_within_the_budget() {
    let config = Config::default();
    let budget = config.limits(Role::Server).effective_receive_budget();
    let mut server = Scripted::new(Role::Server, config);
    server.feed(&hello(Settings::INITIAL));
    server.sent();
    let mut sent = 0u64;
    // Fills the window of every stream that it is allowed, and takes every CREDIT for more.
    for index in 0..1024 {
        let stream = 2 * index + 1;
        server.feed(&open(stream, b"", &[5; 16 * 1024]));
        assert!(!server.connection.is_closing(), "stream {stream}");
        sent += 16 * 1024;
        assert!(matches!(server.connection.accept(), Poll::Ready(Some(_))));
        let granted = server
            .sent()
            .chunks(16)
            .filter(|frame| frame[3] == 0x20)
            .map(|frame| u64::from_be_bytes(frame[8..16].try_into().expect("eight bytes")))
            .max();
        let mut room = granted.unwrap_or(16 * 1024) - 16 * 1024;
        while room > 0 {
            let length = room.min(16 * 1024);
            server.feed(&data(stream, &vec![6; length as usize]));
            sent += length;
            room -= length;
        }
        while server.connection.poll_event().is_some() {}
    }
    assert!(sent <= budget, "{sent}");
    assert!(sent > budget / 4, "the test reaches into the pool: {sent}");
    server.feed(&data(1, b"x"));
    assert_eq!(server.last_code(), CloseCode::FLOW_CONTROL);
}
