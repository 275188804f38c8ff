use std::time::Duration;

use http_body_util::BodyExt;
use hyper::rt::ReadBuf as HyperBuf;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    time::timeout,
};

use super::*;
use crate::tunnel::mux;

/// Shorter than any of the tests takes, long enough for what is ready to happen.
const MOMENT: Duration = Duration::from_millis(1);

fn pipe(room: usize) -> (TunnelStream, DuplexStream) {
    let (near, far) = duplex(room);
    (TunnelStream::from_io(near), far)
}

/// Both ends of one stream of the multiplexer.
async fn mux_pair() -> (TunnelStream, TunnelStream) {
    let (near, far) = duplex(64 * 1024);
    let (session, _, driver) = mux::start(near, mux::Role::Client, mux::Config::default());
    tokio::spawn(driver);
    let (_, mut incoming, driver) = mux::start(far, mux::Role::Server, mux::Config::default());
    tokio::spawn(driver);
    let mut near = TunnelStream::from(session.open(Bytes::new()).await.unwrap());
    // Opening costs no round trip: the far end learns of it with the first bytes at the latest.
    near.write_chunk(Bytes::from_static(b"!")).await.unwrap();
    near.flush().await.unwrap();
    let far = incoming.accept().await.unwrap().into_stream();
    let mut far = TunnelStream::from(far);
    assert_eq!(far.read_chunk().await.unwrap().unwrap(), "!");
    (near, far)
}

/// Reads at most `N` bytes as hyper does.
async fn hyper_read<const N: usize>(stream: &mut TunnelStream) -> Vec<u8> {
    let mut bytes = [0; N];
    let mut buffer = HyperBuf::new(&mut bytes);
    poll_fn(|cx| hyper::rt::Read::poll_read(Pin::new(&mut *stream), cx, buffer.unfilled()))
        .await
        .unwrap();
    buffer.filled().to_vec()
}

async fn every_way_of_reading_sees_the_same_bytes(mut near: TunnelStream, mut far: TunnelStream) {
    far.write_all(b"abcdefghij").await.unwrap();
    far.flush().await.unwrap();
    assert_eq!(hyper_read::<3>(&mut near).await, b"abc");
    let mut two = [0; 2];
    near.read_exact(&mut two).await.unwrap();
    assert_eq!(&two, b"de");
    assert_eq!(near.read_chunk().await.unwrap().unwrap(), "fghij");
    far.shutdown().await.unwrap();
    assert!(near.read_chunk().await.unwrap().is_none());
    assert_eq!(hyper_read::<3>(&mut near).await, b"");
    // The other direction still works.
    near.write_chunk(Bytes::from_static(b"bye")).await.unwrap();
    near.shutdown().await.unwrap();
    let mut rest = Vec::new();
    far.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"bye");
}

#[tokio::test(start_paused = true)]
async fn every_way_of_reading_a_pipe_sees_the_same_bytes() {
    let (near, far) = pipe(64);
    every_way_of_reading_sees_the_same_bytes(near, TunnelStream::from_io(far)).await;
}

#[tokio::test(start_paused = true)]
async fn every_way_of_reading_a_mux_stream_sees_the_same_bytes() {
    let (near, far) = mux_pair().await;
    every_way_of_reading_sees_the_same_bytes(near, far).await;
}

#[tokio::test(start_paused = true)]
async fn a_chunk_larger_than_a_window_crosses_the_mux_in_pieces() {
    let (mut near, mut far) = mux_pair().await;
    let chunk = Bytes::from(vec![7; 100_000]);
    let writing = chunk.clone();
    let (written, read) = tokio::join!(
        async {
            near.write_chunk(writing).await?;
            near.shutdown().await
        },
        async {
            let mut all = Vec::new();
            while let Some(part) = far.read_chunk().await? {
                assert!(!part.is_empty());
                all.extend_from_slice(&part);
            }
            io::Result::Ok(all)
        }
    );
    written.unwrap();
    assert_eq!(read.unwrap(), chunk);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_chunk_is_sent_whole_ahead_of_the_next_write() {
    let (mut near, mut far) = pipe(4);
    let cancelled = near.write_chunk(Bytes::from_static(b"0123456789"));
    assert!(timeout(MOMENT, cancelled).await.is_err());
    let (written, read) = tokio::join!(
        async {
            near.write_all(b"abc").await?;
            near.shutdown().await
        },
        async {
            let mut all = Vec::new();
            far.read_to_end(&mut all).await.map(|_| all)
        }
    );
    written.unwrap();
    assert_eq!(read.unwrap(), b"0123456789abc");
}

#[tokio::test(start_paused = true)]
async fn a_chunk_cancelled_behind_another_is_not_sent_at_all() {
    let (mut near, mut far) = pipe(4);
    for chunk in ["0123456789", "never"] {
        let cancelled = near.write_chunk(Bytes::from(chunk));
        assert!(timeout(MOMENT, cancelled).await.is_err());
    }
    let (written, read) = tokio::join!(near.shutdown(), async {
        let mut all = Vec::new();
        far.read_to_end(&mut all).await.map(|_| all)
    });
    written.unwrap();
    assert_eq!(read.unwrap(), b"0123456789");
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_read_loses_nothing() {
    let (mut near, mut far) = pipe(64);
    assert!(timeout(MOMENT, near.read_chunk()).await.is_err());
    far.write_all(b"late").await.unwrap();
    assert_eq!(near.read_chunk().await.unwrap().unwrap(), "late");
}

#[tokio::test(start_paused = true)]
async fn hyper_runs_on_it_without_an_adapter() {
    let (near, far) = mux_pair().await;
    let service =
        hyper::service::service_fn(|request: http::Request<hyper::body::Incoming>| async {
            let body = request.into_body().collect().await?.to_bytes();
            Ok::<_, hyper::Error>(http::Response::new(http_body_util::Full::new(body)))
        });
    tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(far, service));
    let (mut sender, connection) = hyper::client::conn::http1::handshake(near).await.unwrap();
    tokio::spawn(connection);
    let body = http_body_util::Full::new(Bytes::from(vec![b'x'; 300_000]));
    let answer = sender.send_request(http::Request::new(body)).await.unwrap();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body.len(), 300_000);
}
