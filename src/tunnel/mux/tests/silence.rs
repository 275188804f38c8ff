//! Peers that say nothing.

use std::{task::Poll, time::Duration};

use bytes::Bytes;

use super::{
    super::{code::CloseCode, config::Config, frame::Frame, id::Role, simulation::Pair},
    control,
    wire::Scripted,
};
use crate::ErrorKind;

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
