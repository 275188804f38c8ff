//! [`UidRight`]: whether the agent may send `Impersonate-Uid`.

use std::sync::Arc;

use serde::Deserialize;
use tokio::sync::OnceCell;

use super::{
    Core, correlation::CorrelationId, identity::Identity, impersonation::UidHeader, question,
    status::Refusal,
};

/// Something that every authenticated user may read, so that a refusal is one of the impersonation.
const PATH: &str = "/version";

/// Whether the agent's service account has the right to impersonate uids. An API server refuses whole requests where
/// it is missing.
///
/// A `SelfSubjectAccessReview` would tell, but it would be a request under the agent's credential alone, and there is
/// no such request. Instead the first identity with a uid is tried out, on a request that changes nothing.
#[derive(Default)]
pub(super) struct UidRight(OnceCell<UidHeader>);

impl UidRight {
    /// What to do with the uid of `identity`.
    ///
    /// # Errors
    /// When the API server does not answer. It is asked again by the next request.
    pub(super) async fn header(
        &self,
        core: &Core,
        identity: &Arc<Identity>,
        correlation: &CorrelationId,
    ) -> Result<UidHeader, Refusal> {
        if identity.uid().is_none() {
            return Ok(UidHeader::Omit);
        }
        self.0
            .get_or_try_init(async || {
                let answer =
                    question::ask(core, identity, UidHeader::Send, PATH, None, correlation).await?;
                if answer.status.as_u16() == 403 && is_about_uids(&answer.body) {
                    tracing::info!(
                        "the agent may not impersonate uids, so callers' uids are not passed on"
                    );
                    return Ok(UidHeader::Omit);
                }
                Ok(UidHeader::Send)
            })
            .await
            .copied()
    }
}

fn is_about_uids(body: &[u8]) -> bool {
    #[derive(Default, Deserialize)]
    struct Status {
        #[serde(default)]
        message: String,
        #[serde(default)]
        details: Option<Details>,
    }
    #[derive(Deserialize)]
    struct Details {
        #[serde(default)]
        kind: String,
    }
    let status: Status = serde_json::from_slice(body).unwrap_or_default();
    status.details.is_some_and(|details| details.kind == "uids")
        || status.message.contains("impersonate resource \"uids\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_of_uids_is_told_from_others() {
        assert!(is_about_uids(br#"{"details":{"kind":"uids"}}"#));
        assert!(is_about_uids(
            br#"{"message":"uids \"1\" is forbidden: User \"agent\" cannot impersonate resource \"uids\" in API group \"\""}"#
        ));
        for body in [
            &b""[..],
            b"no json",
            b"{}",
            br#"{"message":"users \"uids\" is forbidden: cannot impersonate resource \"users\"","details":{"kind":"users"}}"#,
        ] {
            assert!(!is_about_uids(body), "{}", String::from_utf8_lossy(body));
        }
    }
}
