//! [`Lanes`]: the two ways to the one API server.

use super::{
    request_headers::{Lane, SealedHeaders},
    upstream::Upstream,
};
use crate::Result;

/// Requests under callers' own tokens and requests of the agent for callers go over connections of their own, so that
/// nothing that is tied to a connection can turn one into the other.
pub(super) struct Lanes {
    pass_through: Upstream,
    impersonation: Upstream,
}

impl Lanes {
    pub(super) fn new(pass_through: Upstream, impersonation: Upstream) -> Self {
        Self {
            pass_through,
            impersonation,
        }
    }

    /// The way for a request: its headers say which.
    pub(super) fn of(&self, headers: &SealedHeaders) -> &Upstream {
        match headers.lane() {
            Lane::PassThrough => &self.pass_through,
            Lane::Impersonation => &self.impersonation,
        }
    }

    /// Connects once, for nothing but to see that it can be done.
    pub(super) async fn check(&self) -> Result<()> {
        self.pass_through.check().await
    }
}
