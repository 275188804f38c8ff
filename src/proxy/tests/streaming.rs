//! Bodies: as they come, in both directions, and how they end.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::{
    io::AsyncWriteExt,
    sync::{Mutex, mpsc, oneshot},
};

use super::{
    fakes::StreamEnd,
    support::{
        BOTH_VERSIONS, Bed, ClientVersion, FrameSender, TestBody, body, channel, data, empty,
        is_ended, next_data, ok, raw_exchange, text,
    },
};
use crate::net::Alpn;

/// A bound on what should happen at once. Only a failing test reaches it.
const AT_ONCE: Duration = Duration::from_secs(20);

/// An agent that answers each request with a body that the test writes.
async fn watching_bed() -> (Bed, mpsc::UnboundedReceiver<FrameSender>) {
    let (watches, writers) = mpsc::unbounded_channel();
    let bed = Bed::start(move |_| {
        let (frames, body) = channel();
        watches.send(frames).expect("the test runs");
        async { Response::new(body) }
    })
    .await;
    (bed, writers)
}

#[tokio::test]
async fn a_watch_arrives_event_by_event() {
    let (bed, mut writers) = watching_bed().await;
    for version in BOTH_VERSIONS {
        let mut client = bed.client(version).await;
        let request = bed
            .request("GET", "/api/v1/pods?watch=true")
            .body(empty())
            .expect("a request");
        let mut events = client.send(request).await.expect("a head").into_body();
        let frames = writers.recv().await.expect("a watch");
        for event in ["{\"type\":\"ADDED\"}\n", "{\"type\":\"DELETED\"}\n"] {
            // The next one is written only when this one has come out.
            frames.send(data(event)).expect("the watch runs");
            assert_eq!(next_data(&mut events).await, event);
        }
        drop(frames);
        assert!(is_ended(&mut events).await);
        assert_eq!(
            bed.tunnel.next_end().await,
            StreamEnd::Closed,
            "{version:?}"
        );
    }
}

#[tokio::test]
async fn upload_and_answer_run_at_the_same_time() {
    // Echoes each piece as it comes.
    let bed = Bed::start(|request| async {
        let pieces = request.into_body().map_err(io::Error::other);
        Response::new(pieces.boxed_unsync())
    })
    .await;
    for version in BOTH_VERSIONS {
        let mut client = bed.client(version).await;
        let (frames, body) = channel();
        let request = bed.request("POST", "/echo").body(body).expect("a request");
        let mut echo = client.send(request).await.expect("a head").into_body();
        for piece in ["first", "second", "third"] {
            frames.send(data(piece)).expect("the upload runs");
            assert_eq!(next_data(&mut echo).await, piece);
        }
        drop(frames);
        assert!(is_ended(&mut echo).await, "{version:?}");
        assert_eq!(bed.tunnel.next_end().await, StreamEnd::Closed);
    }
}

/// Some clients write all of a request before they look at its answer. They must come to its end although the answer
/// comes first, and is more than may wait on its way.
#[tokio::test]
async fn an_upload_goes_on_while_nobody_reads_the_answer() {
    const PIECES: usize = 64;
    const PIECE: &str = "sixteen bytes of";
    let (done, mut uploads) = mpsc::unbounded_channel();
    let bed = Bed::start(move |request| {
        let done = done.clone();
        tokio::spawn(async move {
            let upload = request.into_body().collect().await;
            let _ = done.send(upload.map(|upload| upload.to_bytes().len()).ok());
        });
        let endless = futures_util::stream::repeat_with(|| data(PIECE));
        async { Response::new(StreamBody::new(endless).boxed_unsync()) }
    })
    .await;
    for version in BOTH_VERSIONS {
        let mut client = bed.client(version).await;
        let (frames, body) = channel();
        let request = bed.request("POST", "/").body(body).expect("a request");
        let response = client.send(request).await.expect("a head");
        let piece = Bytes::from(vec![b'x'; 64 * 1024]);
        for _ in 0..PIECES {
            let frame = Frame::data(piece.clone());
            frames.send(Ok(frame)).expect("the upload runs");
        }
        drop(frames);
        let uploaded = tokio::time::timeout(AT_ONCE, uploads.recv()).await;
        let uploaded = uploaded.expect("it goes on").expect("an upload");
        assert_eq!(uploaded, Some(PIECES * piece.len()), "{version:?}");
        drop(response);
    }
}

