//! How a tunnel ends.

use tokio::task::yield_now;

use super::*;
use crate::tunnel::supervise::worker::DRAIN_LIMIT;

#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_for_live_streams_and_takes_no_new_ones() {
    let bed = Bed::new([]);
    let mut stream = bed.open().await.unwrap();
    let start = Instant::now();
    let (shutdown, ()) = tokio::join!(bed.supervisor.shutdown(), async {
        bed.until(|state| matches!(state, TunnelState::Draining))
            .await;
        let error = bed.open().await.unwrap_err();
        assert!(error.is_closed());
        assert!(error.help().is_some());
        sleep(Duration::from_secs(3)).await;
        echo(&mut stream, "still here").await;
        finish(stream).await;
    });
    shutdown.unwrap();
    assert_eq!(start.elapsed(), Duration::from_secs(3));
    assert!(matches!(bed.supervisor.status().state, TunnelState::Closed));
    assert!(bed.open().await.unwrap_err().is_closed());
    assert_eq!(bed.dials.count(), 1);
    bed.supervisor.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_cuts_what_outlives_its_limit_and_says_so() {
    let bed = Bed::new([]);
    let mut stream = bed.open().await.unwrap();
    echo(&mut stream, "hello").await;
    let start = Instant::now();
    let error = bed.supervisor.shutdown().await.unwrap_err();
    assert_eq!(start.elapsed(), DRAIN_LIMIT);
    assert!(error.is_timeout());
    assert!(error.to_string().starts_with("1 stream"));
    let mut rest = Vec::new();
    assert!(stream.read_to_end(&mut rest).await.is_err());
    assert_eq!(bed.supervisor.status().live_streams, 0);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_goes_on_when_nobody_waits_for_it() {
    let bed = Bed::new([]);
    let stream = bed.open().await.unwrap();
    let limit = Duration::from_secs(1);
    assert!(
        tokio::time::timeout(limit, bed.supervisor.shutdown())
            .await
            .is_err()
    );
    finish(stream).await;
    bed.until(|state| matches!(state, TunnelState::Closed))
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_a_dial_and_those_who_wait_for_it() {
    let bed = Bed::new([Step::Hang]);
    let start = Instant::now();
    let (opened, shutdown) = tokio::join!(bed.open(), async {
        bed.until(|state| matches!(state, TunnelState::Connecting { .. }))
            .await;
        bed.supervisor.shutdown().await
    });
    assert!(opened.unwrap_err().is_closed());
    shutdown.unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(bed.dials.running(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_dial_that_ends_during_a_shutdown_does_not_undo_it() {
    let bed = Bed::new([]);
    let stream = bed.open().await.unwrap();
    bed.supervisor.shared.begin_shutdown();
    // What the worker may still say when it runs on another thread.
    bed.supervisor
        .shared
        .publish(Phase::Connecting { attempt: 2 });
    assert!(matches!(
        bed.supervisor.status().state,
        TunnelState::Draining
    ));
    finish(stream).await;
    bed.supervisor.shutdown().await.unwrap();
    bed.supervisor
        .shared
        .publish(Phase::Connecting { attempt: 3 });
    assert!(matches!(bed.supervisor.status().state, TunnelState::Closed));
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_a_handshake() {
    let bed = Bed::new([Step::Silent]);
    let start = Instant::now();
    let options = OpenOptions::new().with_wait_limit(Duration::from_secs(1));
    bed.open_with(options).await.unwrap_err();
    bed.supervisor.shutdown().await.unwrap();
    assert_eq!(start.elapsed(), Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_that_never_dialled_shuts_down_without_dialling() {
    let bed = Bed::new([]);
    bed.supervisor.shutdown().await.unwrap();
    assert!(bed.open().await.unwrap_err().is_closed());
    assert_eq!(bed.dials.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_tunnel_ends_its_task_and_leaves_live_streams_alone() {
    let mut bed = Bed::new([]);
    let mut stream = bed.open().await.unwrap();
    let far = bed.far_end().await;
    let dials = Arc::clone(&bed.dials);
    drop(bed);
    echo(&mut stream, "still here").await;
    finish(stream).await;
    far.closed().await;
    // The script holds the other reference, and the task holds the script.
    assert_eq!(Arc::strong_count(&dials), 1);
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_dropped_while_it_dials_leaves_nothing_behind() {
    let bed = Bed::new([Step::Hang]);
    let _ = tokio::time::timeout(Duration::from_secs(1), bed.open()).await;
    let dials = Arc::clone(&bed.dials);
    assert_eq!(dials.running(), 1);
    drop(bed);
    yield_now().await;
    assert_eq!(dials.running(), 0);
    assert_eq!(Arc::strong_count(&dials), 1);
}

#[test]
fn a_tunnel_outlives_the_runtime_that_it_was_first_used_on() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().start_paused(true).build().unwrap()
    };
    let bed = Bed::new([]);
    runtime().block_on(async {
        bed.open().await.unwrap();
    });
    runtime().block_on(async {
        echo(&mut bed.open().await.unwrap(), "again").await;
        assert_eq!(bed.dials.count(), 2);
        bed.supervisor.shutdown().await.unwrap();
    });
}
