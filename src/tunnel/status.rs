//! What a tunnel is doing.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use futures_core::Stream;

use crate::Error;

/// A snapshot of a tunnel.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TunnelStatus {
    /// What the tunnel is doing.
    pub state: TunnelState,
    /// The other end, for people: a relay host and path, or an address.
    pub peer: String,
    /// The last measured round trip to the agent.
    pub round_trip_time: Option<Duration>,
    /// Streams that are open now.
    pub live_streams: usize,
    /// Bytes of stream payload sent since the tunnel was made, over all its connections.
    pub bytes_sent: u64,
    /// Bytes of stream payload received since the tunnel was made, over all its connections.
    pub bytes_received: u64,
    /// The credential for the relay, where the tunnel gets a new one from time to time.
    pub credential: Option<CredentialStatus>,
}

/// How it stands with a credential that is replaced before it ends.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CredentialStatus {
    /// When the relay stops taking the present one.
    pub expires_at: SystemTime,
    /// How many have come so far, the first included.
    pub issued: u64,
    /// Why the last attempt to get the next one failed, if it did. It is tried again by itself.
    pub failure: Option<Arc<Error>>,
}

impl TunnelStatus {
    /// A status without figures; an implementation fills in what it knows.
    pub fn new(state: TunnelState, peer: impl Into<String>) -> Self {
        Self {
            state,
            peer: peer.into(),
            round_trip_time: None,
            live_streams: 0,
            bytes_sent: 0,
            bytes_received: 0,
            credential: None,
        }
    }
}

/// What a tunnel is doing.
///
/// ```text
///          open                 dialled
///  Idle ─────────► Connecting ─────────► Connected
///                   ▲      │                 │ lost
///                   │      │ failed          ▼
///                   └─── Waiting ◄───────────┘
///  any ── shutdown ──► Draining ── last stream ended, or limit ──► Closed
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum TunnelState {
    /// Nothing has been asked of it yet.
    Idle,
    /// Dialling; `attempt` counts from 1 since the last success.
    Connecting {
        /// The number of this attempt.
        attempt: u32,
    },
    /// Streams can be opened.
    Connected,
    /// The last dial failed, or the connection was lost; dials again by itself after `retry_in`.
    Waiting {
        /// How long until the next dial.
        retry_in: Duration,
        /// Why.
        reason: Arc<Error>,
    },
    /// Shutting down: takes no new streams, waits for the live ones to end.
    Draining,
    /// Shut down for good.
    Closed,
}

/// Changes of a tunnel's state, the present one first. Ends after [`TunnelState::Closed`].
pub struct StateStream(Pin<Box<dyn Stream<Item = TunnelState> + Send>>);

impl StateStream {
    /// Wraps any stream of states, for a [`Tunnel`](super::Tunnel) outside this crate.
    pub fn new(states: impl Stream<Item = TunnelState> + Send + 'static) -> Self {
        Self(Box::pin(states))
    }
}

impl Stream for StateStream {
    type Item = TunnelState;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<TunnelState>> {
        self.0.as_mut().poll_next(cx)
    }
}

impl fmt::Debug for StateStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateStream").finish_non_exhaustive()
    }
}
