//! The limits of a session, each with its reason.

use std::time::Duration;

use super::{id::Role, limits::Limits, settings::Settings};

/// Limits of one session. The default suits a tunnel that carries Kubernetes API traffic.
///
/// In such a tunnel the client opens streams and the server takes them, so what is not set follows from the side that
/// the session is started for:
///
/// | role | [opens](Self::with_max_opened) | [takes](Self::with_max_streams) |
/// |---|---:|---:|
/// | [`Client`](Role::Client) | 1024 | 16 |
/// | [`Server`](Role::Server) | 16 | 1024 |
///
/// Every setter clamps to what the protocol can work with, so that no configuration leads to a session that
/// stands still.
///
/// ```
/// use arc_cluster_connect::tunnel::mux::Config;
///
/// // Both sides may open up to 64 streams.
/// let config = Config::default().with_max_streams(64).with_max_opened(64).with_stream_window(1 << 20);
/// ```
#[derive(Clone, Debug)]
pub struct Config {
    max_streams: Option<usize>,
    max_opened: Option<usize>,
    max_unaccepted: usize,
    stream_window: u64,
    receive_budget: u64,
    send_queue: u64,
    send_budget: u64,
    silence: Duration,
    handshake_timeout: Duration,
}

impl Config {
    /// How many streams the peer may have open at a time. From 16 to 65 536. The peer waits before it opens more, and
    /// a peer that does not ends the session.
    #[must_use]
    pub fn with_max_streams(mut self, count: usize) -> Self {
        self.max_streams = Some(count.clamp(MIN_STREAMS, MAX_STREAMS_CEILING));
        self
    }

    /// How many streams this side may have open at a time, whatever the peer allows. From 1 to 65 536. Beyond it
    /// [`Session::open`](super::Session::open) waits.
    #[must_use]
    pub fn with_max_opened(mut self, count: usize) -> Self {
        self.max_opened = Some(count.clamp(1, MAX_STREAMS_CEILING));
        self
    }

    /// How many of the peer's streams may wait in [`Incoming`](super::Incoming), 128 unless this is called. From 16 to
    /// 65 536. It bounds how many the peer may open at once, not how many it may have open: each that is accepted makes
    /// room for another.
    #[must_use]
    pub fn with_max_unaccepted(mut self, count: usize) -> Self {
        self.max_unaccepted = count.clamp(MIN_STREAMS, MAX_STREAMS_CEILING);
        self
    }

    /// The most that one stream may have under way or unread, in bytes. From 16 KiB to 16 MiB, which is what holds
    /// unless this is called: how much a stream has is found out by measuring the path.
    #[must_use]
    pub fn with_stream_window(mut self, bytes: u64) -> Self {
        self.stream_window = bytes.clamp(RECEIVE_FLOOR, MAX_STREAM_WINDOW);
        self
    }

    /// The most that all streams together may have under way or unread, in bytes. It is also the most memory that unread
    /// bytes keep, however the peer sends them, beside 1 MiB of buffers to read into.
    ///
    /// Every stream keeps 16 KiB of its own, so that no stream stands still because of others, and seven sixteenths of the
    /// budget are kept for those that need more: where very many streams may be open, the two together are above the
    /// budget.
    #[must_use]
    pub fn with_receive_budget(mut self, bytes: u64) -> Self {
        self.receive_budget = bytes;
        self
    }

    /// How many written bytes may wait on one stream, before a writer waits. At least 4 KiB.
    #[must_use]
    pub fn with_send_queue(mut self, bytes: u64) -> Self {
        self.send_queue = bytes.max(SEND_FLOOR);
        self
    }

    /// Ping a peer that was silent for this long; the session ends after three times as long. From
    /// 100 ms to a day.
    #[must_use]
    pub fn with_silence(mut self, silence: Duration) -> Self {
        self.silence = silence.clamp(SHORTEST_SILENCE, LONGEST_WAIT);
        self
    }

    /// How long the peer may take to introduce itself. A day at most.
    #[must_use]
    pub fn with_handshake_timeout(mut self, timeout: Duration) -> Self {
        self.handshake_timeout = timeout.min(LONGEST_WAIT);
        self
    }

    /// The limits of a session's `role` end.
    pub(super) fn limits(&self, role: Role) -> Limits {
        let (opens, takes) = match role {
            Role::Client => (MAX_STREAMS, MIN_STREAMS),
            Role::Server => (MIN_STREAMS, MAX_STREAMS),
        };
        Limits {
            max_streams: self.max_streams.unwrap_or(takes),
            max_opened: self.max_opened.unwrap_or(opens),
            max_unaccepted: self.max_unaccepted,
            stream_window: self.stream_window,
            receive_budget: self.receive_budget,
            send_queue: self.send_queue,
            send_budget: self.send_budget,
            silence: self.silence,
            handshake_timeout: self.handshake_timeout,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_streams: None,
            max_opened: None,
            max_unaccepted: MAX_UNACCEPTED,
            stream_window: MAX_STREAM_WINDOW,
            receive_budget: RECEIVE_BUDGET,
            send_queue: SEND_QUEUE,
            send_budget: SEND_BUDGET,
            silence: SILENCE,
            handshake_timeout: HANDSHAKE_TIMEOUT,
        }
    }
}

/// Open streams of the side that asks. A controller watches each kind of object in a cluster, a dashboard does so for
/// each of its users: 1 000 watches, and two dozen requests beside them. Their floors take half of the budgets.
pub(super) const MAX_STREAMS: usize = 1024;

/// Open streams of the side that answers, which opens none as yet: the protocol's least, since SETTINGS can not promise
/// less than the protocol starts with.
const MIN_STREAMS: usize = Settings::INITIAL.max_streams as usize;

