//! [`FramingGuard`]: refuses the one request whose two lengths the HTTP library repairs in silence.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is kept of a line: the longest name that matters, a colon and a length of 20 digits.
const MAX_KEPT: usize = 64;

/// A client's connection, on which a request with both `Content-Length` and `Transfer-Encoding` is broken off.
///
/// RFC 9112 section 6.3 lets a server drop the length and go on, and hyper does, before anybody can see it. But only a
/// client that is wrong, or somebody who wants two hops to disagree, sends both. So the bytes are looked at on their way
/// to hyper: in place of such a head's last byte it reads one that no head may have, answers 400, and closes.
pub(super) struct FramingGuard<T> {
    io: T,
    scan: Scan,
    refused: bool,
}

impl<T> FramingGuard<T> {
    pub(super) fn new(io: T) -> Self {
        Self {
            io,
            scan: Scan::default(),
            refused: false,
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for FramingGuard<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.refused {
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.io).poll_read(cx, buffer))?;
        let read = &mut buffer.filled_mut()[before..];
        if let Err(at) = this.scan.advance(read) {
            read[at] = 0;
            buffer.set_filled(before + at + 1);
            this.refused = true;
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for FramingGuard<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Finds the heads among the bytes of a connection. Everything else about a request is hyper's to judge.
#[derive(Default)]
struct Scan {
    place: Place,
    line: Line,
    head: Head,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Head,
    Body(u64),
    ChunkSize,
    Chunk(u64),
    ChunkEnd,
    Trailers,
    /// Behind a request for a change of protocol. It is the connection's last one, whatever the answer.
    Beyond,
}

/// What a head says of its body.
#[derive(Default)]
struct Head {
    has_begun: bool,
    length: Option<u64>,
    is_chunked: bool,
    asks_for_upgrade: bool,
}

/// The start of the current line.
#[derive(Default)]
struct Line {
    kept: Vec<u8>,
    length: usize,
}

/// Two hops could disagree about the end of this request.
struct Unclear;

impl Scan {
    /// # Errors
    /// The index of the byte at which the connection is to be broken off.
    fn advance(&mut self, bytes: &[u8]) -> Result<(), usize> {
        let mut at = 0;
        while at < bytes.len() {
            match self.place {
                Place::Beyond => return Ok(()),
                Place::Body(left) | Place::Chunk(left) => {
                    let here = left.min((bytes.len() - at) as u64);
                    self.skip(here);
                    at += here as usize;
                }
                _ => {
                    if self.line.push(bytes[at]) {
                        self.end_line().map_err(|Unclear| at)?;
                    }
                    at += 1;
                }
            }
        }
        Ok(())
    }

    fn skip(&mut self, count: u64) {
        self.place = match self.place {
            Place::Body(left) if left > count => Place::Body(left - count),
            Place::Chunk(left) if left > count => Place::Chunk(left - count),
            Place::Chunk(_) => Place::ChunkEnd,
            _ => Place::Head,
        };
    }

    fn end_line(&mut self) -> Result<(), Unclear> {
        let line = std::mem::take(&mut self.line);
        match self.place {
            Place::Head if line.is_empty() => {
                // Empty lines ahead of a request are allowed.
                if self.head.has_begun {
                    self.place = std::mem::take(&mut self.head).body()?;
                }
            }
            Place::Head => self.head.add(line.text())?,
            Place::ChunkSize => {
                self.place = match chunk_size(line.text())? {
                    0 => Place::Trailers,
                    size => Place::Chunk(size),
                };
            }
            Place::ChunkEnd if line.is_empty() => self.place = Place::ChunkSize,
            Place::ChunkEnd => return Err(Unclear),
            Place::Trailers if line.is_empty() => self.place = Place::Head,
            Place::Trailers | Place::Body(_) | Place::Chunk(_) | Place::Beyond => {}
        }
        // Its memory serves the next line.
        self.line = line.cleared();
        Ok(())
    }
}

impl Head {
    fn add(&mut self, line: &[u8]) -> Result<(), Unclear> {
        if !std::mem::replace(&mut self.has_begun, true) {
            // The request line.
            return Ok(());
        }
        let Some(colon) = line.iter().position(|&byte| byte == b':') else {
            return Ok(());
        };
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        if name.eq_ignore_ascii_case(b"content-length") {
            let value = std::str::from_utf8(value.trim_ascii()).map_err(|_| Unclear)?;
            self.length = Some(value.parse().map_err(|_| Unclear)?);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.is_chunked = true;
        } else if name.eq_ignore_ascii_case(b"upgrade") {
            self.asks_for_upgrade = true;
        }
        Ok(())
    }

    /// What follows the head.
    fn body(self) -> Result<Place, Unclear> {
        Ok(match (self.is_chunked, self.length) {
            (true, Some(_)) => return Err(Unclear),
            _ if self.asks_for_upgrade => Place::Beyond,
            // hyper refuses every other coding.
            (true, None) => Place::ChunkSize,
            (false, None | Some(0)) => Place::Head,
            (false, Some(length)) => Place::Body(length),
        })
    }
}

impl Line {
    /// Whether the line has ended.
    fn push(&mut self, byte: u8) -> bool {
        if byte == b'\n' {
            return true;
        }
        self.length += 1;
        if self.kept.len() < MAX_KEPT {
            self.kept.push(byte);
        }
        false
    }

    fn is_empty(&self) -> bool {
        self.length == 0 || (self.length == 1 && self.kept == b"\r")
    }

    fn text(&self) -> &[u8] {
        &self.kept
    }

    fn cleared(mut self) -> Self {
        self.kept.clear();
        self.length = 0;
        self
    }
}

/// The size at the start of a chunk's line; what follows it is an extension.
fn chunk_size(line: &[u8]) -> Result<u64, Unclear> {
    let digits = line
        .iter()
        .position(|byte| !byte.is_ascii_hexdigit())
        .unwrap_or(line.len());
    let digits = std::str::from_utf8(&line[..digits]).map_err(|_| Unclear)?;
    u64::from_str_radix(digits, 16).map_err(|_| Unclear)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, proptest};

    use super::*;

    const GET: &str = "GET /a HTTP/1.1\r\nHost: x\r\n\r\n";
    const BOTH: &str =
        "POST /a HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";

    /// Where the bytes are refused.
    fn refused(bytes: &str) -> Option<usize> {
        Scan::default().advance(bytes.as_bytes()).err()
    }

    #[test]
    fn r17_both_lengths_are_refused_in_any_request_of_a_connection() {
        let end_of_head = BOTH.find("\r\n\r\n").expect("a head") + 3;
        let swapped = BOTH.replace("Content-Length", "x-first").replace(
            "Transfer-Encoding: chunked",
            "transfer-encoding:chunked\r\ncontent-LENGTH:  4 ",
        );
        for attack in [BOTH, &swapped] {
            assert!(refused(attack).is_some(), "{attack}");
        }
        assert_eq!(refused(BOTH), Some(end_of_head));
        let chunks = "3;a=b\r\nabc\r\nA\r\n0123456789\r\n0\r\nX-Sum: 1\r\n\r\n";
        for before in [
            GET.to_owned(),
            format!("\r\n{GET}"),
            "POST /a HTTP/1.1\r\nContent-Length: 7\r\n\r\nGET \r\n\r".to_owned(),
            format!("POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"),
            format!("POST /a HTTP/1.1\nTransfer-Encoding: chunked\n\n{chunks}"),
        ] {
            assert_eq!(refused(&before), None, "{before}");
            let attack = format!("{before}{BOTH}");
            assert_eq!(
                refused(&attack),
                Some(before.len() + end_of_head),
                "{before}"
            );
        }
    }

    #[test]
    fn one_length_or_none_passes() {
        for request in [
            GET,
            "POST /a HTTP/1.1\r\nContent-Length: 200\r\n\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
            "POST /a HTTP/1.1\r\nX-Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n",
            "GET /Content-Length:1 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ] {
            assert_eq!(refused(request), None, "{request}");
        }
    }

    #[test]
    fn what_follows_a_request_for_an_upgrade_is_not_looked_at() {
        let upgrade = "GET /exec HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        assert_eq!(refused(&format!("{upgrade}{BOTH}")), None);
    }

    #[tokio::test]
    async fn a_refused_connection_ends_in_a_byte_that_no_head_has() {
        use tokio::io::AsyncReadExt;

        let bytes = [GET, BOTH, GET].concat();
        let mut guard = FramingGuard::new(bytes.as_bytes());
        let mut read = Vec::new();
        guard.read_to_end(&mut read).await.expect("a slice reads");
        let end_of_head = BOTH.find("\r\n\r\n").expect("a head") + 3;
        let whole = &bytes.as_bytes()[..GET.len() + end_of_head];
        assert_eq!(read, [whole, b"\0"].concat());
    }

    proptest! {
        /// Whatever the pieces in which bytes arrive, the same byte is refused, and none panics.
        #[test]
        fn the_pieces_make_no_difference(
            words in prop::collection::vec(prop::sample::select(&[
                GET, BOTH, "POST /a HTTP/1.1\r\n", "Transfer-Encoding: chunked\r\n", "Content-Length: 3\r\n",
                "\r\n", "\n", "\r", "3\r\nabc\r\n", "0\r\n\r\n", ":", "ffffffffffffffffff\r\n", "Upgrade: x\r\n",
            ][..]), 0..12),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        ) {
            let bytes = words.concat();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let mut scan = Scan::default();
            let mut found = None;
            for pair in cuts.windows(2) {
                if let Err(at) = scan.advance(&bytes.as_bytes()[pair[0]..pair[1]]) {
                    found = Some(pair[0] + at);
                    break;
                }
            }
            assert_eq!(found, refused(&bytes));
        }
    }
}