#[tokio::test]
async fn a_whole_exchange_closes_its_stream_in_good_order() {
    let bed = Bed::start(|request| async {
        let answer = text(request.into_body()).await;
        ok(answer)
    })
    .await;
    for version in BOTH_VERSIONS {
        for (method, sent) in [
            ("GET", ""),
            ("HEAD", ""),
            ("POST", ""),
            ("PUT", "manifest"),
            ("DELETE", "options"),
        ] {
            let mut client = bed.client(version).await;
            let request = bed
                .request(method, "/")
                .body(body(sent))
                .expect("a request");
            let response = client.send(request).await.expect("an answer");
            assert_eq!(text(response.into_body()).await, sent);
            let end = bed.tunnel.next_end().await;
            assert_eq!(end, StreamEnd::Closed, "{version:?} {method}");
        }
    }
}

#[tokio::test]
async fn a_stalled_upload_leaves_the_others_of_its_connection() {
    let bed = Bed::start(|request| async move {
        if request.uri().path() == "/stalled" {
            std::future::pending::<()>().await;
        }
        ok(text(request.into_body()).await)
    })
    .await;
    let mut client = bed.client(ClientVersion::Http2).await;
    let mut stalled = Vec::new();
    for _ in 0..20 {
        let request = bed
            .request("POST", "/stalled")
            .body(body(vec![0; 1024 * 1024]))
            .expect("a request");
        stalled.push(tokio::spawn(client.start(request)));
    }
    while bed.tunnel.opened() < stalled.len() {
        tokio::task::yield_now().await;
    }
    let sent = "x".repeat(256 * 1024);
    let request = bed
        .request("POST", "/")
        .body(body(sent.clone()))
        .expect("a request");
    let response = client.send(request).await.expect("an answer");
    assert!(text(response.into_body()).await == sent);
    assert!(stalled.iter().all(|upload| !upload.is_finished()));
}

#[tokio::test]
async fn an_early_refusal_ends_the_upload() {
    let bed = Bed::start(|_| async {
        let mut response = ok("too large");
        *response.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
        response
    })
    .await;
    for version in BOTH_VERSIONS {
        let mut client = bed.client(version).await;
        let (frames, body) = channel();
        frames.send(data("the beginning")).expect("room");
        let request = bed.request("POST", "/").body(body).expect("a request");
        let response = client.send(request).await.expect("an answer");
        assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(text(response.into_body()).await, "too large");
        assert_eq!(bed.tunnel.next_end().await, StreamEnd::Reset, "{version:?}");
        drop(frames);
    }
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let bed = Bed::start(|request| async {
        let upload = request.into_body().collect().await.expect("a body");
        let mut trailers = HeaderMap::new();
        let sum = upload.trailers().expect("trailers")["x-sum"].clone();
        trailers.insert("x-sum", sum);
        let frames = [data("pods"), Ok(Frame::trailers(trailers))];
        let body = StreamBody::new(futures_util::stream::iter(frames));
        Response::builder()
            .header("trailer", "x-sum")
            .body(body.boxed_unsync())
            .expect("a response")
    })
    .await;
    for version in BOTH_VERSIONS {
        let mut client = bed.client(version).await;
        let (frames, body) = channel();
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "42".parse().expect("a value"));
        frames.send(data("manifest")).expect("room");
        frames.send(Ok(Frame::trailers(trailers))).expect("room");
        drop(frames);
        let request = bed
            .request("POST", "/")
            .header("te", "trailers")
            .header("trailer", "x-sum")
            .body(body)
            .expect("a request");
        let response = client.send(request).await.expect("an answer");
        let answer = response.into_body().collect().await.expect("a body");
        assert_eq!(
            answer.trailers().expect("trailers")["x-sum"],
            "42",
            "{version:?}"
        );
    }
}

/// Reports when it is dropped: hyper drops what serves a request when the request is cancelled.
struct Running(mpsc::UnboundedSender<()>);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

