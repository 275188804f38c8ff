//! The one public error of the crate.

use std::{borrow::Cow, error::Error as StdError, fmt, sync::Arc};

/// What a fallible operation of this crate returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong, as one opaque type.
///
/// The type is one word wide. What failed is told by [`Error::kind`] and the predicates; *what to do next* by
/// [`Error::help`]. [`fmt::Display`] shows one level only, the causes follow through
/// [`source`](StdError::source). The texts are for people: their wording is not part of the contract.
///
/// No secret ever becomes part of an error: see [`AccessToken`](crate::auth::AccessToken) and
/// [`RelayCredential`](crate::relay::RelayCredential), which do not print theirs.
///
/// ```
/// use arc_cluster_connect::{Error, ErrorKind};
///
/// let error = Error::new(ErrorKind::InvalidInput, "the cluster name is empty")
///     .with_help("pass the name with --name");
/// assert_eq!(error.kind(), ErrorKind::InvalidInput);
/// assert_eq!(error.to_string(), "the cluster name is empty");
/// assert_eq!(error.help(), Some("pass the name with --name"));
/// assert!(!error.is_retryable());
/// ```
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: Cow<'static, str>,
    help: Option<Cow<'static, str>>,
    status: Option<u16>,
    tracking_id: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// The category of an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The caller gave something that can not work: a malformed connection string, an unreadable file.
    InvalidInput,
    /// A name did not resolve, a connection was refused or broke.
    Network,
    /// The peer's certificate or the TLS handshake was not acceptable.
    Tls,
    /// Something took longer than its limit.
    Timeout,
    /// A credential was refused: it is wrong, expired, or lacks a right.
    Unauthorized,
    /// The thing that was asked for does not exist, or nobody serves it at the moment.
    NotFound,
    /// The peer understood and said no.
    Refused,
    /// The peer broke the protocol.
    Protocol,
    /// A named limit of this crate, or of the peer, was reached.
    LimitReached,
    /// The connection, stream or object was closed before, or during, the operation.
    Closed,
    /// A file could not be read, written or locked.
    File,
    /// None of the above.
    Other,
}

impl Error {
    /// An error with a text that says what failed, and where.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            help: None,
            status: None,
            tracking_id: None,
            source: None,
        }))
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Adds what the user should do next.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<Cow<'static, str>>) -> Self {
        self.0.help = Some(help.into());
        self
    }

    /// Adds the HTTP status with which a peer refused.
    #[must_use]
    pub fn with_status(mut self, status: u16) -> Self {
        self.0.status = Some(status);
        self
    }

    /// Adds the id under which the peer's operator finds the failure in their logs.
    #[must_use]
    pub fn with_tracking_id(mut self, tracking_id: impl Into<String>) -> Self {
        self.0.tracking_id = Some(tracking_id.into());
        self
    }

    /// The category.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What the user should do next, when that is known.
    pub fn help(&self) -> Option<&str> {
        self.0.help.as_deref()
    }

    /// The HTTP status with which a peer refused.
    pub fn status(&self) -> Option<u16> {
        self.0.status
    }

    /// The `TrackingId` under which Azure Relay logged the failure.
    pub fn tracking_id(&self) -> Option<&str> {
        self.0.tracking_id.as_deref()
    }

    /// Whether the same call may succeed later with nothing changed by the caller.
    ///
    /// [`ErrorKind::NotFound`] counts only when a peer answered with a status: "no listener at the moment" passes,
    /// a file that does not exist stays away.
    pub fn is_retryable(&self) -> bool {
        match self.0.kind {
            ErrorKind::Network | ErrorKind::Timeout | ErrorKind::Closed => true,
            ErrorKind::NotFound | ErrorKind::Refused | ErrorKind::LimitReached => {
                matches!(self.0.status, Some(404 | 408 | 429 | 500 | 502 | 503 | 504))
            }
            _ => false,
        }
    }

    /// Whether a credential was refused.
    pub fn is_unauthorized(&self) -> bool {
        self.0.kind == ErrorKind::Unauthorized
    }

    /// Whether a limit of time was reached.
    pub fn is_timeout(&self) -> bool {
        self.0.kind == ErrorKind::Timeout
    }

    /// Whether the object was closed.
    pub fn is_closed(&self) -> bool {
        self.0.kind == ErrorKind::Closed
    }

    /// An error that several wait for, for one of them: `message` with `error` as its cause, and all that `error` has to
    /// say beside its own message.
    pub(crate) fn repeated(error: &Arc<Self>, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            kind: error.0.kind,
            message: message.into(),
            help: error.0.help.clone(),
            status: error.0.status,
            tracking_id: error.0.tracking_id.clone(),
            source: Some(Arc::clone(error).into()),
        }))
    }

    /// The message and all causes on one line, for a log or a `Status` body.
    pub fn report(&self) -> String {
        let mut text = self.0.message.to_string();
        let mut next = self.source();
        while let Some(cause) = next {
            let cause_text = cause.to_string();
            // Wrappers such as `io::Error` repeat their cause's text.
            if !text.ends_with(&cause_text) {
                text.push_str(": ");
                text.push_str(&cause_text);
            }
            next = cause.source();
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Error");
        debug
            .field("kind", &self.0.kind)
            .field("message", &self.0.message);
        if let Some(help) = &self.0.help {
            debug.field("help", help);
        }
        if let Some(status) = self.0.status {
            debug.field("status", &status);
        }
        if let Some(tracking_id) = &self.0.tracking_id {
            debug.field("tracking_id", tracking_id);
        }
        if let Some(source) = &self.0.source {
            debug.field("source", source);
        }
        debug.finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0
            .source
            .as_deref()
            .map(|source| source as &(dyn StdError + 'static))
    }
}

impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        let kind = match error.kind() {
            ErrorKind::InvalidInput => std::io::ErrorKind::InvalidInput,
            ErrorKind::Timeout => std::io::ErrorKind::TimedOut,
            ErrorKind::Unauthorized => std::io::ErrorKind::PermissionDenied,
            ErrorKind::NotFound => std::io::ErrorKind::NotFound,
            ErrorKind::Refused => std::io::ErrorKind::ConnectionRefused,
            ErrorKind::Protocol => std::io::ErrorKind::InvalidData,
            ErrorKind::Closed => std::io::ErrorKind::ConnectionReset,
            _ => std::io::ErrorKind::Other,
        };
        std::io::Error::new(kind, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_word() {
        assert_eq!(size_of::<Error>(), size_of::<usize>());
        assert_eq!(size_of::<Result<()>>(), size_of::<usize>());
    }

    #[test]
    fn the_report_names_every_cause_once() {
        let root = std::io::Error::other("connection refused");
        let inner = Error::new(ErrorKind::Network, "can not reach relay:443").with_source(root);
        let outer = Error::new(ErrorKind::Network, "no tunnel").with_source(inner);
        assert_eq!(
            outer.report(),
            "no tunnel: can not reach relay:443: connection refused"
        );
    }

    #[test]
    fn not_found_is_retryable_only_as_a_peers_answer() {
        let file = Error::new(ErrorKind::NotFound, "no such file");
        assert!(!file.is_retryable());
        let relay = Error::new(ErrorKind::NotFound, "no listener").with_status(404);
        assert!(relay.is_retryable());
    }
}
