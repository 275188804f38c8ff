use std::time::Duration;

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, duplex},
    time::timeout,
};

use super::*;

/// A server and the bare multiplexer at the other end, so that a test can send any name.
fn pair() -> (Session, TunnelServer) {
    let (near, far) = duplex(64 * 1024);
    let (session, _, driver) = mux::start(near, Role::Client, mux::Config::default());
    tokio::spawn(driver);
    (session, TunnelServer::start(far, mux::Config::default()))
}

async fn open(session: &Session, name: &[u8]) -> TunnelStream {
    let metadata = Bytes::copy_from_slice(name);
    let mut stream = TunnelStream::from(session.open(metadata).await.unwrap());
    stream.flush().await.unwrap();
    stream
}

#[tokio::test(start_paused = true)]
async fn the_name_of_the_target_arrives() {
    let (session, mut server) = pair();
    let mut near = open(&session, b"kubernetes-api").await;
    let stream = server.accept().await.unwrap();
    assert_eq!(stream.target(), &Target::api_server());
    let mut far = stream.accept();
    far.write_all(b"hello").await.unwrap();
    far.shutdown().await.unwrap();
    let mut text = String::new();
    near.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "hello");
}

#[tokio::test(start_paused = true)]
async fn bad_names_are_refused_with_a_code_and_never_show() {
    let (session, mut server) = pair();
    let long = [b'n'; 256];
    let mut refused = Vec::new();
    for name in [b"".as_slice(), b"\xff\xfe", b"two words", &long] {
        refused.push(open(&session, name).await);
    }
    let _good = open(&session, b"good").await;
    let first = server.accept().await.unwrap();
    assert_eq!(first.target().as_str(), "good");
    for mut stream in refused {
        let error = stream.read_chunk().await.unwrap_err();
        assert_refused(&error, Refusal::BadName);
    }
}

#[tokio::test(start_paused = true)]
async fn a_target_that_is_not_served_is_refused_with_a_code() {
    let (session, mut server) = pair();
    let mut stream = open(&session, b"other").await;
    server.accept().await.unwrap().refuse();
    assert_refused(
        &stream.read_chunk().await.unwrap_err(),
        Refusal::UnknownTarget,
    );
}

#[tokio::test(start_paused = true)]
async fn a_dropped_stream_is_refused() {
    let (session, mut server) = pair();
    let mut stream = open(&session, b"other").await;
    drop(server.accept().await.unwrap());
    assert!(stream.read_chunk().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_accept_loses_no_stream() {
    let (session, mut server) = pair();
    let moment = Duration::from_millis(1);
    assert!(timeout(moment, server.accept()).await.is_err());
    let _stream = open(&session, b"one").await;
    assert_eq!(server.accept().await.unwrap().target().as_str(), "one");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_goes_away_finishes_its_streams() {
    let (session, mut server) = pair();
    let mut near = open(&session, b"one").await;
    let mut far = server.accept().await.unwrap().accept();
    server.go_away("maintenance");
    session.going_away().await;
    assert!(session.open(Bytes::new()).await.is_err());
    far.write_all(b"last").await.unwrap();
    far.shutdown().await.unwrap();
    near.shutdown().await.unwrap();
    assert_eq!(near.read_chunk().await.unwrap().unwrap(), "last");
    assert!(near.read_chunk().await.unwrap().is_none());
    assert!(far.read_chunk().await.unwrap().is_none());
    assert!(server.accept().await.is_none());
    server.closed().await;
}

#[tokio::test(start_paused = true)]
async fn a_closed_server_ends_its_streams_in_an_error() {
    let (session, mut server) = pair();
    let mut near = open(&session, b"one").await;
    let _far = server.accept().await.unwrap().accept();
    server.close("stop");
    server.closed().await;
    assert!(near.read_chunk().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_dropped_server_takes_no_more_streams_and_keeps_the_accepted() {
    let (session, mut server) = pair();
    let mut near = open(&session, b"one").await;
    let mut far = server.accept().await.unwrap().accept();
    drop(server);
    session.going_away().await;
    far.write_all(b"still here").await.unwrap();
    far.shutdown().await.unwrap();
    assert_eq!(near.read_chunk().await.unwrap().unwrap(), "still here");
}

fn assert_refused(error: &Error, refusal: Refusal) {
    assert_eq!(Refusal::of(error), Some(refusal));
    assert!(error.to_string().contains(&refusal.to_string()), "{error}");
}
