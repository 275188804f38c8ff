//! The handles and the driver, over in-memory pipes.

use std::{
    future::{Future, poll_fn},
    io::{self, ErrorKind as IoErrorKind},
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    task::JoinHandle,
};

use super::super::{Config, Driver, Incoming, MuxStream, Role, Session, StreamFailure, start};
use crate::{Error, ErrorKind, Result};

pub(super) struct Side {
    pub(super) session: Session,
    pub(super) incoming: Incoming,
    pub(super) driver: JoinHandle<Result<()>>,
}

pub(super) fn side<T>(io: T, role: Role) -> Side
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (session, incoming, driver) = start(io, role, Config::default());
    Side {
        session,
        incoming,
        driver: tokio::spawn(driver),
    }
}

fn sides(pipe: usize) -> (Side, Side) {
    let (near, far) = tokio::io::duplex(pipe);
    (side(near, Role::Client), side(far, Role::Server))
}

pub(super) async fn stream_pair(client: &Side, server: &mut Side) -> (MuxStream, MuxStream) {
    let near = client
        .session
        .open(Bytes::from_static(b"target"))
        .await
        .unwrap();
    let far = server.incoming.accept().await.unwrap();
    assert_eq!(&far.metadata()[..], b"target");
    (near, far.into_stream())
}

pub(super) fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index % 251) as u8).collect()
}

fn failure(error: &io::Error) -> &StreamFailure {
    error
        .get_ref()
        .and_then(|inner| inner.downcast_ref())
        .expect("a stream failure inside")
}

/// Both directions of one stream at once, through `split`, more than any window.
async fn exchange(pipe: usize, length: usize) {
    let (client, mut server) = sides(pipe);
    let (near, far) = stream_pair(&client, &mut server).await;
    let expected = pattern(length);
    let run = |stream: MuxStream, data: Vec<u8>| {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let writing = tokio::spawn(async move {
            writer.write_all(&data).await.unwrap();
            writer.shutdown().await.unwrap();
            writer
        });
        tokio::spawn(async move {
            let mut all = Vec::new();
            reader.read_to_end(&mut all).await.unwrap();
            writing.await.unwrap();
            all
        })
    };
    let near = run(near, expected.clone());
    let far = run(far, expected.clone());
    assert_eq!(near.await.unwrap(), expected);
    assert_eq!(far.await.unwrap(), expected);
    assert_eq!(client.session.status().bytes_sent, length as u64);
    assert_eq!(server.session.status().bytes_received, length as u64);
}

#[tokio::test(start_paused = true)]
async fn both_directions_at_once_over_a_wide_pipe() {
    exchange(1 << 20, 4_000_000).await;
}

#[tokio::test(start_paused = true)]
async fn both_directions_at_once_over_a_pipe_of_one_byte() {
    exchange(1, 40_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_directions_at_once_on_two_threads() {
    exchange(64 * 1024, 4_000_000).await;
}

#[tokio::test(start_paused = true)]
async fn m01_two_writers_without_readers_do_not_stop_the_connection() {
    let (client, mut server) = sides(4096);
    let (mut near, mut far) = stream_pair(&client, &mut server).await;
    let data = Bytes::from(pattern(100_000));
    let write_until_stopped = async |stream: &mut MuxStream| {
        while tokio::time::timeout(Duration::from_secs(1), stream.write_chunk(data.clone()))
            .await
            .is_ok()
        {}
    };
    write_until_stopped(&mut near).await;
    write_until_stopped(&mut far).await;
    let (mut other, mut peer) = stream_pair(&client, &mut server).await;
    other.write_all(b"through").await.unwrap();
    other.shutdown().await.unwrap();
    let mut text = String::new();
    peer.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "through");
}

#[tokio::test(start_paused = true)]
async fn chunks_move_without_a_copy() {
    let (client, mut server) = sides(1 << 20);
    let (mut near, mut far) = stream_pair(&client, &mut server).await;
    near.write_chunk(Bytes::from(pattern(50_000)))
        .await
        .unwrap();
    near.shutdown().await.unwrap();
    let mut received = Vec::new();
    while let Some(chunk) = far.read_chunk().await.unwrap() {
        received.extend_from_slice(&chunk);
    }
    assert_eq!(received, pattern(50_000));
    assert!(
        far.read_chunk().await.unwrap().is_none(),
        "an end of file stays"
    );
}

#[tokio::test(start_paused = true)]
async fn endings_are_told_apart() {
    let (client, mut server) = sides(64 * 1024);
    let (mut near, mut far) = stream_pair(&client, &mut server).await;
    near.write_all(b"half").await.unwrap();
    near.reset(7);
    let mut buffer = Vec::new();
    let error = far.read_to_end(&mut buffer).await.unwrap_err();
    assert_eq!(error.kind(), IoErrorKind::ConnectionReset);
    assert!(matches!(failure(&error), StreamFailure::Reset(code) if code.value() == 7));

    let (mut near, mut far) = stream_pair(&client, &mut server).await;
    far.stop(9);
    let error = loop {
        if let Err(error) = near.write_all(&[0; 1000]).await {
            break error;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(error.kind(), IoErrorKind::BrokenPipe);
    assert!(matches!(failure(&error), StreamFailure::Stopped(code) if code.value() == 9));
    let error = far.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), IoErrorKind::BrokenPipe);

    let (near, mut far) = stream_pair(&client, &mut server).await;
    drop(near);
    let error = far.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), IoErrorKind::ConnectionReset);

    let (mut near, far) = stream_pair(&client, &mut server).await;
    drop(far);
    let error = near.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), IoErrorKind::ConnectionReset);
    assert!(near.write_all(b"x").await.is_err());
}

