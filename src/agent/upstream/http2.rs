//! HTTP/2 connections, and one request on one of them.
//!
//! Straight on `h2`, as three things have to be known that no client on top of it tells: how many requests a
//! connection may take before one waits in it unseen; whether a server that broke off had looked at a request; and
//! whether an answer that was reset had come to its end.

use std::{future::poll_fn, pin::Pin, time::Duration};

use bytes::Bytes;
use h2::{
    Ping, PingPong, Reason, RecvStream,
    client::{Builder, Connection, SendRequest},
};
use http::{Request, Response, Version};
use tokio_util::task::AbortOnDropHandle;

use super::{
    UpstreamBody,
    dial::UpstreamIo,
    failure::{self, SendFailure},
    places::MAX_STREAMS,
    pool::Place,
    replay_body::ReplayBody,
    request_head,
    upload::{End, Upload},
};
use crate::{Error, ErrorKind, Result};

/// How much of one answer may wait here for its caller. The agent stands beside the API server: at a millisecond of
/// distance this is 256 MB/s for one answer, where the default of 64 KiB would be a quarter of it; and the 2 000
/// requests of an agent whose callers all stopped reading hold 512 MiB.
pub(super) const STREAM_WINDOW: u32 = 256 * 1024;
/// As much as all streams together: a caller that does not read must not slow the others.
pub(super) const CONNECTION_WINDOW: u32 = STREAM_WINDOW * MAX_STREAMS as u32;
/// How much of one request's body may wait here for the API server.
pub(super) const MAX_SEND_BUFFER: usize = 64 * 1024;
/// All headers of one answer. Aggregated API servers behind meshes add many; the API server itself sends a few KiB.
pub(super) const MAX_HEADERS: u32 = 256 * 1024;
/// How much memory small frames of answers that wait for their callers may cost beyond their bytes; beyond it h2 ends the
/// connection. A whole window of one-character log lines costs nearly as much, so that no single caller can end the
/// connection of the others by not reading.
const MAX_FRAMING: usize = 32 * 1024 * 1024;
/// How often the server is asked for a sign of life. A watch may rightly be silent for minutes, a connection may not.
pub(super) const PING_INTERVAL: Duration = Duration::from_secs(30);
/// How long the sign may take. With the interval it is what client-go uses.
pub(super) const PONG_LIMIT: Duration = Duration::from_secs(15);

pub(super) type Sender = SendRequest<Bytes>;

/// A connection, to be polled for as long as it lasts.
pub(super) struct Driver {
    connection: Connection<Box<dyn UpstreamIo>, Bytes>,
    ping_pong: Option<PingPong>,
}

/// Starts HTTP/2. Requests can be sent once the server's settings say how many.
pub(super) async fn handshake(io: Box<dyn UpstreamIo>) -> Result<(Sender, Driver)> {
    let (sender, mut connection) = Builder::new()
        // None before the server has said how many: beyond its limit they would wait unseen.
        .initial_max_send_streams(0)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(MAX_SEND_BUFFER)
        .max_header_list_size(MAX_HEADERS)
        .data_frame_budget(MAX_FRAMING)
        .enable_push(false)
        .handshake(io)
        .await
        .map_err(failure::http2_failed)?;
    let ping_pong = connection.ping_pong();
    Ok((
        sender,
        Driver {
            connection,
            ping_pong,
        },
    ))
}

impl Driver {
    /// Carries the connection's bytes until it ends, and tells `allowed` how many requests the server allows at once,
    /// whenever that changes.
    pub(super) async fn run(self, mut allowed: impl FnMut(usize)) -> Result<(), Error> {
        let Self {
            mut connection,
            ping_pong,
        } = self;
        let mut known = 0;
        let carried = poll_fn(|cx| {
            let polled = Pin::new(&mut connection).poll(cx);
            let now = connection.max_concurrent_send_streams();
            if now != known {
                known = now;
                allowed(now);
            }
            polled
        });
        tokio::select! {
            biased;
            ended = carried => ended.map_err(failure::http2_failed),
            () = no_sign_of_life(ping_pong) => Err(Error::new(
                ErrorKind::Timeout,
                format!("no answer to a ping within {PONG_LIMIT:?}"),
            )),
        }
    }
}