#[tokio::test]
async fn a_client_that_stops_watching_is_known_to_the_agent() {
    let (ended, mut ends) = mpsc::unbounded_channel();
    let bed = Bed::start(move |_| {
        let running = Running(ended.clone());
        let (frames, body) = channel();
        frames.send(data("event")).expect("room");
        let body: TestBody = body
            .map_frame(move |frame| {
                // Lives as long as the body does.
                let _ = (&running, &frames);
                frame
            })
            .boxed_unsync();
        async { Response::new(body) }
    })
    .await;
    for version in BOTH_VERSIONS {
        let mut client = bed.client(version).await;
        let request = bed.request("GET", "/").body(empty()).expect("a request");
        let mut events = client.send(request).await.expect("a head").into_body();
        assert_eq!(next_data(&mut events).await, "event");
        drop((events, client));
        ends.recv().await.expect("the agent's response is dropped");
        assert_eq!(bed.tunnel.next_end().await, StreamEnd::Reset, "{version:?}");
    }
}

#[tokio::test]
async fn a_client_that_does_not_wait_for_the_answer_is_known_to_the_agent() {
    let (begun, mut begins) = mpsc::unbounded_channel();
    let (ended, mut ends) = mpsc::unbounded_channel();
    let bed = Bed::start(move |_| {
        let running = Running(ended.clone());
        begun.send(()).expect("the test runs");
        async move {
            std::future::pending::<()>().await;
            drop(running);
            ok("never")
        }
    })
    .await;
    for version in BOTH_VERSIONS {
        let mut client = bed.client(version).await;
        let request = bed.request("GET", "/").body(empty()).expect("a request");
        let waiting = tokio::spawn(async move { client.send(request).await.map(drop) });
        begins.recv().await.expect("the agent has the request");
        waiting.abort();
        ends.recv().await.expect("the agent's request is dropped");
        assert_eq!(bed.tunnel.next_end().await, StreamEnd::Reset, "{version:?}");
    }
}

#[tokio::test]
async fn one_cancelled_stream_leaves_the_others_of_its_connection() {
    let (bed, mut writers) = watching_bed().await;
    let mut client = bed.client(ClientVersion::Http2).await;
    let mut watches = Vec::new();
    for _ in 0..2 {
        let request = bed.request("GET", "/").body(empty()).expect("a request");
        let events = client.send(request).await.expect("a head").into_body();
        watches.push((events, writers.recv().await.expect("a watch")));
    }
    let (events, _frames) = watches.remove(0);
    drop(events);
    assert_eq!(bed.tunnel.next_end().await, StreamEnd::Reset);
    let (mut events, frames) = watches.remove(0);
    frames.send(data("event")).expect("the watch runs");
    assert_eq!(next_data(&mut events).await, "event");
}

#[tokio::test]
async fn a_list_that_breaks_off_is_an_error() {
    for content_length in [None, Some("100")] {
        let (heads, writers) = mpsc::unbounded_channel();
        let writers = Arc::new(Mutex::new(writers));
        let bed = Bed::start(move |_| {
            let (frames, body) = channel();
            heads.send(frames).expect("the test runs");
            let mut response = Response::builder();
            if let Some(length) = content_length {
                response = response.header("content-length", length);
            }
            let response = response.body(body).expect("a response");
            async { response }
        })
        .await;
        for version in BOTH_VERSIONS {
            let mut client = bed.client(version).await;
            let request = bed.request("GET", "/").body(empty()).expect("a request");
            let mut list = client.send(request).await.expect("a head").into_body();
            let frames = writers.lock().await.recv().await.expect("a list");
            frames.send(data("[1,2")).expect("the list runs");
            assert_eq!(next_data(&mut list).await, "[1,2");
            // The agent's connection breaks here.
            frames
                .send(Err(io::Error::other("killed")))
                .expect("the list runs");
            let error = list
                .frame()
                .await
                .expect("not a clean end")
                .expect_err("not a clean end");
            if let ClientVersion::Http2 = version {
                let reason = std::error::Error::source(&error)
                    .map(ToString::to_string)
                    .unwrap_or_default();
                assert!(reason.contains("internal error"), "{reason}");
            }
        }
    }
}

