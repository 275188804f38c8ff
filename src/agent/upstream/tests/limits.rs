//! What is kept in memory, and how much of it there can be.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use h2::SendStream;
use http::{Method, Response};
use tokio::{io::AsyncReadExt, task::JoinSet};

use super::bed::{
    Bed, Caller, Dialling, PIPE, Received, Server, at_once, collect, get, request, send,
};
use crate::agent::upstream::{
    Upstream, UpstreamBody,
    http2::{CONNECTION_WINDOW, MAX_SEND_BUFFER, STREAM_WINDOW},
    places::MAX_STREAMS,
    pool::MAX_CONNECTIONS,
};

/// An answer that nobody reads.
struct Unread {
    _response: Response<UpstreamBody>,
    _received: Received,
    stream: SendStream<Bytes>,
}

impl Unread {
    async fn start(upstream: &Arc<Upstream>, server: &mut Server) -> Self {
        let upstream = Arc::clone(upstream);
        let asking = tokio::spawn(async move { send(&upstream, get()).await });
        let mut received = server.request().await;
        let stream = received.answer();
        Self {
            _response: asking.await.expect("no panic").expect("an answer"),
            _received: received,
            stream,
        }
    }

    /// Sends frames of this size for as long as the windows allow.
    async fn fill(&mut self, frame: usize) {
        let mut sent = 0;
        self.stream.reserve_capacity(STREAM_WINDOW as usize);
        while sent < STREAM_WINDOW as usize {
            while self.stream.capacity() < frame {
                at_once(std::future::poll_fn(|cx| self.stream.poll_capacity(cx)))
                    .await
                    .expect("open")
                    .expect("open");
            }
            let data = Bytes::from(vec![b'x'; frame]);
            self.stream.send_data(data, false).expect("open");
            sent += frame;
        }
    }
}

async fn is_answered(upstream: &Arc<Upstream>, server: &mut Server, connection: usize) {
    let upstream = Arc::clone(upstream);
    let asking = tokio::spawn(async move { collect(send(&upstream, get()).await?).await });
    let received = server.request().await;
    assert_eq!(received.connection, connection);
    received.echo().await;
    asking.await.expect("no panic").expect("an answer");
}

#[tokio::test]
async fn callers_that_all_do_not_read_leave_room_for_one_that_does() {
    let (upstream, mut server) = Bed::new(Dialling::Http2).serve(100);
    let mut unread = Vec::new();
    for _ in 1..MAX_STREAMS {
        let mut answer = Unread::start(&upstream, &mut server).await;
        answer.fill(16 * 1024).await;
        unread.push(answer);
    }
    assert!(unread.len() as u32 * STREAM_WINDOW < CONNECTION_WINDOW);
    is_answered(&upstream, &mut server, 0).await;
}

#[tokio::test]
async fn a_window_of_the_smallest_log_lines_does_not_end_the_connection() {
    let (upstream, mut server) = Bed::new(Dialling::Http2).serve(100);
    let mut answer = Unread::start(&upstream, &mut server).await;
    answer.fill("x".len() + "\n".len()).await;
    is_answered(&upstream, &mut server, 0).await;
    assert_eq!(server.dialled(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_read_stops_the_callers_upload() {
    // The window that HTTP/2 starts with, and that this server never opens again.
    const WINDOW: usize = 65_535;
    let mut bed = Bed::new(Dialling::Http2);
    let upstream = Arc::clone(&bed.upstream);
    let (mut caller, body) = Caller::body().await;
    let asking = tokio::spawn(async move {
        upstream
            .send_request(request(Method::POST, body))
            .await
            .map(|_| ())
    });
    let mut server = bed.connection().await;
    let reading = tokio::spawn(async move {
        super::raw::settle(&mut server).await;
        let mut sink = vec![0; 1024];
        while server.read(&mut sink).await.is_ok_and(|read| read > 0) {}
    });
    let mut accepted = 0;
    // On paused time this ends when nothing moves any more.
    while tokio::time::timeout(Duration::from_secs(1), caller.send(&[7; 1024]))
        .await
        .is_ok()
    {
        accepted += 1024;
        // The caller's own connection to the agent, which the test stands in for: its buffer and one chunk.
        let connection = PIPE + 2 * 64 * 1024;
        assert!(
            accepted <= WINDOW + MAX_SEND_BUFFER + connection,
            "{accepted} bytes are somewhere"
        );
    }
    assert!(accepted >= WINDOW);
    asking.abort();
    reading.abort();
}

#[tokio::test]
async fn there_are_never_more_connections_than_the_limit() {
    // One request on each connection, as if the server wanted it so.
    const REQUESTS: usize = MAX_CONNECTIONS + 20;
    let (upstream, mut server) = Bed::new(Dialling::Http2).serve(1);
    let mut asking = JoinSet::new();
    for _ in 0..REQUESTS {
        let upstream = Arc::clone(&upstream);
        asking.spawn(async move { collect(send(&upstream, get()).await?).await });
    }
    let mut held = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        held.push(server.request().await);
    }
    assert_eq!(server.dialled(), MAX_CONNECTIONS);
    // Those who wait get the places that become free.
    for received in held {
        received.echo().await;
    }
    for _ in MAX_CONNECTIONS..REQUESTS {
        server.request().await.echo().await;
    }
    while let Some(answer) = asking.join_next().await {
        answer.expect("no panic").expect("an answer");
    }
    assert_eq!(server.dialled(), MAX_CONNECTIONS);
}
