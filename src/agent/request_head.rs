//! The first bytes of a stream: one HTTP/1.1 request head, read within limits and checked more strictly than HTTP
//! libraries do.
//!
//! hyper, like most, repairs what RFC 9112 section 6.3 lets it repair: it drops `Content-Length` beside
//! `Transfer-Encoding`, folds repeated lengths, takes a bare LF for a line end. Each repair is a place where two
//! hops may disagree about where a request ends. The agent is the last hop before a cluster, so it refuses instead.

use std::io;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::status::Refusal;

/// The largest request line plus headers, in bytes: twice the largest credential that is looked at.
pub(super) const MAX_HEAD: usize = 64 * 1024;
/// The most header lines. kubectl sends about ten; service meshes add some dozens.
pub(super) const MAX_FIELDS: usize = 200;
/// The longest request target in bytes. Label selectors of operators reach several KiB.
pub(super) const MAX_TARGET: usize = 16 * 1024;
/// How much is read at a time: a usual head arrives in one read.
const READ_SIZE: usize = 4 * 1024;

/// What came of waiting for a request.
#[derive(Debug)]
pub(super) enum Head {
    /// A head that passed every check, and what arrived behind it.
    Complete(RequestHead, Bytes),
    /// The peer closed before it sent anything.
    Nothing,
    /// A head to be answered with a refusal.
    Refused(Refusal),
}

/// A request without its body.
#[derive(Debug)]
pub(super) struct RequestHead {
    pub(super) method: Method,
    pub(super) target: Uri,
    pub(super) headers: HeaderMap,
}

impl RequestHead {
    /// The part of the head that hyper needs to read the body and to write the response.
    ///
    /// It never sees the caller's own: an `Upgrade` that leads to no 101, or a refused `CONNECT`, would make it give
    /// the stream up without a shutdown, and the end of the refusal would be lost.
    pub(super) fn framing(&self) -> Vec<u8> {
        let line = if self.method == Method::HEAD {
            "HEAD"
        } else {
            "POST"
        };
        let mut framing = format!("{line} / HTTP/1.1\r\n").into_bytes();
        for name in [
            header::CONTENT_LENGTH,
            header::TRANSFER_ENCODING,
            header::EXPECT,
            // Without it hyper sends no trailers.
            header::TE,
        ] {
            for value in self.headers.get_all(&name) {
                framing.extend_from_slice(name.as_str().as_bytes());
                framing.extend_from_slice(b": ");
                framing.extend_from_slice(value.as_bytes());
                framing.extend_from_slice(b"\r\n");
            }
        }
        framing.extend_from_slice(b"\r\n");
        framing
    }
}

/// Reads up to the end of the head.
///
/// # Errors
/// When the stream breaks, or ends inside the head: nobody is left to answer.
pub(super) async fn read(io: &mut (impl AsyncRead + Unpin)) -> io::Result<Head> {
    let mut buffer = BytesMut::with_capacity(READ_SIZE);
    let mut scan = HeadScan::default();
    loop {
        // Without the reserve a full buffer would read as the end of the stream.
        buffer.reserve(READ_SIZE);
        if io.read_buf(&mut buffer).await? == 0 {
            return if buffer.is_empty() {
                Ok(Head::Nothing)
            } else {
                Err(io::ErrorKind::UnexpectedEof.into())
            };
        }
        let length = match scan.advance(&buffer) {
            Ok(length) => length,
            Err(refusal) => return Ok(Head::Refused(refusal)),
        };
        if length.unwrap_or(buffer.len()) > MAX_HEAD {
            return Ok(Head::Refused(Refusal::headers_too_large(format!(
                "the request's headers are larger than {MAX_HEAD} bytes"
            ))));
        }
        if let Some(length) = length {
            let head = buffer.split_to(length).freeze();
            return Ok(match parse(&head) {
                Ok(head) => Head::Complete(head, buffer.freeze()),
                Err(refusal) => Head::Refused(refusal),
            });
        }
    }
}

/// Finds the end of the head without looking at a byte twice.
#[derive(Default)]
struct HeadScan {
    position: usize,
    line_start: usize,
}

impl HeadScan {
    fn advance(&mut self, buffer: &[u8]) -> Result<Option<usize>, Refusal> {
        while let Some(&byte) = buffer.get(self.position) {
            self.position += 1;
            if byte != b'\n' {
                continue;
            }
            let line = &buffer[self.line_start..self.position];
            let Some(line) = line.strip_suffix(b"\r\n") else {
                return Err(Refusal::malformed(
                    "a line of the request's head does not end in CR LF",
                ));
            };
            self.line_start = self.position;
            if line.is_empty() {
                return Ok(Some(self.position));
            }
        }
        Ok(None)
    }
}

