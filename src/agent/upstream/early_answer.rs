//! [`EarlyAnswer`]: a connection on which the answer may come before the request's body has gone out.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Waits where a write fails because nobody reads any more.
///
/// A server that has seen enough, of a body that is too large or of a caller without rights, answers and closes. hyper's
/// client takes the write that then fails for the end of everything, and forgets an answer that has arrived. Here it
/// reads on: the answer is there, or the read side tells that there is none. Not for upgraded connections, where a
/// reader who has gone is the end of that direction.
pub(super) struct EarlyAnswer<T>(T);

impl<T> EarlyAnswer<T> {
    pub(super) fn new(io: T) -> Self {
        Self(io)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for EarlyAnswer<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for EarlyAnswer<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        or_wait(Pin::new(&mut self.0).poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        or_wait(Pin::new(&mut self.0).poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // TLS sends what it holds here.
        or_wait(Pin::new(&mut self.0).poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Nothing wakes the writer again. It needs no waking: the connection is over once the reader has come to its end.
fn or_wait<T>(written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
    match written {
        Poll::Ready(Err(error))
            if matches!(
                error.kind(),
                io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
            ) =>
        {
            Poll::Pending
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::stream;
    use http::{Request, StatusCode};
    use http_body_util::StreamBody;
    use hyper::{body::Frame, client::conn::http1};
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncWriteExt, duplex, join, split};

    use super::*;

    /// Sends an upload without end to a server that has closed its read side and sends `answer`.
    async fn answered(answer: &'static [u8]) -> hyper::Result<StatusCode> {
        let (from_server, mut server) = duplex(1_024);
        let (to_server, closed) = duplex(1_024);
        drop(closed);
        let io = join(split(from_server).0, to_server);
        let body = StreamBody::new(stream::repeat_with(|| {
            Ok::<_, io::Error>(Frame::data(Bytes::from_static(&[b'x'; 4_096])))
        }));
        let (mut sender, connection) = http1::handshake(TokioIo::new(EarlyAnswer::new(io))).await?;
        tokio::spawn(connection);
        let response =
            tokio::spawn(sender.send_request(Request::post("/").body(body).expect("a request")));
        // The upload fails first, for certain.
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        server.write_all(answer).await.expect("the client reads");
        drop(server);
        Ok(response.await.expect("no panic")?.status())
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_read_though_the_upload_has_failed() {
        let answer = b"HTTP/1.1 413 Payload Too Large\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(
            answered(answer).await.expect("an answer"),
            StatusCode::PAYLOAD_TOO_LARGE
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_without_an_answer_is_an_error() {
        let error = answered(b"").await.expect_err("nothing came");
        assert!(error.is_incomplete_message(), "{error:?}");
    }
}
