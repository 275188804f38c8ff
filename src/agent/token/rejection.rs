//! Why a token does not become an identity.

use std::borrow::Cow;

use crate::{
    Error, ErrorKind,
    agent::identity::{AuthenticationError, RejectReason},
};

/// Cloned to everybody who waited for the same check.
#[derive(Clone, Debug)]
pub(super) enum Failure {
    /// The token will never do.
    Rejected(Rejection),
    /// It can not be told at the moment.
    Unavailable(Outage),
}

/// A refusal: a reason out of a closed set, which is what the caller learns, and a detail for the agent's log. The
/// detail is fixed text or names a claim, and holds no value of the token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rejection {
    reason: RejectReason,
    detail: Cow<'static, str>,
}

/// Something that is needed for an answer is out of reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outage {
    kind: ErrorKind,
    message: String,
    help: &'static str,
}

impl Rejection {
    pub(super) fn new(reason: RejectReason, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            reason,
            detail: detail.into(),
        }
    }

    #[cfg(test)]
    pub(super) fn reason(&self) -> RejectReason {
        self.reason
    }
}

impl Outage {
    /// `help` is for the agent's operator.
    pub(super) fn new(kind: ErrorKind, message: impl Into<String>, help: &'static str) -> Self {
        Self {
            kind,
            message: message.into(),
            help,
        }
    }
}

impl From<Rejection> for Failure {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

impl From<Outage> for Failure {
    fn from(outage: Outage) -> Self {
        Self::Unavailable(outage)
    }
}

impl From<Failure> for AuthenticationError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Rejected(Rejection { reason, detail }) => {
                Self::rejected_because(reason, Error::new(ErrorKind::Unauthorized, detail))
            }
            Failure::Unavailable(outage) => {
                Self::unavailable(Error::new(outage.kind, outage.message).with_help(outage.help))
            }
        }
    }
}
