//! How long connections last.

use std::{sync::Arc, time::Duration};

use super::bed::{Bed, Dialling, at_once, collect, get, send};
use crate::agent::upstream::places::IDLE_LIMIT;

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_and_one_in_use_is_not() {
    let (upstream, mut server) = Bed::new(Dialling::Http2).serve(100);
    let asking = tokio::spawn({
        let upstream = Arc::clone(&upstream);
        async move { send(&upstream, get()).await }
    });
    let mut received = server.request().await;
    let mut stream = received.answer();
    let response = asking.await.expect("no panic").expect("an answer");
    tokio::time::sleep(IDLE_LIMIT * 10).await;
    assert_eq!(server.open(), 1, "a silent watch is not idle");
    stream.send_data("end".into(), true).expect("open");
    assert_eq!(collect(response).await.expect("whole"), "end");
    drop((received, stream));
    tokio::time::sleep(IDLE_LIMIT * 2).await;
    assert_eq!(server.open(), 0);
    assert_eq!(server.dialled(), 1);
}

#[tokio::test]
async fn connections_end_with_the_upstream_and_the_last_answer() {
    let (upstream, mut server) = Bed::new(Dialling::Http2).serve(100);
    let asking = tokio::spawn({
        let upstream = Arc::clone(&upstream);
        async move { send(&upstream, get()).await }
    });
    let mut received = server.request().await;
    let mut stream = received.answer();
    let response = asking.await.expect("no panic").expect("an answer");
    drop(upstream);
    stream.send_data("end".into(), true).expect("open");
    assert_eq!(collect(response).await.expect("whole"), "end");
    drop((received, stream));
    at_once(async {
        while server.open() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}
