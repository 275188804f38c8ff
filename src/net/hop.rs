//! [`Hop`]: the party that an error is about.

use std::fmt;

use super::Endpoint;

/// A party on the way, as errors name it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Hop<'a> {
    /// Whom the caller asked for, dialled straight.
    Target(&'a Endpoint),
    /// A corporate proxy.
    Proxy(&'a Endpoint),
    /// Whom the caller asked for, by way of a proxy.
    Through {
        target: &'a Endpoint,
        proxy: &'a Endpoint,
    },
}

impl fmt::Display for Hop<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Target(endpoint) => endpoint.fmt(f),
            Self::Proxy(endpoint) => write!(f, "the proxy {endpoint}"),
            Self::Through { target, proxy } => write!(f, "{target} through the proxy {proxy}"),
        }
    }
}
