//! [`EntityOptions`]: what one hybrid connection takes, where it differs from the others.

/// What one hybrid connection of a [`RelayServer`](super::RelayServer) takes. As Azure has it when it is made there:
/// senders show a token, and HTTP requests are taken beside WebSockets.
///
/// ```
/// use arc_cluster_connect::relay::server::{EntityOptions, RelayServer};
///
/// let builder = RelayServer::builder()
///     .hybrid_connection("clusters/east")
///     .hybrid_connection_with("webhooks", EntityOptions::new().anonymous_senders());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct EntityOptions {
    senders: Senders,
    http: HttpRequests,
}

/// Who may be a sender.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Senders {
    #[default]
    WithToken,
    Anybody,
}

/// Whether plain HTTP requests are passed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum HttpRequests {
    #[default]
    Taken,
    Refused,
}

impl EntityOptions {
    /// As Azure has it.
    pub fn new() -> Self {
        Self::default()
    }

    /// Senders need no token, and one that they show is not looked at: Azure's `requiresClientAuthorization=false`.
    /// Whatever is behind the listener has to know its callers by itself. Listeners need a token all the same.
    pub fn anonymous_senders(mut self) -> Self {
        self.senders = Senders::Anybody;
        self
    }

    /// Takes WebSockets only: an HTTP request is answered with 404.
    pub fn websockets_only(mut self) -> Self {
        self.http = HttpRequests::Refused;
        self
    }

    pub(super) fn are_senders_anonymous(self) -> bool {
        self.senders == Senders::Anybody
    }

    pub(super) fn takes_http(self) -> bool {
        self.http == HttpRequests::Taken
    }
}
