//! Why a token is refused, in words that help its owner and nobody else.

use std::borrow::Cow;

use super::super::identity::{AuthenticationError, RejectReason};
use crate::Error;

/// Why a token does not become an identity.
#[derive(Debug)]
pub(super) enum Failure {
    /// The token will never do.
    Rejected(Rejection),
    /// It can not be said at the moment.
    Unavailable(Error),
}

/// A refusal: a reason out of a closed set, and a text for the caller. The text names no key, no expected value and
/// no value of the token: whoever holds the token can read it, and whoever forges one learns nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rejection {
    pub(super) reason: Reason,
    pub(super) text: Cow<'static, str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    Malformed,
    Algorithm,
    Signature,
    UnknownKey,
    Expired,
    NotYetValid,
    Audience,
    Tenant,
    Claims,
    ProofOfPossession,
    Replayed,
    Groups,
}

impl Rejection {
    pub(super) fn new(reason: Reason, text: impl Into<Cow<'static, str>>) -> Self {
        Self {
            reason,
            text: text.into(),
        }
    }
}

impl From<Rejection> for Failure {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}
