//! [`ListenerOptions`]: how a listener listens.

use std::time::Duration;

use super::handshake::TokenPlace;

/// How a [`RelayListener`](super::RelayListener) listens, where the usual way does not do.
///
/// ```
/// use std::time::Duration;
///
/// use arc_cluster_connect::relay::ListenerOptions;
///
/// let options = ListenerOptions::new()
///     .redundant()
///     .patience(Duration::from_secs(600));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct ListenerOptions {
    pub(super) channels: usize,
    pub(super) patience: Duration,
    pub(super) token_place: TokenPlace,
}

impl ListenerOptions {
    /// One control channel, two minutes of patience, the token in a header.
    pub fn new() -> Self {
        Self {
            channels: 1,
            patience: DEFAULT_PATIENCE,
            token_place: TokenPlace::Header,
        }
    }

    /// Two control channels at all times: even one that the relay cuts without warning leaves the other, and no sender
    /// finds nobody.
    ///
    /// Azure counts, and bills, each control channel as a listener, and admits 25 to a hybrid connection. Without this
    /// only an unexpected cut makes a gap of some hundred milliseconds: the daily one is forestalled.
    pub fn redundant(mut self) -> Self {
        self.channels = 2;
        self
    }

    /// How long the hybrid connection may not exist, at the start or later, before that counts as an answer; two minutes
    /// if not given.
    ///
    /// One that was just made is there after 30 to 90 seconds, and one that is made anew is gone for a while. Until
    /// this time is over a 404 is a failure that passes: the listener asks again as after any other, and
    /// [`online`](super::RelayListener::online) waits. With zero the first 404 is told.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Shows the token in the query of the request (`sb-hc-token`) and not in a header, for a way to the relay that
    /// lets no unknown header through. Whoever logs request lines there logs the token.
    pub fn token_in_query(mut self) -> Self {
        self.token_place = TokenPlace::Query;
        self
    }
}

impl Default for ListenerOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// A new hybrid connection of Arc was seen to appear after 30 to 90 s.
const DEFAULT_PATIENCE: Duration = Duration::from_secs(120);
