//! Asking a peer for a sign of life.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, duplex, split},
    time::{Instant, sleep, timeout},
};

use super::{
    super::{Config, Role, start},
    async_io::side,
};

#[tokio::test(start_paused = true)]
async fn a_peer_that_is_there_answers_at_once() {
    let (near, far) = duplex(1024);
    let (near, _far) = (side(near, Role::Client), side(far, Role::Server));
    near.session.ready().await.unwrap();
    // Long after the ping of the beginning.
    sleep(Duration::from_secs(7)).await;
    let asked = Instant::now();
    near.session.probe().await.unwrap();
    assert_eq!(asked.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_is_gone_never_does_and_the_session_goes_on_meanwhile() {
    let (near, far) = duplex(64 * 1024);
    let near = side(near, Role::Client);
    let (session, _incoming, driver) = start(far, Role::Server, Config::default());
    let driver = tokio::spawn(driver);
    near.session.ready().await.unwrap();
    session.ready().await.unwrap();
    near.session.probe().await.unwrap();
    // What a machine that was suspended sees: nothing at all.
    let (frozen, gone) = duplex(64 * 1024);
    let frozen = side(frozen, Role::Client);
    let (mut reader, _writer) = split(gone);
    tokio::spawn(async move {
        let mut sink = [0; 1024];
        while reader.read(&mut sink).await.is_ok_and(|read| read > 0) {}
    });
    let limit = Duration::from_secs(5);
    assert!(timeout(limit, frozen.session.probe()).await.is_err());
    assert!(!frozen.session.is_closed());
    // The end of the session ends the question.
    let probe = frozen.session.probe();
    frozen.session.close("enough");
    assert!(probe.await.is_err());
    driver.abort();
}