/// Keeps the floors of all streams within a few GiB, whatever is configured.
const MAX_STREAMS_CEILING: usize = 65_536;

/// Streams that wait for `accept`. Enough for a burst, little enough that a server that stopped accepting is felt
/// by its peer, as back-pressure on opening, before memory is.
const MAX_UNACCEPTED: usize = 128;

/// No stream needs more: 16 MiB fill 1 Gbit/s at a round trip of 130 ms.
pub(super) const MAX_STREAM_WINDOW: u64 = 16 * 1024 * 1024;

/// What every stream is granted whatever the others do; equal to the window that a stream starts with.
pub(super) const RECEIVE_FLOOR: u64 = Settings::INITIAL.initial_stream_window as u64;

/// Unread and granted bytes of all streams. About half of it are floors (1040 × 16 KiB are 16.25 MiB), the rest is for
/// growth: 65 full windows, when a tunnel that carries 1 000 idle watches lists big collections too.
const RECEIVE_BUDGET: u64 = 32 * 1024 * 1024;

/// Written bytes that wait on one stream: one window, so that a full grant finds data to send.
const SEND_QUEUE: u64 = 256 * 1024;

/// What every stream may queue whatever the others do: peers that stopped reading many streams must not stop the
/// writers of the others.
pub(super) const SEND_FLOOR: u64 = 4 * 1024;

/// Written bytes that wait on all streams: about half of it are floors (1040 × 4 KiB are 4.06 MiB), the rest is for
/// growth.
const SEND_BUDGET: u64 = 8 * 1024 * 1024;

/// The longest frame that is taken and sent, header included: four TLS records.
pub(super) const MAX_FRAME: usize = 64 * 1024;

/// The longest frame while several streams have data, unless the path is short: one TLS record, so that none waits long
/// for another.
pub(super) const SHARED_FRAME: usize = 16 * 1024;

/// Metadata of a stream: a target's name and room for more, small enough to be kept for every unaccepted stream.
pub(super) const MAX_METADATA: usize = 1024;

/// Text in a GOAWAY: a sentence for an operator.
pub(super) const MAX_REASON: usize = 1024;

/// Bytes that one read of the transport may deliver: few system calls, and still in a core's cache.
pub(super) const RECEIVE_BLOCK: usize = 128 * 1024;

/// Payloads below this are copied out of their receive block: they would keep alive what is many times their size.
pub(super) const MIN_SLICE: usize = 2 * 1024;

/// Ping when nothing was received for this long: below the idle limits of the proxies and balancers on the way,
/// the shortest of which is commonly 60 s.
const SILENCE: Duration = Duration::from_secs(15);

/// Below this, a busy machine's pauses would pass for silence.
const SHORTEST_SILENCE: Duration = Duration::from_millis(100);

/// "For ever", and still a number that clocks can be reckoned with.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

/// Pings without any received byte until the peer counts as dead: one may meet a pause, two are a loss.
pub(super) const MAX_MISSES: u32 = 2;

/// How long the peer may take to introduce itself: a rendezvous over a relay takes a few round trips.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);

/// How often the round trip is measured.
pub(super) const PING_INTERVAL: Duration = Duration::from_secs(60);

/// How long the last frame may take to leave, and the peer to close after it.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_has_room_to_grow() {
        for role in [Role::Client, Role::Server] {
            let limits = Config::default().limits(role);
            assert_eq!(limits.effective_receive_budget(), RECEIVE_BUDGET);
            assert_eq!(limits.receive_pool(), RECEIVE_BUDGET - 1040 * RECEIVE_FLOOR);
            assert!(limits.receive_pool() > RECEIVE_BUDGET * 49 / 100);
            assert!(limits.send_pool() > SEND_BUDGET * 49 / 100);
        }
    }

    #[test]
    fn the_side_that_asks_opens_and_the_other_takes() {
        let client = Config::default().limits(Role::Client);
        let server = Config::default().limits(Role::Server);
        assert_eq!((client.max_opened, client.max_streams), (1024, 16));
        assert_eq!((server.max_opened, server.max_streams), (16, 1024));
        // What may come before anything is accepted.
        assert_eq!(client.settings().max_streams, 16);
        assert_eq!(server.settings().max_streams, 128);

        let set = Config::default().with_max_streams(40).with_max_opened(2);
        for role in [Role::Client, Role::Server] {
            let limits = set.limits(role);
            assert_eq!((limits.max_opened, limits.max_streams), (2, 40));
        }
    }

    #[test]
    fn no_configuration_starves_a_stream() {
        let limits = Config::default()
            .with_receive_budget(0)
            .with_max_streams(0)
            .with_max_opened(0)
            .with_max_unaccepted(0)
            .with_stream_window(0)
            .with_send_queue(0)
            .limits(Role::Client);
        assert_eq!((limits.max_streams, limits.max_opened), (16, 1));
        assert_eq!(limits.settings().max_streams, 16);
        assert_eq!(limits.effective_receive_budget(), 17 * RECEIVE_FLOOR);
        assert_eq!(limits.receive_pool(), 0);
        assert_eq!(limits.stream_window, RECEIVE_FLOOR);
        assert_eq!(limits.send_queue, SEND_FLOOR);
    }

    #[test]
    fn no_configuration_overflows_a_clock() {
        let config = Config::default()
            .with_silence(Duration::MAX)
            .with_handshake_timeout(Duration::MAX);
        let (near, _far) = tokio::io::duplex(64);
        let (session, _incoming, _driver) =
            super::super::start(near, super::super::Role::Client, config);
        assert!(!session.is_closed());
    }
}