#[tokio::test(start_paused = true)]
async fn refusing_ends_both_directions_with_the_code() {
    let (client, mut server) = sides(64 * 1024);
    let mut near = client.session.open(Bytes::new()).await.unwrap();
    server.incoming.accept().await.unwrap().refuse(404);
    let error = near.read_u8().await.unwrap_err();
    assert!(matches!(failure(&error), StreamFailure::Reset(code) if code.value() == 404));
    // Nobody accepts: refused as well.
    let mut near = client.session.open(Bytes::new()).await.unwrap();
    drop(server.incoming);
    let error = near.read_u8().await.unwrap_err();
    assert!(matches!(failure(&error), StreamFailure::Reset(code) if code.value() == 1));
    let mut later = client.session.open(Bytes::new()).await.unwrap();
    assert!(later.read_u8().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn going_away_lets_streams_end_and_then_the_drivers() {
    let (client, mut server) = sides(64 * 1024);
    let (mut near, mut far) = stream_pair(&client, &mut server).await;
    server.session.go_away("update");
    while !client.session.is_going_away() {
        tokio::task::yield_now().await;
    }
    let error = client.session.open(Bytes::new()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    near.write_all(b"last").await.unwrap();
    near.shutdown().await.unwrap();
    let mut text = String::new();
    far.read_to_string(&mut text).await.unwrap();
    far.shutdown().await.unwrap();
    server.driver.await.unwrap().unwrap();
    client.driver.await.unwrap().unwrap();
    assert_eq!(
        near.read(&mut [0; 4]).await.unwrap(),
        0,
        "a clean end stays one"
    );
    assert!(server.incoming.accept().await.is_none());
    assert_eq!(client.session.closed().await.kind(), ErrorKind::Closed);
}

#[tokio::test(start_paused = true)]
async fn closing_ends_every_stream_in_an_error() {
    let (client, mut server) = sides(64 * 1024);
    let (mut near, mut far) = stream_pair(&client, &mut server).await;
    client.session.close("stop everything");
    let error = near.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), IoErrorKind::ConnectionAborted);
    let error = far.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), IoErrorKind::ConnectionAborted);
    assert!(matches!(failure(&error), StreamFailure::Session(_)));
    client.driver.await.unwrap().unwrap();
    let error = server.driver.await.unwrap().unwrap_err();
    assert!(
        error.report().contains("stop everything"),
        "{}",
        error.report()
    );
    assert!(client.session.is_closed() && server.session.is_closed());
    assert!(client.session.open(Bytes::new()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_lost_pipe_and_a_dropped_driver_are_errors() {
    let (near, far) = tokio::io::duplex(1024);
    let mut client = side(near, Role::Client);
    let (session, _incoming, driver) = start(far, Role::Server, Config::default());
    let mut stream = session.open(Bytes::new()).await.unwrap();
    drop(driver);
    let error = stream.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), IoErrorKind::ConnectionAborted);
    assert!(client.driver.await.unwrap().is_err());
    assert_eq!(
        client.session.ready().await.unwrap_err().kind(),
        ErrorKind::Network
    );
    assert!(client.incoming.accept().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn readiness_is_proof_of_a_peer() {
    let (near, mut far) = tokio::io::duplex(1024);
    let client = side(near, Role::Client);
    let waiting = tokio::time::timeout(Duration::from_secs(1), client.session.ready());
    assert!(waiting.await.is_err());
    far.write_all(b"SSH-2.0-OpenSSH\r\n").await.unwrap();
    let error = client.session.ready().await.unwrap_err();
    assert!(
        error.report().contains("first bytes 53 53 48 2d"),
        "{}",
        error.report()
    );
    assert!(error.help().is_some());
    let mut said = Vec::new();
    far.read_to_end(&mut said).await.unwrap();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(
        said.starts_with("ACC1") && said.contains("first bytes 53"),
        "{said}"
    );
    drop(far);
    assert!(client.driver.await.unwrap().is_err());

    let (client, server) = sides(1024);
    client.session.ready().await.unwrap();
    server.session.ready().await.unwrap();
    while client.session.status().round_trip_time.is_none() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn openers_wait_for_their_turn() {
    let (client, mut server) = sides(64 * 1024);
    let mut held = Vec::new();
    for _ in 0..128 {
        held.push(client.session.open(Bytes::new()).await.unwrap());
    }
    let openers: Vec<_> = (0..100)
        .map(|_| {
            let session = client.session.clone();
            tokio::spawn(async move { session.open(Bytes::new()).await.map(|stream| stream.id()) })
        })
        .collect();
    // One of them gives up while it waits.
    let given_up =
        tokio::time::timeout(Duration::from_millis(50), client.session.open(Bytes::new()));
    assert!(given_up.await.is_err());
    let accepting = tokio::spawn(async move {
        let mut count = 0;
        while let Some(stream) = server.incoming.accept().await {
            drop(stream);
            count += 1;
        }
        count
    });
    drop(held);
    for opener in openers {
        opener.await.unwrap().unwrap();
    }
    client.session.close("done");
    accepting.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn waiting_openers_learn_of_the_end() {
    let (client, _server) = sides(64 * 1024);
    let mut held = Vec::new();
    for _ in 0..128 {
        held.push(client.session.open(Bytes::new()).await.unwrap());
    }
    let openers: Vec<_> = (0..10)
        .map(|_| {
            let session = client.session.clone();
            tokio::spawn(async move { session.open(Bytes::new()).await.map(drop) })
        })
        .collect();
    tokio::task::yield_now().await;
    client.session.close("done");
    for opener in openers {
        assert!(opener.await.unwrap().is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn an_unused_session_leaves_by_itself() {
    let (client, server) = sides(1024);
    client.session.ready().await.unwrap();
    drop((client.session, client.incoming));
    client.driver.await.unwrap().unwrap();
    server.driver.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn cancelled_futures_lose_nothing() {
    let (client, mut server) = sides(64);
    {
        let accept = pin!(server.incoming.accept());
        assert!(poll_once(accept).await.is_pending());
    }
    let (mut near, mut far) = stream_pair(&client, &mut server).await;
    assert!(poll_once(pin!(far.read_chunk())).await.is_pending());
    assert!(poll_once(pin!(far.read_u8())).await.is_pending());
    // Writes in small steps, every one of which is dropped at its first wait and tried again.
    let data = pattern(600_000);
    let reading = tokio::spawn(async move {
        let mut all = Vec::new();
        loop {
            if let Poll::Ready(read) = poll_once(pin!(far.read_chunk())).await {
                match read.unwrap() {
                    Some(chunk) => all.extend_from_slice(&chunk),
                    None => return all,
                }
            }
            tokio::task::yield_now().await;
        }
    });
    let mut written = 0;
    for attempt in 0.. {
        if written == data.len() {
            break;
        }
        let end = (written + 3000).min(data.len());
        if attempt % 2 == 0 {
            let chunk = Bytes::copy_from_slice(&data[written..end]);
            if let Poll::Ready(done) = poll_once(pin!(near.write_chunk(chunk))).await {
                done.unwrap();
                written = end;
            }
        } else if let Poll::Ready(count) = poll_once(pin!(near.write(&data[written..end]))).await {
            written += count.unwrap();
        }
        tokio::task::yield_now().await;
    }
    near.shutdown().await.unwrap();
    assert_eq!(reading.await.unwrap(), data);
}

async fn poll_once<F: Future>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await
}

#[test]
fn handles_cross_threads() {
    fn check<T: Send + Sync + Unpin + 'static>() {}
    check::<Session>();
    check::<MuxStream>();
    check::<Arc<Error>>();
    fn check_future<T: Future<Output = Result<()>> + Send + Unpin + 'static>() {}
    check_future::<Driver>();
}
