//! Shutdown, dropping, and what the states tell.

use futures_util::StreamExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::Instant,
};

use super::{
    super::{shared::DRAIN_LIMIT, *},
    bed::{Bed, unreachable},
};
use crate::tunnel::TunnelState;

fn name(state: &TunnelState) -> &'static str {
    match state {
        TunnelState::Idle => "idle",
        TunnelState::Connecting { attempt: 1 } => "connecting",
        TunnelState::Connecting { .. } => "connecting again",
        TunnelState::Connected => "connected",
        TunnelState::Waiting { .. } => "waiting",
        TunnelState::Draining => "draining",
        TunnelState::Closed => "closed",
    }
}

#[tokio::test(start_paused = true)]
async fn every_change_of_state_is_told() {
    let mut bed = Bed::new();
    let states = bed.tunnel.states();
    bed.fail_next([unreachable()]);
    let (stream, _far) = bed.stream().await;
    // A second stream changes nothing.
    let (another, _other_far) = bed.stream().await;
    drop((stream, another));
    bed.fail_next([unreachable()]);
    let (stream, _far) = bed.stream().await;
    drop(stream);
    bed.tunnel.shutdown().await.unwrap();
    let states: Vec<_> = states.map(|state| name(&state)).collect().await;
    assert_eq!(
        states,
        [
            "idle",
            "connecting",
            "waiting",
            "connecting again",
            "connected",
            "waiting",
            "connecting again",
            "connected",
            "draining",
            "closed"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_for_the_live_streams() {
    let mut bed = Bed::new();
    let (mut stream, mut far) = bed.stream().await;
    let shutdown = tokio::spawn({
        let tunnel = Arc::clone(&bed.tunnel);
        async move { tunnel.shutdown().await }
    });
    tokio::task::yield_now().await;
    assert!(matches!(bed.tunnel.status().state, TunnelState::Draining));
    let error = bed.open().await.unwrap().unwrap_err();
    assert!(error.is_closed());
    // The live one is as good as ever.
    far.write_all(b"still here").await.unwrap();
    assert_eq!(stream.read_chunk().await.unwrap().unwrap(), "still here");
    assert!(!shutdown.is_finished());
    drop(stream);
    shutdown.await.unwrap().unwrap();
    bed.tunnel.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_outlasts_a_shutdown_is_cut() {
    let mut bed = Bed::new();
    let (stream, mut far) = bed.stream().await;
    let (mut reader, mut writer) = tokio::io::split(stream);
    let reading = tokio::spawn(async move { reader.read_u8().await.unwrap_err() });
    let start = Instant::now();
    let error = bed.tunnel.shutdown().await.unwrap_err();
    assert_eq!(start.elapsed(), DRAIN_LIMIT);
    assert!(error.is_timeout());
    assert!(error.to_string().starts_with("1 streams"));
    // Whoever waited is told, whoever comes later too.
    assert_eq!(
        reading.await.unwrap().kind(),
        std::io::ErrorKind::ConnectionReset
    );
    assert!(writer.write_all(b"x").await.is_err());
    drop(writer);
    assert_eq!(far.read(&mut [0; 8]).await.unwrap(), 0);
    // The same end for all.
    assert!(bed.tunnel.shutdown().await.unwrap_err().is_timeout());
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_the_openings_that_wait() {
    let mut bed = Bed::new();
    let opening = bed.open();
    let far = bed.asked().await;
    bed.tunnel.shutdown().await.unwrap();
    assert!(opening.await.unwrap().unwrap_err().is_closed());
    drop(far);
    assert_eq!(bed.tunnel.status().live_streams, 0);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_whose_caller_leaves_goes_on() {
    let mut bed = Bed::new();
    let (stream, _far) = bed.stream().await;
    let tunnel = Arc::clone(&bed.tunnel);
    let caller = tokio::spawn(async move { tunnel.shutdown().await });
    tokio::task::yield_now().await;
    caller.abort();
    tokio::time::sleep(DRAIN_LIMIT * 2).await;
    assert!(matches!(bed.tunnel.status().state, TunnelState::Closed));
    drop(stream);
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_that_was_never_used_closes_at_once() {
    let bed = Bed::new();
    bed.tunnel.shutdown().await.unwrap();
    assert!(matches!(bed.tunnel.status().state, TunnelState::Closed));
    assert_eq!(bed.dials(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_tunnel_leaves_its_streams_alone() {
    let mut bed = Bed::new();
    let (mut stream, mut far) = bed.stream().await;
    let mut states = bed.tunnel.states();
    drop(bed);
    far.write_all(b"on").await.unwrap();
    assert_eq!(stream.read_chunk().await.unwrap().unwrap(), "on");
    stream.write_all(b"and on").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut rest = String::new();
    far.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "and on");
    let mut last = None;
    while let Some(state) = states.next().await {
        last = Some(name(&state));
    }
    assert_eq!(last, Some("closed"));
}
