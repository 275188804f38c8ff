//! Which connection a request goes out on, and how many there are.

use std::{collections::HashMap, sync::Arc, time::Duration};

use http_body_util::BodyExt;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{task::JoinSet, time::Instant};

use super::bed::{Bed, Command, Dialling, at_once, collect, get, reset, send};
use crate::{
    ErrorKind,
    agent::upstream::{
        places::MAX_STREAMS,
        pool::{MAX_OPENINGS, OPENING_PATIENCE, PLACE_LIMIT, SETTINGS_LIMIT},
    },
};

const WATCHES: usize = 1_000;

#[tokio::test]
async fn a_thousand_watches_stay_open_and_no_connection_is_full() {
    let (upstream, mut server) = Bed::new(Dialling::Http2).serve(100);
    let mut opening = JoinSet::new();
    for _ in 0..WATCHES {
        let upstream = Arc::clone(&upstream);
        opening.spawn(async move { send(&upstream, get()).await });
    }
    let mut per_connection: HashMap<usize, usize> = HashMap::new();
    let mut streams = Vec::new();
    for _ in 0..WATCHES {
        let mut received = server.request().await;
        *per_connection.entry(received.connection).or_default() += 1;
        let stream = received.answer();
        streams.push((received, stream));
    }
    let mut watches = Vec::new();
    while let Some(response) = opening.join_next().await {
        watches.push(response.expect("no panic").expect("an answer").into_body());
    }
    assert_eq!(watches.len(), WATCHES);
    let fullest = per_connection.values().max().expect("some");
    assert!(*fullest <= MAX_STREAMS, "{per_connection:?}");
    let needed = WATCHES.div_ceil(MAX_STREAMS);
    assert!(
        (needed..=needed + MAX_OPENINGS).contains(&server.dialled()),
        "{} connections",
        server.dialled()
    );

    // All of them are alive, and their end reaches the server one by one.
    for (_, stream) in &mut streams {
        stream.send_data("event".into(), false).expect("open");
    }
    for watch in &mut watches {
        let frame = at_once(watch.frame()).await.expect("more").expect("whole");
        assert_eq!(frame.data_ref().expect("data"), "event");
    }
    drop(watches);
    for (_, stream) in &mut streams {
        assert_eq!(reset(stream).await, h2::Reason::CANCEL);
    }
}

#[tokio::test]
async fn a_small_limit_of_the_server_is_kept() {
    const ALLOWED: usize = 3;
    let (upstream, mut server) = Bed::new(Dialling::Http2).serve(ALLOWED as u32);
    let mut asking = JoinSet::new();
    for _ in 0..20 {
        let upstream = Arc::clone(&upstream);
        asking.spawn(async move { collect(send(&upstream, get()).await?).await });
    }
    // None is answered before all have arrived.
    let mut received = Vec::new();
    while received.len() < 20 {
        received.push(server.request().await);
    }
    assert!(server.dialled() >= 20_usize.div_ceil(ALLOWED));
    for received in received {
        received.echo().await;
    }
    while let Some(answer) = asking.join_next().await {
        answer.expect("no panic").expect("no request was refused");
    }
}

#[tokio::test]
async fn a_burst_shares_one_connection_and_the_next_one_reuses_it() {
    let (upstream, mut server) = Bed::new(Dialling::Http2).serve(100);
    for _ in 0..2 {
        let mut asking = JoinSet::new();
        for _ in 0..MAX_STREAMS {
            let upstream = Arc::clone(&upstream);
            asking.spawn(async move { collect(send(&upstream, get()).await?).await });
        }
        for _ in 0..MAX_STREAMS {
            tokio::spawn(server.request().await.echo());
        }
        while let Some(answer) = asking.join_next().await {
            answer.expect("no panic").expect("an answer");
        }
        assert_eq!(server.dialled(), 1);
    }
}

