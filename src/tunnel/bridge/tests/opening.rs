//! What an opening sends, what it makes of the answer, and what it does when there is none.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, advance},
};

use super::{
    super::*,
    bed::{ACCEPTED, Bed, forbidden, read, unreachable},
};
use crate::tunnel::{Refusal, TunnelState};

async fn error_after(reply: &[u8]) -> Error {
    let mut bed = Bed::new();
    let opening = bed.open();
    let mut far = bed.asked().await;
    far.write_all(reply).await.unwrap();
    far.shutdown().await.unwrap();
    let error = opening.await.unwrap().unwrap_err();
    // It closes in good order, and has sent nothing but the question.
    let mut rest = Vec::new();
    far.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"");
    // The listener is there: that is no loss, and it is not asked again.
    assert!(matches!(bed.tunnel.status().state, TunnelState::Connected));
    assert_eq!(bed.dials(), 1);
    error
}

#[tokio::test(start_paused = true)]
async fn an_accepted_stream_byte_by_byte() {
    let mut bed = Bed::new();
    let opening = bed.open();
    let mut far = bed.arrival().await;
    assert_eq!(read(&mut far, 7).await, b"\x01\x00\x00\x03k8s");
    for byte in b"\x01\x00\x00" {
        far.write_all(&[*byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut stream = opening.await.unwrap().unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut request = String::new();
    far.read_to_string(&mut request).await.unwrap();
    assert_eq!(request, "GET / HTTP/1.1\r\n\r\n");
    // The other direction goes on.
    far.write_all(b"HTTP/1.1 200 OK\r\n").await.unwrap();
    assert_eq!(
        stream.read_chunk().await.unwrap().unwrap(),
        "HTTP/1.1 200 OK\r\n"
    );
    far.shutdown().await.unwrap();
    assert!(stream.read_chunk().await.unwrap().is_none());
    let status = bed.tunnel.status();
    assert_eq!((status.bytes_sent, status.bytes_received), (18, 17));
    assert_eq!(status.live_streams, 1);
    drop(stream);
    assert_eq!(bed.tunnel.status().live_streams, 0);
    assert!(status.round_trip_time.is_some());
}

#[tokio::test(start_paused = true)]
async fn what_a_target_says_first_is_read_first() {
    let mut bed = Bed::new();
    let opening = bed.open();
    let mut far = bed.asked().await;
    far.write_all(b"\x01\x00\x00SSH-2.0-x\r\n").await.unwrap();
    let mut stream = opening.await.unwrap().unwrap();
    far.write_all(b"more").await.unwrap();
    let mut first = [0; 15];
    stream.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"SSH-2.0-x\r\nmore");
}

#[tokio::test(start_paused = true)]
async fn an_unknown_port_is_said_with_its_name() {
    let error = error_after(b"").await;
    assert_eq!(error.kind(), ErrorKind::Refused);
    // As every tunnel says it.
    assert_eq!(Refusal::of(&error), Some(Refusal::UnknownTarget));
    assert_eq!(
        error.to_string(),
        "the bridge listener at relay.example/hc has no port named k8s"
    );
    assert!(error.help().is_some());
    assert!(!error.is_retryable());
}

#[tokio::test(start_paused = true)]
async fn every_refusal_has_its_own_text() {
    for (reply, kind, part) in [
        (&b"\x00\x00\x00"[..], ErrorKind::Refused, "version 1.0"),
        (b"\x00\x00\x01", ErrorKind::Refused, "is for datagrams"),
        (
            b"\x00\x00\xff",
            ErrorKind::Protocol,
            "does not speak the bridge protocol",
        ),
        (
            b"\x01\x00\x01",
            ErrorKind::Protocol,
            "does not speak the bridge protocol",
        ),
        (b"\x01\x00\x00\x00", ErrorKind::Refused, "too old"),
        (
            b"\x01\x00",
            ErrorKind::Protocol,
            "does not speak the bridge protocol",
        ),
        (b"ACC1\x00", ErrorKind::Protocol, "an agent of this project"),
        (
            b"HTTP/1.1 400",
            ErrorKind::Protocol,
            "does not speak the bridge protocol",
        ),
    ] {
        let error = error_after(reply).await;
        assert_eq!(error.kind(), kind, "{reply:?}");
        assert_eq!(Refusal::of(&error), None);
        assert!(error.to_string().contains(part), "{error}");
        assert!(error.help().is_some());
        assert!(!error.is_retryable());
    }
}

#[tokio::test(start_paused = true)]
async fn a_target_is_its_own_port_unless_it_is_mapped() {
    let ssh = Target::new("ssh").unwrap();
    let web = Target::new("web").unwrap();
    let port = BridgePort::new("8080").unwrap();
    let mut bed = Bed::with(|tunnel| tunnel.with_port(web.clone(), port));
    for (target, hello) in [
        (Target::api_server(), &b"\x01\x00\x00\x03k8s"[..]),
        (ssh, b"\x01\x00\x00\x03ssh"),
        (web, b"\x01\x00\x00\x048080"),
    ] {
        let opening = bed.open_to(target, OpenOptions::new());
        let mut far = bed.arrival().await;
        assert_eq!(read(&mut far, hello.len()).await, hello);
        far.write_all(ACCEPTED).await.unwrap();
        opening.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn silence_is_a_time_out_that_says_whose() {
    let mut bed = Bed::new();
    let start = Instant::now();
    let opening = bed.open();
    // Held, and never answered.
    let _far = bed.asked().await;
    let error = opening.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(
        error.report().contains("did not answer"),
        "{}",
        error.report()
    );
    assert_eq!(start.elapsed(), OPEN_LIMIT);
    let TunnelState::Waiting { reason, .. } = bed.tunnel.status().state else {
        panic!("{:?}", bed.tunnel.status().state);
    };
    assert!(reason.is_timeout());
}

#[tokio::test(start_paused = true)]
async fn failures_that_pass_are_waited_for() {
    let mut bed = Bed::new();
    bed.fail_next([unreachable(), unreachable()]);
    let opening = bed.open();
    let _far = bed.accept().await;
    assert!(opening.await.unwrap().is_ok());
    assert_eq!(bed.dials(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_wrong_key_is_said_at_once() {
    let bed = Bed::new();
    bed.fail_next([forbidden()]);
    let start = Instant::now();
    let error = bed.open().await.unwrap().unwrap_err();
    assert!(error.is_unauthorized());
    assert_eq!(error.help(), Some("get another"));
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn openings_without_a_way_share_their_dials() {
    let bed = Bed::new();
    bed.block(Some(unreachable()));
    let openings = join_all((0..100).map(|_| bed.open())).await;
    for opening in openings {
        let error = opening.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Network);
        assert!(error.report().contains("no way to the relay"));
    }
    // The first burst, and then one after 1, 2 and 5 seconds.
    assert!(bed.dials() <= DIAL_LIMIT + 4, "{}", bed.dials());
    assert!(bed.dials() > 2, "{}", bed.dials());
}

#[tokio::test(start_paused = true)]
async fn an_opening_that_is_dropped_lets_the_others_dial() {
    let mut bed = Bed::new();
    bed.fail_next([unreachable()]);
    let first = bed.open();
    // It fails, waits, and dials again, for all.
    let held = bed.asked().await;
    let second = bed.open();
    tokio::task::yield_now().await;
    assert_eq!(bed.dials(), 2);
    first.abort();
    drop(held);
    let _far = bed.accept().await;
    assert!(second.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn no_more_are_dialled_at_once_than_is_allowed() {
    let mut bed = Bed::with(|tunnel| tunnel.with_dial_limit(3));
    let openings: Vec<_> = (0..9).map(|_| bed.open()).collect();
    let mut streams = Vec::new();
    for round in 1..=3 {
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(bed.asked().await);
        }
        advance(Duration::from_millis(10)).await;
        assert_eq!(bed.dials(), round * 3);
        for mut far in held {
            far.write_all(ACCEPTED).await.unwrap();
            streams.push(far);
        }
    }
    for opening in openings {
        assert!(opening.await.unwrap().is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn a_short_wait_limit_says_the_last_reason() {
    let bed = Bed::new();
    bed.block(Some(unreachable()));
    let options = OpenOptions::new().with_wait_limit(Duration::from_millis(300));
    let opening = bed.open_to(Target::api_server(), options);
    let error = opening.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Network);
}
