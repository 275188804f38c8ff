//! [`OpenEnded`]: an answer whose length nobody knows, on its way to a caller who has nothing more to send.
//!
//! Such are watches and followed logs, which stay for hours and are idle for most of them. hyper could write them as it
//! writes all other answers, but it keeps 16 KiB of buffers for each; here an idle one holds none.

use std::{io, time::SystemTime};

use bytes::{Buf, Bytes};
use futures_util::FutureExt;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use http_body::Body;
use http_body_util::BodyExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{body::ResponseBody, connection::Failure, request_head::RequestHead, response_headers};

/// What a caller may send behind a request that has no body. Nobody looks at it; more of it waits in the stream, where
/// it costs the caller's own window.
const MAX_IGNORED: usize = 64 * 1024;

/// Whether a request is over with its head, so that the stream is free for the answer alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// No: a body follows. Or its answer has none, whatever its headers say, which is hyper's to know.
    WithBody,
    /// Yes.
    Alone(Trailers),
}

/// Whether the caller takes fields behind a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trailers {
    Taken,
    Dropped,
}

impl Asked {
    pub(super) fn by(head: &RequestHead) -> Self {
        let has = |name| head.headers.contains_key(name);
        if head.method == Method::HEAD
            || has(header::CONTENT_LENGTH)
            || has(header::TRANSFER_ENCODING)
            || has(header::EXPECT)
        {
            return Self::WithBody;
        }
        Self::Alone(if has(header::TE) {
            Trailers::Taken
        } else {
            Trailers::Dropped
        })
    }
}

/// A response that is written as chunks.
pub(super) struct OpenEnded(Response<ResponseBody>);

impl OpenEnded {
    /// Whether a response is one. hyper is to write the others.
    pub(super) fn fits(response: &Response<ResponseBody>, trailers: Trailers) -> bool {
        let headers = response.headers();
        let has_length = headers.contains_key(header::CONTENT_LENGTH)
            || response.body().size_hint().exact().is_some();
        let has_no_body = response.status().is_informational()
            || matches!(
                response.status(),
                StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
            );
        let has_trailers = trailers == Trailers::Taken && headers.contains_key(header::TRAILER);
        !has_length && !has_no_body && !has_trailers
    }

    /// `response` [fits](Self::fits).
    pub(super) fn new(response: Response<ResponseBody>) -> Self {
        Self(response)
    }

    /// Writes it to its end.
    ///
    /// # Errors
    /// When the body breaks off, the caller leaves, or the stream fails. The stream is then dropped without a shutdown:
    /// the caller sees an abort and never a clean end.
    pub(super) async fn write<T>(self, stream: T) -> Result<(), Failure>
    where
        T: AsyncRead + AsyncWrite,
    {
        let (reader, writer) = tokio::io::split(stream);
        tokio::select! {
            // Who has left has not been given half an answer.
            biased;
            gone = left(reader) => Err(gone.into()),
            written = self.write_to(writer) => written,
        }
    }

    async fn write_to(self, mut stream: impl AsyncWrite + Unpin) -> Result<(), Failure> {
        let (mut parts, mut body) = self.0.into_parts();
        frame(&mut parts.headers);
        let head = response_headers::wire(&Response::from_parts(parts, ()));
        stream.write_all(&head).await?;
        drop(head);
        loop {
            let next = match body.frame().now_or_never() {
                Some(next) => next,
                None => {
                    // Whoever waits for an event gets it before the next one is there.
                    stream.flush().await?;
                    body.frame().await
                }
            };
            let Some(piece) = next else { break };
            // Fields behind the body are for callers who asked for them, and those are hyper's.
            let Ok(data) = piece?.into_data() else {
                continue;
            };
            // An empty chunk would be the end.
            if !data.is_empty() {
                stream.write_all_buf(&mut chunk(data)).await?;
            }
        }
        // The request is over, and its places are free, before the caller can know.
        drop(body);
        stream.write_all(b"0\r\n\r\n").await?;
        Ok(stream.shutdown().await?)
    }
}

/// Sets what the stream between agent and caller needs.
fn frame(headers: &mut HeaderMap) {
    headers.insert(
        header::TRANSFER_ENCODING,
        HeaderValue::from_static("chunked"),
    );
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    if !headers.contains_key(header::DATE)
        && let Ok(now) = HeaderValue::try_from(httpdate::fmt_http_date(SystemTime::now()))
    {
        headers.insert(header::DATE, now);
    }
}

fn chunk(data: Bytes) -> impl Buf {
    let size = Bytes::from(format!("{:x}\r\n", data.len()));
    size.chain(data).chain(&b"\r\n"[..])
}

/// Ready when the caller is gone.
async fn left(mut stream: impl AsyncRead + Unpin) -> io::Error {
    let mut ignored = 0;
    while ignored < MAX_IGNORED {
        match stream.read(&mut [0; 64]).await {
            Ok(0) => return io::ErrorKind::UnexpectedEof.into(),
            Ok(length) => ignored += length,
            Err(error) => return error,
        }
    }
    std::future::pending().await
}