fn parse(head: &Bytes) -> Result<RequestHead, Refusal> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => {
            return Err(Refusal::malformed("the request has no request line"));
        }
        Err(httparse::Error::TooManyHeaders) => {
            return Err(Refusal::headers_too_large(format!(
                "the request has more than {MAX_FIELDS} headers"
            )));
        }
        Err(httparse::Error::Version) => return Err(Refusal::version_not_supported()),
        Err(error) => {
            return Err(Refusal::malformed(format!(
                "the request's head is malformed: {error}"
            )));
        }
    }
    // A response to HTTP/1.0 may have to end by closing, and then a cut one would look complete.
    if request.version != Some(1) {
        return Err(Refusal::version_not_supported());
    }
    let target = request.path.unwrap_or_default();
    if target.len() > MAX_TARGET {
        return Err(Refusal::target_too_long(MAX_TARGET));
    }
    check_framing(request.headers)?;
    let mut headers = HeaderMap::with_capacity(request.headers.len());
    for field in request.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes())
            .map_err(|_| Refusal::malformed("a header's name is malformed"))?;
        let value = HeaderValue::from_maybe_shared(head.slice_ref(field.value))
            .map_err(|_| Refusal::malformed("a header's value is malformed"))?;
        headers.append(name, value);
    }
    Ok(RequestHead {
        method: Method::from_bytes(request.method.unwrap_or_default().as_bytes())
            .map_err(|_| Refusal::malformed("the request's method is malformed"))?,
        target: Uri::from_maybe_shared(head.slice_ref(target.as_bytes()))
            .map_err(|_| Refusal::malformed("the request's target is malformed"))?,
        headers,
    })
}