#[tokio::test]
async fn a_broken_chunked_body_has_no_last_chunk() {
    let (bed, mut writers) = watching_bed().await;
    let mut stream = bed.connect(Alpn::Http1).await;
    let request = bed.request_text("GET", "/", "");
    let agent = async {
        let frames = writers.recv().await.expect("a list");
        frames.send(data("[1,2")).expect("the list runs");
        frames
            .send(Err(io::Error::other("killed")))
            .expect("the list runs");
    };
    let (answer, ()) = tokio::join!(raw_exchange(&mut stream, &request), agent);
    assert!(answer.contains("transfer-encoding: chunked"), "{answer}");
    assert!(!answer.contains("\r\n0\r\n"), "{answer}");
}

#[tokio::test]
async fn two_hundred_at_once_do_not_mix() {
    let bed = Bed::start(|request| async move { ok(request.uri().path().to_owned()) }).await;
    for version in BOTH_VERSIONS {
        let mut clients = Vec::new();
        for _ in 0..8 {
            clients.push(bed.client(version).await);
        }
        let mut running = tokio::task::JoinSet::new();
        for (lane, mut client) in clients.into_iter().enumerate() {
            let requests: Vec<_> = (0..25)
                .map(|number| {
                    let path = format!("/{lane}/{number}");
                    let request = bed.request("GET", &path).body(empty()).expect("a request");
                    (path, request)
                })
                .collect();
            running.spawn(async move {
                let mut answers = tokio::task::JoinSet::new();
                for (path, request) in requests {
                    let response = client.send(request);
                    let response = response.await.expect("an answer");
                    answers
                        .spawn(async move { assert_eq!(text(response.into_body()).await, path) });
                }
                answers.join_all().await;
            });
        }
        running.join_all().await;
    }
    assert_eq!(bed.tunnel.opened(), 400);
}

#[tokio::test]
async fn two_hundred_watches_live_side_by_side() {
    let (bed, mut writers) = watching_bed().await;
    let mut watches = Vec::new();
    for lane in 0..4 {
        let version = BOTH_VERSIONS[1];
        let mut client = bed.client(version).await;
        for number in 0..50 {
            let path = format!("/{lane}/{number}");
            let request = bed.request("GET", &path).body(empty()).expect("a request");
            let events = client.send(request).await.expect("a head").into_body();
            watches.push((events, writers.recv().await.expect("a watch")));
        }
    }
    for (events, frames) in &mut watches {
        frames.send(data("event")).expect("the watch runs");
        assert_eq!(next_data(events).await, "event");
    }
}

#[tokio::test]
async fn a_large_body_arrives_whole() {
    const PIECE: usize = 64 * 1024;
    const PIECES: usize = 128;
    let bed = Bed::start(|request| async {
        let pieces = request.into_body().map_err(io::Error::other);
        Response::new(pieces.boxed_unsync())
    })
    .await;
    for version in BOTH_VERSIONS {
        let mut client = bed.client(version).await;
        let (frames, body) = channel();
        for number in 0..PIECES {
            let piece = Bytes::from(vec![number as u8; PIECE]);
            frames.send(Ok(Frame::data(piece))).expect("room");
        }
        drop(frames);
        let request = bed.request("POST", "/").body(body).expect("a request");
        let response = client.send(request).await.expect("an answer");
        let echo = response
            .into_body()
            .collect()
            .await
            .expect("a body")
            .to_bytes();
        assert_eq!(echo.len(), PIECE * PIECES);
        for (number, piece) in echo.chunks(PIECE).enumerate() {
            assert!(
                piece.iter().all(|byte| *byte == number as u8),
                "{version:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_client_that_breaks_off_its_upload_cancels_the_request() {
    let (ended, end) = oneshot::channel();
    let ended = Arc::new(std::sync::Mutex::new(Some(ended)));
    let bed = Bed::start(move |request| {
        let ended = Arc::clone(&ended);
        async move {
            let upload = request.into_body().collect().await;
            let ended = ended.lock().expect("not poisoned").take();
            let _ = ended.expect("one request").send(upload.is_err());
            ok("done")
        }
    })
    .await;
    let mut stream = bed.connect(Alpn::Http1).await;
    let head = bed.request_text("POST", "/", "Content-Length: 10\r\n");
    stream
        .write_all(format!("{head}half").as_bytes())
        .await
        .expect("written");
    drop(stream);
    // Either the agent saw a broken body, or it was cancelled while it read.
    assert!(
        end.await.unwrap_or(true),
        "half a body is never a whole one"
    );
    assert_eq!(bed.tunnel.next_end().await, StreamEnd::Reset);
}
