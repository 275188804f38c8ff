//! The limits of a session, each with its reason.

use std::time::Duration;

use super::settings::Settings;

/// Limits of one session. The default suits a tunnel that carries Kubernetes API traffic.
///
/// Every setter clamps to what the protocol can work with, so that no configuration leads to a session that
/// stands still.
///
/// ```
/// use arc_cluster_connect::tunnel::mux::Config;
///
/// let config = Config::default().with_max_streams(64).with_stream_window(1 << 20);
/// ```
#[derive(Clone, Debug)]
pub struct Config {
    pub(super) max_streams: usize,
    pub(super) max_unaccepted: usize,
    pub(super) stream_window: u64,
    pub(super) receive_budget: u64,
    pub(super) send_queue: u64,
    pub(super) send_budget: u64,
    pub(super) silence: Duration,
    pub(super) handshake_timeout: Duration,
}

impl Config {
    /// How many streams may be open at a time, counted for each side's streams separately. At least 16.
    #[must_use]
    pub fn with_max_streams(mut self, count: usize) -> Self {
        self.max_streams = count.clamp(MIN_STREAMS, MAX_STREAMS_CEILING);
        self
    }

    /// How many of the peer's streams may wait in [`Incoming`](super::Incoming). At least 16.
    #[must_use]
    pub fn with_max_unaccepted(mut self, count: usize) -> Self {
        self.max_unaccepted = count.clamp(MIN_STREAMS, MAX_STREAMS_CEILING);
        self
    }

    /// The most that one stream may have under way or unread, in bytes. At least 16 KiB.
    #[must_use]
    pub fn with_stream_window(mut self, bytes: u64) -> Self {
        self.stream_window = bytes.clamp(RECEIVE_FLOOR, MAX_STREAM_WINDOW);
        self
    }

    /// The most that all streams together may have under way or unread, in bytes.
    ///
    /// Every stream keeps 16 KiB of its own, so that no stream stands still because of others: the budget is never
    /// below 16 KiB for each stream that both sides may open.
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

    /// The most that the receive side ever grants.
    pub(super) fn effective_receive_budget(&self) -> u64 {
        self.receive_budget.max(self.floor(RECEIVE_FLOOR))
    }

    /// What is left for growth once every stream has its floor.
    pub(super) fn receive_pool(&self) -> u64 {
        self.effective_receive_budget() - self.floor(RECEIVE_FLOOR)
    }

    pub(super) fn send_pool(&self) -> u64 {
        self.send_budget.saturating_sub(self.floor(SEND_FLOOR))
    }

    /// How many slices of receive blocks may wait unread: each pins at most one block.
    pub(super) fn max_pinning_slices(&self) -> usize {
        (self.effective_receive_budget() / RECEIVE_BLOCK as u64) as usize
    }

    pub(super) fn settings(&self) -> Settings {
        Settings {
            max_streams: self.max_streams.min(self.max_unaccepted) as u32,
            max_frame: MAX_FRAME as u32,
            ..Settings::INITIAL
        }
    }

    /// `floor` for every stream that both sides may have open.
    fn floor(&self, floor: u64) -> u64 {
        2 * self.max_streams as u64 * floor
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_streams: MAX_STREAMS,
            max_unaccepted: MAX_UNACCEPTED,
            stream_window: STREAM_WINDOW,
            receive_budget: RECEIVE_BUDGET,
            send_queue: SEND_QUEUE,
            send_budget: SEND_BUDGET,
            silence: SILENCE,
            handshake_timeout: HANDSHAKE_TIMEOUT,
        }
    }
}

/// Open streams of each side. A cluster's busiest clients keep a few dozen; beyond some hundred, what each stream
/// costs outweighs the bytes.
const MAX_STREAMS: usize = 512;

/// SETTINGS can not promise less than the protocol starts with.
const MIN_STREAMS: usize = Settings::INITIAL.max_streams as usize;

/// Keeps the floors of all streams within a few GiB, whatever is configured.
const MAX_STREAMS_CEILING: usize = 65_536;

/// Streams that wait for `accept`. Enough for a burst, little enough that a server that stopped accepting is felt
/// by its peer, as back-pressure on opening, before memory is.
const MAX_UNACCEPTED: usize = 128;

/// A fixed window for every stream: the best total in flight that was measured for a path on one machine, and
/// 5 MiB/s at a round trip of 50 ms.
const STREAM_WINDOW: u64 = 256 * 1024;

/// No stream needs more: 16 MiB fill 1 Gbit/s at a round trip of 130 ms.
const MAX_STREAM_WINDOW: u64 = 16 * 1024 * 1024;

/// What every stream is granted whatever the others do; equal to the window that a stream starts with.
pub(super) const RECEIVE_FLOOR: u64 = Settings::INITIAL.initial_stream_window as u64;

/// Unread and granted bytes of all streams: half of it are floors (2 × 512 × 16 KiB), half is for growth.
const RECEIVE_BUDGET: u64 = 32 * 1024 * 1024;

/// Written bytes that wait on one stream: one window, so that a full grant finds data to send.
const SEND_QUEUE: u64 = 256 * 1024;

/// What every stream may queue whatever the others do: peers that stopped reading many streams must not stop the
/// writers of the others.
pub(super) const SEND_FLOOR: u64 = 4 * 1024;

/// Written bytes that wait on all streams: half of it are floors (2 × 512 × 4 KiB), half is for growth.
const SEND_BUDGET: u64 = 8 * 1024 * 1024;

/// The longest frame that is taken and sent, header included: four TLS records.
pub(super) const MAX_FRAME: usize = 64 * 1024;

/// The longest frame while several streams have data: one TLS record, so that none waits long for another.
pub(super) const SHARED_FRAME: usize = 16 * 1024;

/// Metadata of a stream: a target's name and room for more, small enough to be kept for every unaccepted stream.
pub(super) const MAX_METADATA: usize = 1024;

/// Text in a GOAWAY: a sentence for an operator.
pub(super) const MAX_REASON: usize = 1024;

/// Bytes that one read of the transport may deliver: few system calls, and still in a core's cache.
pub(super) const RECEIVE_BLOCK: usize = 128 * 1024;

/// Slices of receive blocks below this are copied: they would keep a block alive that is many times their size.
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
        let config = Config::default();
        assert_eq!(config.effective_receive_budget(), RECEIVE_BUDGET);
        assert_eq!(config.receive_pool(), RECEIVE_BUDGET / 2);
        assert_eq!(config.send_pool(), SEND_BUDGET / 2);
        assert_eq!(config.settings().max_streams, 128);
    }

    #[test]
    fn no_configuration_starves_a_stream() {
        let config = Config::default()
            .with_receive_budget(0)
            .with_max_streams(0)
            .with_max_unaccepted(0)
            .with_stream_window(0)
            .with_send_queue(0);
        assert_eq!(config.max_streams, 16);
        assert_eq!(config.settings().max_streams, 16);
        assert_eq!(config.effective_receive_budget(), 2 * 16 * RECEIVE_FLOOR);
        assert_eq!(config.receive_pool(), 0);
        assert_eq!(config.stream_window, RECEIVE_FLOOR);
        assert_eq!(config.send_queue, SEND_FLOOR);
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
