//! A new connection in place of one that works, and doubts about one that may not.

use super::*;
use crate::tunnel::supervise::shared::MAX_DRAINING;

const LIMIT: Duration = Duration::from_secs(5);

#[tokio::test(start_paused = true)]
async fn a_renewed_connection_takes_new_streams_and_the_old_one_keeps_its_own() {
    let mut bed = Bed::new([]);
    let mut old = bed.open().await.unwrap();
    echo(&mut old, "one").await;
    let first = bed.far_end().await;
    let mut states = bed.supervisor.states();
    assert!(matches!(states.next().await, Some(TunnelState::Connected)));

    bed.supervisor.handle().renew();
    let second = bed.far_end().await;
    first.going_away().await;
    let mut new = bed.open().await.unwrap();
    echo(&mut new, "two").await;
    echo(&mut old, "three").await;
    assert_eq!(
        (first.status().live_streams, second.status().live_streams),
        (1, 1)
    );
    finish(old).await;
    first.closed().await;
    // Nobody saw a change: the tunnel was connected all the time.
    assert!(timeout(LIMIT, states.next()).await.is_err());
    echo(&mut new, "four").await;
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_fails_leaves_the_connection_as_it_is() {
    let mut bed = Bed::new([Step::Serve, Step::Refuse, Step::Silent]);
    let mut stream = bed.open().await.unwrap();
    let far = bed.far_end().await;
    for dials in 2..4 {
        bed.supervisor.handle().renew();
        sleep(Duration::from_secs(20)).await;
        assert_eq!(bed.dials.count(), dials);
        echo(&mut stream, "still").await;
        assert!(!far.is_going_away());
        bed.until_connected().await;
    }
    bed.supervisor.handle().renew();
    bed.far_end().await;
    far.going_away().await;
    echo(&mut stream, "still").await;
}

#[tokio::test(start_paused = true)]
async fn a_loss_during_a_renewal_is_a_loss() {
    let mut bed = Bed::new([Step::Serve, Step::Hang]);
    bed.open().await.unwrap();
    let far = bed.far_end().await;
    bed.supervisor.handle().renew();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(bed.dials.running(), 1);
    far.close("restart");
    bed.far_end().await;
    bed.until_connected().await;
    assert_eq!(bed.dials.running(), 0);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_renewed_where_there_is_no_connection() {
    let bed = Bed::new([]);
    bed.supervisor.handle().renew();
    bed.open().await.unwrap();
    sleep(LIMIT).await;
    assert_eq!(bed.dials.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn renewals_cut_no_stream_however_many_there_are() {
    let bed = Bed::new([]);
    let mut streams = Vec::new();
    for _ in 0..MAX_DRAINING + 3 {
        let mut stream = bed.open().await.unwrap();
        echo(&mut stream, "x").await;
        streams.push(stream);
        bed.supervisor.handle().renew();
        sleep(LIMIT).await;
    }
    assert_eq!(bed.dials.count(), MAX_DRAINING + 1);
    for stream in &mut streams {
        echo(stream, "still").await;
    }
    // Once an old one has ended there is room again.
    finish(streams.remove(0)).await;
    bed.supervisor.handle().renew();
    sleep(LIMIT).await;
    assert_eq!(bed.dials.count(), MAX_DRAINING + 2);
}

#[tokio::test(start_paused = true)]
async fn a_connection_in_doubt_that_answers_stays() {
    let mut bed = Bed::new([]);
    let mut stream = bed.open().await.unwrap();
    let start = Instant::now();
    bed.supervisor.handle().doubt(LIMIT).await;
    assert_eq!(start.elapsed(), Duration::ZERO);
    echo(&mut stream, "still").await;
    assert!(!bed.far_end().await.is_going_away());
    assert_eq!(bed.dials.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_connection_in_doubt_that_does_not_answer_is_replaced_within_the_limit() {
    let mut bed = Bed::new([Step::Freezing]);
    let mut stream = bed.open().await.unwrap();
    bed.until_connected().await;
    sleep(Duration::from_secs(1)).await;
    bed.freeze();
    let start = Instant::now();
    bed.supervisor.handle().doubt(LIMIT).await;
    let mut rest = Vec::new();
    assert!(stream.read_to_end(&mut rest).await.is_err());
    bed.far_end().await;
    bed.far_end().await;
    bed.until_connected().await;
    assert_eq!(bed.dials.count(), 2);
    // The session of before would have been given up after 45 s.
    assert!(start.elapsed() <= LIMIT + Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn doubt_ends_the_wait_for_the_next_dial() {
    let bed = Bed::new([Step::Fail, Step::Fail, Step::Refuse]);
    bed.open_with(OpenOptions::new().with_wait_limit(Duration::from_millis(1)))
        .await
        .unwrap_err();
    while bed.dials.count() < 3 {
        sleep(Duration::from_millis(100)).await;
    }
    bed.until_waiting().await;
    sleep(Duration::from_secs(2)).await;
    let start = Instant::now();
    bed.supervisor.handle().doubt(LIMIT).await;
    bed.until_connected().await;
    assert!(start.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn connecting_is_dialling_and_says_why_not() {
    let bed = Bed::new([Step::Serve]);
    bed.supervisor.connect().await.unwrap();
    assert_eq!(bed.dials.count(), 1);
    bed.supervisor.connect().await.unwrap();
    assert_eq!(bed.dials.count(), 1);

    let bed = Bed::new([Step::Refuse]);
    let error = bed.supervisor.connect().await.unwrap_err();
    assert!(error.is_unauthorized());
    assert_eq!(error.help(), Some("check the key"));
}
