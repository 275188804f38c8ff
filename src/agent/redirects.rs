//! [`RedirectPolicy`]: what becomes of a redirect that the API server answers with.

use http::StatusCode;

use super::status::Refusal;

/// What becomes of a redirect. The agent never follows one, whatever is set here.
///
/// API servers send few: for a path without its last slash, and whatever a workload behind `…/proxy` answers. Such a
/// workload, or an aggregated API server that somebody has taken over, can send a client with its credentials elsewhere
/// (CVE-2018-1002102, CVE-2022-3172).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum RedirectPolicy {
    /// The caller gets it as it is, and decides. In answer to a request for a change of protocol it is refused.
    #[default]
    PassOn,
    /// The caller gets a 502 that says so, and not the place where it leads.
    Refuse,
}

impl RedirectPolicy {
    /// # Errors
    /// 502 for a redirect that is not to pass. `304 Not Modified` is none.
    pub(super) fn check(self, status: StatusCode) -> Result<(), Refusal> {
        let is_redirect = status.is_redirection() && status != StatusCode::NOT_MODIFIED;
        match self {
            Self::Refuse if is_redirect => Err(Refusal::upstream_misbehaved(format!(
                "the API server answered with a redirect ({}), and this agent lets none pass",
                status.as_u16()
            ))),
            Self::PassOn | Self::Refuse => Ok(()),
        }
    }
}