/// Resolves when a ping stays unanswered.
async fn no_sign_of_life(ping_pong: Option<PingPong>) {
    let Some(mut ping_pong) = ping_pong else {
        return std::future::pending().await;
    };
    loop {
        tokio::time::sleep(PING_INTERVAL).await;
        match tokio::time::timeout(PONG_LIMIT, ping_pong.ping(Ping::opaque())).await {
            Ok(Ok(_)) => {}
            // The connection has ended, which its driver notices by itself.
            Ok(Err(_)) => return std::future::pending().await,
            Err(_) => return,
        }
    }
}

/// A connection with a place on it for one request.
pub(super) struct Lease {
    sender: Sender,
    place: Place,
}

/// What a request holds until its answer has ended. Dropped with the receiving half it resets the stream.
pub(in crate::agent) struct Stream {
    // Before the place, which is free only once the stream is over.
    _upload: Option<AbortOnDropHandle<End>>,
    _place: Place,
}

impl Lease {
    pub(super) fn new(sender: Sender, place: Place) -> Self {
        Self { sender, place }
    }

    /// Sends a request and waits for the head of its response. The body goes on after that, if it has to.
    pub(super) async fn send(
        mut self,
        request: Request<ReplayBody>,
    ) -> Result<Response<UpstreamBody>, Box<SendFailure>> {
        let head = request_head::http2(&request).map_err(SendFailure::last)?;
        let body_follows = !request.body().is_empty();
        let (mut response, stream) = match self.sender.send_request(head, !body_follows) {
            Ok(sent) => sent,
            Err(error) => {
                // Not the connection's end but a head that HTTP/2 can not carry.
                if !error.is_io() && !error.is_go_away() {
                    return Err(SendFailure::last(failure::http2_failed(error)));
                }
                self.place.retire();
                return Err(SendFailure::repeatable(
                    failure::http2_failed(error),
                    Some(request),
                ));
            }
        };
        let (parts, body) = request.into_parts();
        let mut outgoing = if body_follows {
            Outgoing::Following(Upload::new(stream, body))
        } else {
            Outgoing::Nothing(body)
        };
        let answer = poll_fn(|cx| {
            if let Outgoing::Following(upload) = &mut outgoing {
                // Its end is told by the answer, or by the lack of one.
                let _ = Pin::new(upload).poll(cx);
            }
            Pin::new(&mut response).poll(cx)
        })
        .await;
        match answer {
            Ok(response) => Ok(self.answered(response, outgoing)),
            Err(error) => {
                let again = self.again(&error, Request::from_parts(parts, ()), outgoing);
                Err(SendFailure::repeatable(failure::http2_failed(error), again))
            }
        }
    }

    fn answered(
        self,
        response: Response<RecvStream>,
        outgoing: Outgoing,
    ) -> Response<UpstreamBody> {
        let stream = Stream {
            _upload: outgoing.go_on(),
            _place: self.place,
        };
        let (mut parts, receiver) = response.into_parts();
        parts.version = Version::HTTP_11;
        let body = UpstreamBody::http2(receiver, &parts.headers, stream);
        Response::from_parts(parts, body)
    }

    /// The request, if it may be sent again.
    fn again(
        &self,
        error: &h2::Error,
        head: Request<()>,
        outgoing: Outgoing,
    ) -> Option<Request<ReplayBody>> {
        let unprocessed = was_not_processed(error);
        if !unprocessed && !error.is_io() {
            return None;
        }
        // It is gone, is leaving, or refuses though it said that it had room.
        self.place.retire();
        let request = head.map(|()| outgoing.into_body());
        if unprocessed {
            let (parts, body) = request.into_parts();
            return Some(Request::from_parts(parts, body.rewind()?));
        }
        failure::is_idempotent(&request).then_some(request)
    }
}

/// The request's body.
enum Outgoing {
    Nothing(ReplayBody),
    Following(Upload),
}

impl Outgoing {
    fn into_body(self) -> ReplayBody {
        match self {
            Self::Nothing(body) => body,
            Self::Following(upload) => upload.into_body(),
        }
    }

    /// Lets what is left go on beside the response. When the response has ended there is no use in it any more.
    fn go_on(self) -> Option<AbortOnDropHandle<End>> {
        match self {
            Self::Following(mut upload) if !upload.has_ended() => {
                upload.answered();
                Some(AbortOnDropHandle::new(tokio::spawn(upload)))
            }
            _ => None,
        }
    }
}

/// Whether the server promises not to have looked at the request (RFC 9113 section 8.7). h2 gives GOAWAY as the error
/// of those streams only whose number is above the last one that the server names.
fn was_not_processed(error: &h2::Error) -> bool {
    error.is_remote()
        && (error.is_go_away()
            || (error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM)))
}
