//! What a listener is doing.

use std::{
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
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

/// The states of a listener's control channels, of which the listener shows one: it is online while any of them is.
#[derive(Debug)]
pub(super) struct StateBoard {
    channels: Mutex<Vec<ListenerState>>,
    shown: watch::Sender<ListenerState>,
}

impl StateBoard {
    /// A board for so many channels, all of which are connecting.
    pub(super) fn new(channels: usize) -> Self {
        Self {
            channels: Mutex::new(vec![ListenerState::Connecting; channels]),
            shown: watch::Sender::new(ListenerState::Connecting),
        }
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<ListenerState> {
        self.shown.subscribe()
    }

    /// Writes down the state of one channel.
    pub(super) fn set(&self, channel: usize, state: ListenerState) {
        // The list is whole between any two statements, so a panic elsewhere can not have broken it.
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = channels.get_mut(channel) {
            *own = state.clone();
        }
        let is_online = |state: &ListenerState| matches!(state, ListenerState::Online);
        let state = match channels.iter().any(is_online) {
            true => ListenerState::Online,
            false => state,
        };
        // Under the lock, so that what is shown is never older than what is written.
        self.shown.send_if_modified(|shown| {
            let is_news = !(is_online(shown) && is_online(&state));
            *shown = state;
            is_news
        });
    }
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