#[tokio::test]
async fn a_server_without_http2_is_spoken_to_in_http1() {
    let mut bed = Bed::new(Dialling::Http1);
    let upstream = Arc::clone(&bed.upstream);
    let serving = tokio::spawn(async move {
        loop {
            let io = TokioIo::new(bed.connection().await);
            tokio::spawn(async move {
                let service = service_fn(|_| async {
                    Ok::<_, std::convert::Infallible>(http::Response::new("hello".to_owned()))
                });
                let _ = http1::Builder::new().serve_connection(io, service).await;
            });
        }
    });
    let mut asking = JoinSet::new();
    for _ in 0..50 {
        let upstream = Arc::clone(&upstream);
        asking.spawn(async move { collect(send(&upstream, get()).await?).await });
    }
    while let Some(answer) = asking.join_next().await {
        assert_eq!(answer.expect("no panic").expect("an answer"), "hello");
    }
    serving.abort();
}

#[tokio::test]
async fn a_failed_dial_fails_everybody_who_waited_for_it_and_is_not_repeated() {
    let bed = Bed::new(Dialling::Fails);
    let mut asking = JoinSet::new();
    for _ in 0..10 {
        let upstream = Arc::clone(&bed.upstream);
        asking.spawn(async move { send(&upstream, get()).await.map(|_| ()) });
    }
    while let Some(answer) = asking.join_next().await {
        let error = answer.expect("no panic").expect_err("no way");
        assert_eq!(error.kind(), ErrorKind::Network);
        assert_eq!(error.report(), "can not connect to api:6443: no route");
        assert_eq!(error.help(), Some("check the network"));
    }
    assert_eq!(bed.dialled(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_dial_that_hangs_holds_nobody_for_long() {
    let bed = Bed::new(Dialling::Hangs);
    let dialling = Arc::clone(&bed.dialling);
    let (upstream, server) = bed.serve(100);
    let asking = tokio::spawn(async move { send(&upstream, get()).await.map(|_| ()) });
    tokio::time::sleep(OPENING_PATIENCE / 2).await;
    *dialling.lock().expect("no panic") = Dialling::Http2;
    server.echo();
    let start = Instant::now();
    asking.await.expect("no panic").expect("an answer");
    assert!(start.elapsed() <= OPENING_PATIENCE);
}

#[tokio::test(start_paused = true)]
async fn dials_that_all_hang_are_few_and_given_up() {
    let bed = Bed::new(Dialling::Hangs);
    let start = Instant::now();
    let mut asking = JoinSet::new();
    for _ in 0..100 {
        let upstream = Arc::clone(&bed.upstream);
        asking.spawn(async move { upstream.send_request(get()).await.map(|_| ()) });
    }
    while let Some(answer) = asking.join_next().await {
        let error = answer.expect("no panic").expect_err("no way");
        assert_eq!(error.kind(), ErrorKind::LimitReached);
    }
    assert!(start.elapsed() < PLACE_LIMIT + Duration::from_secs(1));
    assert_eq!(bed.dialled(), MAX_OPENINGS);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_allows_no_request_is_given_up() {
    let (upstream, server) = Bed::new(Dialling::Http2).serve(0);
    let start = Instant::now();
    let error = upstream
        .send_request(get())
        .await
        .map(|_| ())
        .expect_err("no way");
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(start.elapsed() <= SETTINGS_LIMIT + Duration::from_secs(1));
    assert!((1..=MAX_OPENINGS).contains(&server.dialled()));
}

#[tokio::test]
async fn two_upstreams_share_nothing() {
    let (first, first_server) = Bed::new(Dialling::Http2).serve(100);
    let (second, mut second_server) = Bed::new(Dialling::Http2).serve(100);
    first_server.echo();
    collect(send(&first, get()).await.expect("an answer"))
        .await
        .expect("whole");
    assert_eq!(second_server.dialled(), 0);
    let asking = tokio::spawn(async move { send(&second, get()).await.map(|_| ()) });
    second_server.request().await.echo().await;
    asking.await.expect("no panic").expect("an answer");
    assert_eq!(second_server.dialled(), 1);
    second_server.command(Command::Die);
    collect(send(&first, get()).await.expect("an answer"))
        .await
        .expect("whole");
}
