//! [`BridgePort`]: what a bridge listener forwards to.

use std::{fmt, sync::Arc};

use crate::{Error, ErrorKind, Result};

/// The longest name in bytes: its length is sent in one.
const MAX_NAME: usize = 255;

/// The name of a port of a bridge listener, as its operator gave it: the part before the `/` in
/// `-T RELAY:NAME/HOST:PORT`, or the port's number where none was given.
///
/// ```
/// use arc_cluster_connect::tunnel::BridgePort;
///
/// assert_eq!(BridgePort::new("kubernetes")?.name(), "kubernetes");
/// assert!(BridgePort::new("").is_err());
/// # Ok::<(), arc_cluster_connect::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct BridgePort(Arc<str>);

impl BridgePort {
    /// The port called `name`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] unless the name is 1 to 255 bytes of UTF-8 without control characters.
    pub fn new(name: &str) -> Result<Self> {
        if name.is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control) {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "the name of a bridge port is 1 to 255 bytes without control characters",
            )
            .with_help(
                "give the name that the listener was started with: -T RELAY:NAME/HOST:PORT",
            ));
        }
        Ok(Self(Arc::from(name)))
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for BridgePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BridgePort({})", self.0)
    }
}

impl fmt::Display for BridgePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_fits_its_length_byte() {
        assert!(BridgePort::new(&"x".repeat(255)).is_ok());
        assert!(BridgePort::new(&"x".repeat(256)).is_err());
        // In bytes, not in characters.
        assert!(BridgePort::new(&"ü".repeat(128)).is_err());
        assert!(BridgePort::new("two\nlines").is_err());
    }
}
