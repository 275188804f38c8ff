//! What a listener is doing.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_core::Stream;
use futures_util::stream;
use tokio::sync::watch;

use crate::Error;

/// What a [`RelayListener`](super::RelayListener) is doing.
///
/// ```text
///                  registered
///   Connecting ─────────────────► Online
///    ▲      │                        │
///    │      │ failed                 │ lost
///    │      ▼                        │
///    └── Waiting ◄───────────────────┘
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ListenerState {
    /// Dialling the relay.
    Connecting,
    /// Registered: senders reach this listener.
    Online,
    /// Not registered; dials again by itself.
    Waiting {
        /// How long until the next dial, counted from the beginning of this state.
        retry_in: Duration,
        /// Why.
        reason: Arc<Error>,
    },
}

/// Changes of a listener's state, the present one first. A state that was left again before it was looked at is
/// skipped. Ends when the listener is gone.
pub struct ListenerStates(Pin<Box<dyn Stream<Item = ListenerState> + Send>>);

impl ListenerStates {
    pub(super) fn new(mut states: watch::Receiver<ListenerState>) -> Self {
        states.mark_changed();
        Self(Box::pin(stream::unfold(states, async |mut states| {
            states.changed().await.ok()?;
            let state = states.borrow_and_update().clone();
            Some((state, states))
        })))
    }
}

impl Stream for ListenerStates {
    type Item = ListenerState;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<ListenerState>> {
        self.0.as_mut().poll_next(cx)
    }
}

impl fmt::Debug for ListenerStates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListenerStates").finish_non_exhaustive()
    }
}
