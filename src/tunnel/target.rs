//! What a stream is opened to, and how.

use std::{fmt, sync::Arc, time::Duration};

use super::mux::{Priority, Weight};
use crate::{Error, ErrorKind, Result};

/// The longest target name in bytes. It rides in the OPEN frame, whose metadata is at most 1 KiB.
const MAX_TARGET_NAME: usize = 255;

/// The name of something that the far end of a tunnel can connect a stream to.
///
/// ```
/// use arc_cluster_connect::tunnel::Target;
///
/// assert_eq!(Target::api_server().as_str(), "kubernetes-api");
/// assert!(Target::new("").is_err());
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Target(Arc<str>);

impl Target {
    /// The cluster's API server: HTTP/1.1, behind the agent's identity checks.
    pub fn api_server() -> Self {
        Self(Arc::from("kubernetes-api"))
    }

    /// A target of a given name.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] unless the name is 1 to 255 bytes of visible ASCII.
    pub fn new(name: &str) -> Result<Self> {
        let visible = name.bytes().all(|byte| byte.is_ascii_graphic());
        if name.is_empty() || name.len() > MAX_TARGET_NAME || !visible {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "a target name is 1 to 255 characters of visible ASCII",
            ));
        }
        Ok(Self(Arc::from(name)))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({})", self.0)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a stream is opened. The default suits everything.
///
/// ```
/// use std::time::Duration;
///
/// use arc_cluster_connect::tunnel::{OpenOptions, mux::Priority};
///
/// // A backup that nobody waits for.
/// let options = OpenOptions::new().with_wait_limit(Duration::from_secs(60)).with_priority(Priority::Background);
/// assert_eq!(options.priority(), Priority::Background);
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct OpenOptions {
    wait_limit: Option<Duration>,
    priority: Priority,
    weight: Weight,
}

impl OpenOptions {
    /// The default options.
    pub fn new() -> Self {
        Self::default()
    }

    /// Limits how long the opening may wait for a connection, and for the peer to allow one more stream.
    ///
    /// Without it, a tunnel applies a limit of its own.
    #[must_use]
    pub fn with_wait_limit(mut self, limit: Duration) -> Self {
        self.wait_limit = Some(limit);
        self
    }

    /// Whose bytes leave this side first where several streams have some; [`Priority::Normal`] unless this is called.
    ///
    /// Honoured by the tunnels that carry many streams over one connection.
    #[must_use]
    pub fn with_priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// The stream's share beside streams of the same priority, sent and received; 1 unless this is called.
    ///
    /// Honoured by the tunnels that carry many streams over one connection.
    #[must_use]
    pub fn with_weight(mut self, weight: Weight) -> Self {
        self.weight = weight;
        self
    }

    /// How long the opening may wait, when the caller said so.
    pub fn wait_limit(&self) -> Option<Duration> {
        self.wait_limit
    }

    /// Whose bytes leave first.
    pub fn priority(&self) -> Priority {
        self.priority
    }

    /// The stream's share beside its equals.
    pub fn weight(&self) -> Weight {
        self.weight
    }
}
