//! Work that moves no data is paid for: slowed first, then cut off.

use std::time::Duration;

use super::{
    super::{
        code::{CloseCode, StreamCode},
        config::Config,
        frame::Frame,
        id::Role,
        settings::Settings,
        simulation::Pair,
    },
    control, data, hello, open, raw,
    wire::Scripted,
};

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
fn m13_a_full_session_may_cancel_every_stream_at_once() {
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
fn m12_empty_data_and_ignored_frames_count_as_control() {
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
