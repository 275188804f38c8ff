//! [`TunnelId`]: which tunnel connection a request came through.

use std::fmt;

use crate::crypto;

/// Tells one tunnel connection of an agent from every other.
///
/// A random number of 128 bits, made when the connection begins. It is never sent anywhere, and says nothing of the
/// caller: a caller who comes back over a new connection comes with another one. Good for what must not move from one
/// connection to another, such as a proof of possession that a client shows with each of its requests.
///
/// ```
/// use arc_cluster_connect::agent::TunnelId;
///
/// assert_ne!(TunnelId::generate(), TunnelId::generate());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TunnelId([u8; 16]);

impl TunnelId {
    /// That of a new connection.
    pub fn generate() -> Self {
        Self(crypto::random())
    }
}

impl fmt::Debug for TunnelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Its worth is that nobody else knows it.
        f.write_str("TunnelId")
    }
}
