//! What a user interface is told.

use futures_util::FutureExt;

use super::*;
use crate::tunnel::supervise::shared::STATE_BACKLOG;

fn name(state: &TunnelState) -> String {
    match state {
        TunnelState::Idle => "idle".to_owned(),
        TunnelState::Connecting { attempt } => format!("connecting {attempt}"),
        TunnelState::Connected => "connected".to_owned(),
        TunnelState::Waiting { retry_in, .. } => format!("waiting {}", retry_in.as_secs()),
        TunnelState::Draining => "draining".to_owned(),
        TunnelState::Closed => "closed".to_owned(),
    }
}

#[tokio::test(start_paused = true)]
async fn every_change_is_told_from_the_present_state_to_the_end() {
    let mut bed = Bed::new([Step::Fail, Step::Serve]);
    let states = bed.supervisor.states();
    bed.open().await.unwrap();
    bed.far_end().await.close("restart");
    bed.until_waiting().await;
    bed.until_connected().await;
    bed.supervisor.shutdown().await.unwrap();
    let names: Vec<_> = states.map(|state| name(&state)).collect().await;
    assert_eq!(
        names,
        [
            "idle",
            "connecting 1",
            "waiting 1",
            "connecting 2",
            "connected",
            "waiting 2",
            "connecting 1",
            "connected",
            "draining",
            "closed",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_starts_with_the_present_state() {
    let bed = Bed::new([]);
    bed.open().await.unwrap();
    let mut states = bed.supervisor.states();
    assert_eq!(name(&states.next().await.unwrap()), "connected");
    assert!(states.next().now_or_never().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_lags_misses_the_oldest_and_gets_the_latest() {
    let bed = Bed::new((0..STATE_BACKLOG).map(|_| Step::Fail));
    let states = bed.supervisor.states();
    let _ = bed.open().await;
    bed.until_connected().await;
    bed.supervisor.shutdown().await.unwrap();
    let names: Vec<_> = states.map(|state| name(&state)).collect().await;
    // The state of the subscription, then what the backlog kept.
    assert_eq!(names.len(), 1 + STATE_BACKLOG);
    assert_eq!(names[0], "idle");
    let end = &names[names.len() - 3..];
    assert_eq!(end, ["connected", "draining", "closed"]);
}

#[tokio::test(start_paused = true)]
async fn a_subscription_to_a_closed_tunnel_ends_at_once() {
    let bed = Bed::new([]);
    bed.supervisor.shutdown().await.unwrap();
    let names: Vec<_> = bed
        .supervisor
        .states()
        .map(|state| name(&state))
        .collect()
        .await;
    assert_eq!(names, ["closed"]);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_tunnel_ends_its_subscriptions() {
    let bed = Bed::new([]);
    bed.open().await.unwrap();
    let states = bed.supervisor.states();
    drop(bed);
    let names: Vec<_> = states.map(|state| name(&state)).collect().await;
    assert_eq!(names, ["connected", "closed"]);
}
