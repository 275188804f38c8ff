//! What a lost connection sets off.

use super::*;
use crate::tunnel::supervise::shared::MAX_DRAINING;

#[tokio::test(start_paused = true)]
async fn a_lost_connection_comes_back_by_itself_without_streams() {
    let mut bed = Bed::new([]);
    finish(bed.open().await.unwrap()).await;
    bed.far_end().await.close("restart");
    bed.far_end().await;
    bed.until_connected().await;
    assert_eq!(bed.dials.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_ends_its_streams_in_an_error_and_comes_back() {
    let mut bed = Bed::new([]);
    let mut stream = bed.open().await.unwrap();
    echo(&mut stream, "before").await;
    bed.far_end().await.close("restart");
    let mut rest = Vec::new();
    assert!(stream.read_to_end(&mut rest).await.is_err());
    let mut stream = bed.open().await.unwrap();
    echo(&mut stream, "after").await;
    // What the lost connection carried still counts.
    let status = bed.supervisor.status();
    assert_eq!((status.bytes_sent, status.bytes_received), (11, 11));
    assert_eq!(status.live_streams, 1);
}

#[tokio::test(start_paused = true)]
async fn the_waits_after_a_loss_follow_the_table() {
    let mut bed = Bed::new([Step::Serve].into_iter().chain((0..6).map(|_| Step::Fail)));
    bed.open().await.unwrap();
    sleep(Duration::from_secs(60)).await;
    let lost = Instant::now();
    bed.far_end().await.close("down");
    bed.far_end().await;
    let starts = bed.dials.seconds_since(lost - Duration::from_secs(60));
    assert_eq!(starts, [0.0, 60.0, 61.0, 63.0, 68.0, 78.0, 108.0, 138.0]);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_lost_at_once_is_not_dialled_in_a_tight_loop() {
    let mut bed = Bed::new([]);
    let start = Instant::now();
    bed.open().await.unwrap();
    for _ in 0..5 {
        bed.until_connected().await;
        bed.far_end().await.close("flapping");
        bed.until_waiting().await;
    }
    bed.until_connected().await;
    assert_eq!(
        bed.dials.seconds_since(start),
        [0.0, 0.0, 1.0, 3.0, 8.0, 18.0]
    );
}

#[tokio::test(start_paused = true)]
async fn an_opening_after_a_loss_does_not_wait_for_the_table() {
    let mut bed = Bed::new([Step::Serve, Step::Refuse]);
    bed.open().await.unwrap();
    sleep(Duration::from_secs(60)).await;
    bed.far_end().await.close("down");
    bed.until_waiting().await;
    // The dial right after the loss is refused, and the next would come in 30 s.
    sleep(Duration::from_secs(5)).await;
    let start = Instant::now();
    bed.open().await.unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_far_end_that_goes_away_keeps_its_streams_while_new_ones_go_elsewhere() {
    let mut bed = Bed::new([]);
    let mut old = bed.open().await.unwrap();
    echo(&mut old, "one").await;
    let far = bed.far_end().await;
    far.go_away("rolling restart");
    bed.far_end().await;
    bed.until_connected().await;
    let mut new = bed.open().await.unwrap();
    echo(&mut new, "two").await;
    echo(&mut old, "three").await;
    assert_eq!(bed.dials.count(), 2);
    assert_eq!(bed.supervisor.status().live_streams, 2);
    finish(old).await;
    far.closed().await;
    echo(&mut new, "four").await;
    let status = bed.supervisor.status();
    assert_eq!(status.live_streams, 1);
    assert_eq!((status.bytes_sent, status.bytes_received), (15, 15));
}

#[tokio::test(start_paused = true)]
async fn only_so_many_old_connections_are_kept() {
    let mut bed = Bed::new([]);
    let mut streams = Vec::new();
    for _ in 0..MAX_DRAINING + 2 {
        let mut stream = bed.open().await.unwrap();
        echo(&mut stream, "x").await;
        streams.push(stream);
        bed.until_connected().await;
        bed.far_end().await.go_away("again");
        bed.until_waiting().await;
        bed.until_connected().await;
    }
    // One connection for new streams, and the limit of old ones beside it: the two oldest had to go.
    for stream in &mut streams[..2] {
        let mut rest = Vec::new();
        assert!(stream.read_to_end(&mut rest).await.is_err());
    }
    for stream in &mut streams[2..] {
        echo(stream, "still").await;
    }
    assert_eq!(bed.supervisor.status().live_streams, MAX_DRAINING);
}
