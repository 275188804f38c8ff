//! [`Limits`]: how much of anything the endpoint holds.

use std::time::Duration;

/// Header fields per message. The HTTP library's 100 are too few for `--as-group` lists and mesh headers.
pub(in crate::proxy) const MAX_HEADERS: usize = 300;

/// Bytes of headers per message, in either protocol. Tokens with group lists pass 16 KiB, the default of HTTP/2.
pub(in crate::proxy) const MAX_HEADER_BYTES: usize = 256 * 1024;

/// Requests at once on one HTTP/2 connection, as with the API server itself, of which clients are used to open more
/// connections.
pub(in crate::proxy) const MAX_HTTP2_STREAMS: u32 = 100;

/// What one HTTP/2 upload may have in flight. The client is on the same machine: 64 KiB per loopback round trip are
/// faster than any tunnel.
pub(in crate::proxy) const HTTP2_STREAM_WINDOW: u32 = 64 * 1024;

/// As much as all streams together, so that stalled uploads never take the window from the others.
pub(in crate::proxy) const HTTP2_CONNECTION_WINDOW: u32 = MAX_HTTP2_STREAMS * HTTP2_STREAM_WINDOW;

/// What of one HTTP/2 response may wait for a slow client; the tunnel's own flow control holds back the rest.
pub(in crate::proxy) const HTTP2_SEND_BUFFER: usize = 64 * 1024;

/// How long an HTTP/1.1 connection may wait for a request head, between requests too. Longer than the 90 seconds
/// after which Go's client lets an idle connection go: whoever closes first must not be us, or a request that is just
/// being sent is lost.
pub(in crate::proxy) const HEADER_READ_LIMIT: Duration = Duration::from_secs(120);

/// How long a connection may live before it has shown the secret. Bounds what a process without it can hold.
pub(in crate::proxy) const PROOF_LIMIT: Duration = Duration::from_secs(30);

/// The limits that are counted over the whole endpoint.
#[derive(Clone, Debug)]
pub(in crate::proxy) struct Limits {
    /// Connections at once. A client that speaks HTTP/1.1 needs one for each watch, and has up to a thousand. They take
    /// a descriptor each: a program with such clients must raise its limit above the 1024 that a shell commonly gives
    /// it. Further ones wait in the system's backlog until one ends.
    pub(in crate::proxy) connections: usize,
    /// Requests at once, upgrades included. A controller with a thousand watches, and what users do beside it; each
    /// holds a few buffers of 64 KiB. Further ones get a 429, which Kubernetes clients retry by themselves.
    pub(in crate::proxy) requests: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1_100,
            requests: 1_280,
        }
    }
}
