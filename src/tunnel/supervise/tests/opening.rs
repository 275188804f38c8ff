//! What an opening waits for, and how it ends.

use futures_util::future::join_all;

use super::*;
use crate::tunnel::Refusal;

#[tokio::test(start_paused = true)]
async fn the_first_opening_dials_and_streams_carry_bytes() {
    let bed = Bed::new([]);
    assert_eq!(bed.dials.count(), 0);
    let mut stream = bed.open().await.unwrap();
    echo(&mut stream, "hello").await;
    let status = bed.supervisor.status();
    assert!(matches!(status.state, TunnelState::Connected));
    assert_eq!(status.peer, "far.example");
    assert_eq!(status.live_streams, 1);
    assert_eq!((status.bytes_sent, status.bytes_received), (5, 5));
    finish(stream).await;
    assert_eq!(bed.dials.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_hundred_openings_share_one_dial() {
    let bed = Bed::new([Step::ServeAfter(Duration::from_secs(1))]);
    let streams = join_all((0..100).map(|_| bed.open())).await;
    for stream in streams {
        echo(&mut stream.unwrap(), "x").await;
    }
    assert_eq!(bed.dials.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_hundred_openings_share_one_failure() {
    let bed = Bed::new([Step::Refuse]);
    for result in join_all((0..100).map(|_| bed.open())).await {
        assert!(result.unwrap_err().is_unauthorized());
    }
    assert_eq!(bed.dials.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_opening_neither_ends_the_dial_nor_opens_a_stream() {
    let bed = Bed::new([Step::ServeAfter(Duration::from_secs(2))]);
    let dropped = tokio::time::timeout(Duration::from_secs(1), bed.open()).await;
    assert!(dropped.is_err());
    assert_eq!(bed.dials.running(), 1);
    let stream = bed.open().await.unwrap();
    assert_eq!(bed.dials.count(), 1);
    assert_eq!(bed.supervisor.status().live_streams, 1);
    drop(stream);
}

#[tokio::test(start_paused = true)]
async fn an_opening_that_nobody_waits_for_still_connects() {
    let bed = Bed::new([Step::ServeAfter(Duration::from_secs(2))]);
    let _ = tokio::time::timeout(Duration::from_secs(1), bed.open()).await;
    bed.until_connected().await;
    assert_eq!(bed.supervisor.status().live_streams, 0);
}

#[tokio::test(start_paused = true)]
async fn a_refused_dial_ends_the_opening_at_once_and_says_what_next() {
    let bed = Bed::new([Step::Refuse]);
    let start = Instant::now();
    let error = bed.open().await.unwrap_err();
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
    assert_eq!(error.status(), Some(401));
    assert_eq!(error.help(), Some("check the key"));
    assert_eq!(
        error.report(),
        "there is no connection to far.example: wrong key"
    );
}

#[tokio::test(start_paused = true)]
async fn an_opening_waits_through_failures_that_pass() {
    let bed = Bed::new([Step::Fail, Step::Fail]);
    let start = Instant::now();
    bed.open().await.unwrap();
    assert_eq!(bed.dials.seconds_since(start), [0.0, 1.0, 3.0]);
}

#[tokio::test(start_paused = true)]
async fn an_opening_ends_at_its_limit_with_the_last_failure() {
    let bed = Bed::new((0..20).map(|_| Step::Fail));
    let start = Instant::now();
    let error = bed.open().await.unwrap_err();
    assert_eq!(start.elapsed(), OPEN_LIMIT);
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(error.status(), Some(404));
    assert_eq!(error.help(), Some("start the agent"));
    assert_eq!(error.tracking_id(), Some("T1"));
}

#[tokio::test(start_paused = true)]
async fn the_callers_limit_replaces_the_tunnels() {
    let bed = Bed::new([Step::Hang]);
    let start = Instant::now();
    let limit = Duration::from_millis(700);
    let options = OpenOptions::new().with_wait_limit(limit);
    let error = bed.open_with(options).await.unwrap_err();
    assert_eq!(start.elapsed(), limit);
    assert!(error.is_timeout());
    assert!(error.help().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_dial_that_never_answers_is_given_up_and_repeated() {
    let bed = Bed::new([Step::Hang]);
    let start = Instant::now();
    let options = OpenOptions::new().with_wait_limit(Duration::from_secs(100));
    bed.open_with(options).await.unwrap();
    assert_eq!(bed.dials.seconds_since(start), [0.0, 81.0]);
}

#[tokio::test(start_paused = true)]
async fn a_far_end_that_says_nothing_is_no_connection() {
    let bed = Bed::new([Step::Silent, Step::Silent]);
    let start = Instant::now();
    let error = bed.open().await.unwrap_err();
    assert_eq!(start.elapsed(), OPEN_LIMIT);
    assert!(error.is_timeout());
    assert!(
        error
            .report()
            .contains("sent no tunnel handshake within 10s")
    );
    // The second dial, a second after the first was given up, is still waiting.
    assert_eq!(bed.dials.seconds_since(start), [0.0, 11.0]);
}

#[tokio::test(start_paused = true)]
async fn an_opening_asks_for_a_dial_now_but_not_more_often_than_the_interval() {
    let bed = Bed::new([Step::Refuse, Step::Refuse, Step::Refuse]);
    let start = Instant::now();
    bed.open().await.unwrap_err();
    // A refusal waits 30 s by itself. At once is too early for another dial, ten seconds later is not.
    bed.open().await.unwrap_err();
    sleep(Duration::from_secs(10)).await;
    bed.open().await.unwrap_err();
    assert_eq!(bed.dials.seconds_since(start), [0.0, 1.0, 11.0]);
    bed.open().await.unwrap();
    assert_eq!(bed.dials.seconds_since(start), [0.0, 1.0, 11.0, 12.0]);
}

#[tokio::test(start_paused = true)]
async fn a_demand_that_a_dial_has_served_causes_no_other() {
    let bed = Bed::new([Step::Fail, Step::Refuse]);
    let start = Instant::now();
    // The second asks for a dial, which the interval holds back to 1 s; the third asks while it is held back.
    let open_after = async |milliseconds| {
        sleep(Duration::from_millis(milliseconds)).await;
        bed.open().await
    };
    let results = tokio::join!(open_after(0), open_after(500), open_after(700));
    for result in [results.0, results.1, results.2] {
        assert!(result.unwrap_err().is_unauthorized());
    }
    sleep(Duration::from_secs(29)).await;
    assert_eq!(bed.dials.seconds_since(start), [0.0, 1.0]);
}

#[tokio::test(start_paused = true)]
async fn an_opening_beyond_the_peers_limit_waits_for_a_stream_to_end() {
    let limit = 16;
    let bed = Bed::with_far_config([], mux::Config::default().with_max_streams(limit));
    let mut streams = Vec::new();
    for _ in 0..limit {
        let mut stream = bed.open().await.unwrap();
        echo(&mut stream, "x").await;
        streams.push(stream);
    }
    let error = bed.open().await.unwrap_err();
    assert!(error.is_timeout());
    assert!(error.to_string().contains("no further stream"));
    assert!(error.help().is_some());
    let (stream, ()) = tokio::join!(bed.open(), async {
        sleep(Duration::from_secs(1)).await;
        finish(streams.pop().unwrap()).await;
    });
    echo(&mut stream.unwrap(), "room again").await;
    assert_eq!(bed.dials.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_stream_from_the_serving_side_is_refused() {
    let mut bed = Bed::new([]);
    bed.open().await.unwrap();
    let far = bed.far_end().await;
    let mut stream = TunnelStream::from(far.open(Bytes::new()).await.unwrap());
    stream.write_all(b"x").await.unwrap();
    let error = stream.read_chunk().await.unwrap_err();
    assert_eq!(Refusal::of(&error), Some(Refusal::WrongDirection));
}

/// On real threads: whatever the moment in which a connection is lost, every opening ends, and soon.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openings_survive_losses_at_any_moment() {
    let mut bed = Bed::new([]);
    let mut far_ends = std::mem::replace(&mut bed.far_ends, mpsc::unbounded_channel().1);
    let breaker = tokio::spawn(async move {
        far_ends.recv().await.unwrap().go_away("rolling restart");
        far_ends.recv().await.unwrap().close("lost");
        far_ends
    });
    let openings = (0..200).map(|_| async {
        for _ in 0..5 {
            drop(bed.open().await.unwrap());
            tokio::task::yield_now().await;
        }
    });
    join_all(openings).await;
    breaker.await.unwrap();
    finish(bed.open().await.unwrap()).await;
    bed.supervisor.shutdown().await.unwrap();
    assert_eq!(bed.dials.count(), 3);
}