fn check_framing(fields: &[httparse::Header<'_>]) -> Result<(), Refusal> {
    let host = only(fields, "host")?;
    let content_length = only(fields, "content-length")?;
    let transfer_encoding = only(fields, "transfer-encoding")?;
    if host.is_none() {
        return Err(Refusal::malformed("the request has no Host header"));
    }
    if content_length.is_some() && transfer_encoding.is_some() {
        return Err(Refusal::malformed(
            "the request has both Content-Length and Transfer-Encoding",
        ));
    }
    // `parse` alone would take "+5".
    if content_length.is_some_and(|value| value.is_empty() || !value.iter().all(u8::is_ascii_digit))
    {
        return Err(Refusal::malformed("Content-Length is not a number"));
    }
    if transfer_encoding.is_some_and(|value| !value.eq_ignore_ascii_case(b"chunked")) {
        return Err(Refusal::malformed(
            "Transfer-Encoding is something else than `chunked`",
        ));
    }
    Ok(())
}

fn only<'a>(fields: &[httparse::Header<'a>], name: &str) -> Result<Option<&'a [u8]>, Refusal> {
    let mut values = fields
        .iter()
        .filter(|field| field.name.eq_ignore_ascii_case(name))
        .map(|field| field.value);
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        _ => Err(Refusal::malformed(format!(
            "the request has more than one {name} header"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, proptest};

    use super::*;

    const MINIMAL: &str = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";

    async fn outcome(mut bytes: &[u8]) -> io::Result<Head> {
        read(&mut bytes).await
    }

    async fn code(bytes: &[u8]) -> u16 {
        match outcome(bytes).await {
            Ok(Head::Refused(refusal)) => refusal.code().as_u16(),
            other => panic!("not refused: {other:?}"),
        }
    }

    fn post(fields: &str) -> Vec<u8> {
        format!("POST /x HTTP/1.1\r\nHost: x\r\n{fields}\r\n\r\n").into_bytes()
    }

    #[tokio::test]
    async fn what_follows_the_head_is_kept() {
        let bytes = [MINIMAL.as_bytes(), b"early\n\nbytes"].concat();
        match outcome(&bytes).await {
            Ok(Head::Complete(head, rest)) => {
                assert_eq!(
                    (head.method, head.target),
                    (Method::GET, Uri::from_static("/"))
                );
                assert_eq!(head.headers[header::HOST], "x");
                assert_eq!(rest, b"early\n\nbytes"[..]);
            }
            other => panic!("not complete: {other:?}"),
        }
    }

    #[tokio::test]
    async fn an_end_before_the_head_is_no_request_and_one_inside_it_is_an_error() {
        assert!(matches!(outcome(b"").await, Ok(Head::Nothing)));
        let error = outcome(b"GET / HTTP/1.1\r\n").await.expect_err("cut");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn r17_ambiguous_framing_is_400() {
        for fields in [
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nContent-Length: 5",
            "Content-Length: 5\r\nContent-Length: 6",
            "Content-Length: 5\r\nContent-Length: 5",
            "Content-Length: 5, 5",
            "Content-Length: +5",
            "Content-Length: -5",
            "Content-Length: 0x5",
            "Content-Length:",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: chunked, chunked",
            "Transfer-Encoding: chunked, identity",
            "Transfer-Encoding: identity",
            "Transfer-Encoding: xchunked",
            "Transfer-Encoding: \"chunked\"",
            "Transfer-Encoding: \u{b}chunked",
            "Transfer-Encoding:",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding : chunked",
            "Transfer Encoding: chunked",
            "Content-Length : 5",
            " Content-Length: 5",
            "X: a\r\n folded",
            "X: a\0b",
            "X: a\rb",
            "X\u{e9}: a",
            ": nameless",
            "no colon",
            "Host: second",
        ] {
            assert_eq!(code(&post(fields)).await, 400, "{fields:?}");
        }
    }

    #[tokio::test]
    async fn r17_line_ends_and_request_lines_are_strict() {
        for (bytes, expected) in [
            (&b"GET / HTTP/1.1\nHost: x\n\n"[..], 400),
            (b"GET / HTTP/1.1\r\nHost: x\n\r\n", 400),
            (b"\r\n\r\n", 400),
            (b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
            (b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n", 505),
            (b"G@T / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\n\r\n", 400),
            (b"GET /\r\n\r\n", 400),
            (b"GET / HTTP/1.0\r\nHost: x\r\n\r\n", 505),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        ] {
            assert_eq!(
                code(bytes).await,
                expected,
                "{:?}",
                String::from_utf8_lossy(bytes)
            );
        }
    }

    #[tokio::test]
    async fn plain_framing_passes() {
        for fields in [
            "Content-Length: 5",
            "Content-Length: 0",
            "Transfer-Encoding: chunked",
            "transfer-encoding: Chunked",
        ] {
            let bytes = post(fields);
            assert!(
                matches!(outcome(&bytes).await, Ok(Head::Complete(..))),
                "{fields:?}"
            );
        }
    }

    #[tokio::test]
    async fn every_limit_is_reached() {
        let fields = |count: usize| "X: a\r\n".repeat(count);
        let most = format!(
            "GET / HTTP/1.1\r\nHost: x\r\n{}\r\n",
            fields(MAX_FIELDS - 1)
        );
        assert!(matches!(
            outcome(most.as_bytes()).await,
            Ok(Head::Complete(..))
        ));
        let more = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", fields(MAX_FIELDS));
        assert_eq!(code(more.as_bytes()).await, 431);

        let with_target = |length: usize| {
            format!(
                "GET /{} HTTP/1.1\r\nHost: x\r\n\r\n",
                "a".repeat(length - 1)
            )
        };
        assert!(matches!(
            outcome(with_target(MAX_TARGET).as_bytes()).await,
            Ok(Head::Complete(..))
        ));
        assert_eq!(code(with_target(MAX_TARGET + 1).as_bytes()).await, 414);

        let frame = "GET / HTTP/1.1\r\nHost: x\r\nX: \r\n\r\n".len();
        let with_value = |length: usize| {
            format!(
                "GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n",
                "a".repeat(length - frame)
            )
        };
        assert!(matches!(
            outcome(with_value(MAX_HEAD).as_bytes()).await,
            Ok(Head::Complete(..))
        ));
        assert_eq!(code(with_value(MAX_HEAD + 1).as_bytes()).await, 431);
    }

    #[tokio::test]
    async fn an_endless_head_is_cut_off_at_the_limit() {
        let mut endless = tokio::io::repeat(b'a');
        let head = read(&mut endless).await.expect("an answer");
        assert!(matches!(head, Head::Refused(refusal) if refusal.code() == 431));
    }

    #[tokio::test]
    async fn hyper_sees_the_framing_and_nothing_else() {
        for (line, expected) in [
            ("HEAD /x", "HEAD / HTTP/1.1\r\n\r\n"),
            ("CONNECT evil:1", "POST / HTTP/1.1\r\n\r\n"),
            (
                "PUT /x",
                "POST / HTTP/1.1\r\ncontent-length: 5\r\nexpect: 100-continue\r\nte: trailers\r\n\r\n",
            ),
        ] {
            let fields = if line.starts_with("PUT") {
                "Content-Length: 5\r\nExpect: 100-continue\r\nTE: trailers\r\n"
            } else {
                ""
            };
            let bytes = format!(
                "{line} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{fields}\r\n"
            );
            match outcome(bytes.as_bytes()).await {
                Ok(Head::Complete(head, _)) => assert_eq!(head.framing(), expected.as_bytes()),
                other => panic!("not complete: {other:?}"),
            }
        }
    }

    proptest! {
        /// The scan gives the same answer whatever the pieces in which the bytes arrive.
        #[test]
        fn the_scan_does_not_depend_on_the_pieces(
            bytes in prop::collection::vec(prop::sample::select(&b"a: \r\n"[..]), 0..64),
            cut in any::<prop::sample::Index>(),
        ) {
            let whole = HeadScan::default().advance(&bytes).map_err(|refusal| refusal.code());
            let mut scan = HeadScan::default();
            let first = scan.advance(&bytes[..cut.index(bytes.len() + 1)]);
            let pieces = match first {
                Ok(None) => scan.advance(&bytes),
                done => done,
            };
            assert_eq!(whole, pieces.map_err(|refusal| refusal.code()));
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
            let _ = parse(&Bytes::from(bytes));
        }
    }
}
