//! Connections that are ready before they are asked for.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, sleep},
};

use super::{
    super::{
        warm::{MAX_AGE, MAX_WARM},
        *,
    },
    bed::{Bed, forbidden},
};

/// Longer than whatever is ready takes on virtual time, shorter than any wait in the code.
const MOMENT: Duration = Duration::from_millis(1);

async fn open(tunnel: &BridgeTunnel) -> TunnelStream {
    tunnel
        .open(&Target::api_server(), OpenOptions::new())
        .await
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_opening_finds_one_without_a_dial() {
    let mut bed = Bed::with(|tunnel| tunnel.with_warm(1));
    // Nothing is dialled before somebody wants something.
    sleep(MOMENT).await;
    assert_eq!(bed.dials(), 0);
    let opening = bed.open();
    let _first = bed.accept().await;
    let mut second = bed.accept().await;
    let _stream = opening.await.unwrap().unwrap();
    sleep(MOMENT).await;
    assert_eq!(bed.tunnel.warm_connections(), 1);
    // Nobody accepts anything now.
    let mut stream = open(&bed.tunnel).await;
    stream.write_all(b"hello").await.unwrap();
    let mut hello = [0; 5];
    second.read_exact(&mut hello).await.unwrap();
    assert_eq!(&hello, b"hello");
    assert_eq!(bed.tunnel.warm_connections(), 0);
    assert_eq!(bed.tunnel.status().live_streams, 2);
    // Its place is taken.
    let _third = bed.accept().await;
    sleep(MOMENT).await;
    assert_eq!(bed.tunnel.warm_connections(), 1);
}

#[tokio::test(start_paused = true)]
async fn only_the_api_servers_port_is_kept_warm() {
    let (tunnel, road) = Bed::with(|tunnel| {
        let port = BridgePort::new("k8s").unwrap();
        tunnel
            .with_warm(2)
            .with_port(Target::new("other").unwrap(), port)
    })
    .accept_all();
    drop(open(&tunnel).await);
    sleep(MOMENT).await;
    assert_eq!((tunnel.warm_connections(), road.dials()), (2, 3));
    // Another target that leads to the same port may have one.
    let other = Target::new("other").unwrap();
    drop(tunnel.open(&other, OpenOptions::new()).await.unwrap());
    sleep(MOMENT).await;
    assert_eq!((tunnel.warm_connections(), road.dials()), (2, 4));
}

#[tokio::test(start_paused = true)]
async fn there_are_never_more_than_the_limit() {
    let (tunnel, _) = Bed::with(|tunnel| tunnel.with_warm(1000)).accept_all();
    drop(open(&tunnel).await);
    sleep(MOMENT).await;
    assert_eq!(tunnel.warm_connections(), MAX_WARM);
}

#[tokio::test(start_paused = true)]
async fn one_that_ends_is_replaced() {
    let mut bed = Bed::with(|tunnel| tunnel.with_warm(1));
    let opening = bed.open();
    let _first = bed.accept().await;
    let warm = bed.accept().await;
    let _stream = opening.await.unwrap().unwrap();
    sleep(MOMENT).await;
    drop(warm);
    let mut fresh = bed.accept().await;
    sleep(MOMENT).await;
    let mut stream = open(&bed.tunnel).await;
    fresh.write_all(b"fresh").await.unwrap();
    assert_eq!(stream.read_chunk().await.unwrap().unwrap(), "fresh");
}

#[tokio::test(start_paused = true)]
async fn one_that_has_just_ended_is_not_handed_out() {
    let mut bed = Bed::with(|tunnel| tunnel.with_warm(1));
    let opening = bed.open();
    let _first = bed.accept().await;
    let warm = bed.accept().await;
    let _stream = opening.await.unwrap().unwrap();
    sleep(MOMENT).await;
    assert_eq!(bed.tunnel.warm_connections(), 1);
    // The task that would notice has had no time to.
    drop(warm);
    let opening = tokio::spawn({
        let tunnel = Arc::clone(&bed.tunnel);
        async move { open(&tunnel).await }
    });
    let mut fresh = bed.accept().await;
    let mut other = bed.accept().await;
    let mut stream = opening.await.unwrap();
    stream.write_all(b"x").await.unwrap();
    let read = tokio::select! {
        read = fresh.read_u8() => read,
        read = other.read_u8() => read,
    };
    assert_eq!(read.unwrap(), b'x');
}

#[tokio::test(start_paused = true)]
async fn a_target_that_hangs_up_at_once_is_not_hammered() {
    let mut bed = Bed::with(|tunnel| tunnel.with_warm(1));
    let opening = bed.open();
    let _first = bed.accept().await;
    let _stream = {
        drop(bed.accept().await);
        opening.await.unwrap().unwrap()
    };
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(18) {
        drop(bed.accept().await);
    }
    // 0, 1, 2, 5 and 10 seconds, and up to a quarter more.
    assert!(bed.dials() <= 8, "{}", bed.dials());
}

#[tokio::test(start_paused = true)]
async fn what_a_target_says_meanwhile_is_kept() {
    let mut bed = Bed::with(|tunnel| tunnel.with_warm(1));
    let opening = bed.open();
    let _first = bed.accept().await;
    let mut warm = bed.accept().await;
    let _stream = opening.await.unwrap().unwrap();
    warm.write_all(b"SSH-2.0-x\r\n").await.unwrap();
    sleep(MOMENT).await;
    warm.write_all(b"and more").await.unwrap();
    let mut stream = open(&bed.tunnel).await;
    let mut said = [0; 19];
    stream.read_exact(&mut said).await.unwrap();
    assert_eq!(&said, b"SSH-2.0-x\r\nand more");
}

#[tokio::test(start_paused = true)]
async fn a_target_that_never_stops_talking_is_not_listened_to() {
    let mut bed = Bed::with(|tunnel| tunnel.with_warm(1));
    let opening = bed.open();
    let _first = bed.accept().await;
    let mut warm = bed.accept().await;
    let _stream = opening.await.unwrap().unwrap();
    let mut written = 0;
    while let Ok(Ok(count)) = timeout(MOMENT, warm.write(&[b'x'; 4096])).await {
        written += count;
        assert!(written < 1024 * 1024, "somebody swallows all of it");
    }
    // No byte of it is lost.
    let mut stream = open(&bed.tunnel).await;
    let mut said = vec![0; written];
    stream.read_exact(&mut said).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn they_are_replaced_before_the_target_tires_of_them() {
    let (tunnel, road) = Bed::with(|tunnel| tunnel.with_warm(1)).accept_all();
    drop(open(&tunnel).await);
    sleep(MOMENT).await;
    assert_eq!(road.dials(), 2);
    sleep(MAX_AGE).await;
    assert_eq!((tunnel.warm_connections(), road.dials()), (1, 3));
}

#[tokio::test(start_paused = true)]
async fn nobody_dials_all_night() {
    let (tunnel, road) = Bed::with(|tunnel| tunnel.with_warm(3)).accept_all();
    drop(open(&tunnel).await);
    sleep(Duration::from_secs(600)).await;
    assert_eq!(tunnel.warm_connections(), 0);
    let dials = road.dials();
    sleep(Duration::from_secs(8 * 3600)).await;
    assert_eq!(road.dials(), dials);
    // And in the morning all is as it was.
    drop(open(&tunnel).await);
    sleep(MOMENT).await;
    assert_eq!((tunnel.warm_connections(), road.dials()), (3, dials + 4));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_not_asked_for_again_and_again() {
    let bed = Bed::with(|tunnel| tunnel.with_warm(2));
    bed.block(Some(forbidden()));
    assert!(bed.open().await.unwrap().is_err());
    sleep(Duration::from_secs(290)).await;
    // Two every thirty seconds at most, one of which waits for the other.
    assert!(bed.dials() <= 3 + 20, "{}", bed.dials());
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_lets_them_go() {
    let (tunnel, road) = Bed::with(|tunnel| tunnel.with_warm(2)).accept_all();
    drop(open(&tunnel).await);
    sleep(MOMENT).await;
    assert_eq!(tunnel.warm_connections(), 2);
    tunnel.shutdown().await.unwrap();
    sleep(MOMENT).await;
    assert_eq!(tunnel.warm_connections(), 0);
    let dials = road.dials();
    sleep(MAX_AGE * 2).await;
    assert_eq!(road.dials(), dials);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_tunnel_lets_them_go() {
    let mut bed = Bed::with(|tunnel| tunnel.with_warm(1));
    let opening = bed.open();
    let _first = bed.accept().await;
    let mut warm = bed.accept().await;
    drop(opening.await.unwrap().unwrap());
    sleep(MOMENT).await;
    drop(bed);
    assert_eq!(warm.read(&mut [0; 8]).await.unwrap(), 0);
}

/// What kept connections warm might be in the middle of a dial.
#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_for_the_background_task() {
    let bed = Bed::with(|tunnel| tunnel.with_warm(1));
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    *lock(&bed.tunnel.keeper) = Some(tokio::spawn(async { ended.await.unwrap() }));
    let mut shutdown = bed.tunnel.shutdown();
    let early = tokio::time::timeout(MOMENT, &mut shutdown).await;
    assert!(early.is_err(), "the task still runs");
    end.send(()).unwrap();
    shutdown.await.unwrap();
}
