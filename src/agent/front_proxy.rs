//! [`FrontProxyHeaders`]: by which headers this cluster's front proxy would say who is asking, as the cluster says itself.

use std::{
    convert::Infallible,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use http::StatusCode;
use serde::Deserialize;

use super::{
    Core,
    correlation::CorrelationId,
    identity::{Identity, IdentityRules},
    impersonation::UidHeader,
    question,
    request_headers::canonical,
};

/// Where the API server publishes its front-proxy settings, for extension API servers.
const PATH: &str = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
/// As whom the names are read. The agent has no rights of its own, and asks for nothing in its own name: whoever lets it
/// read the names binds the role `extension-apiserver-authentication-reader` to this user.
const READER: &str = "arc-cluster-connect:front-proxy-headers";
/// How often the names are read. They change with a flag of the API server, and so with its restart.
const REFRESH: Duration = Duration::from_secs(10 * 60);
/// The same while the API server gives no answer.
const RETRY: Duration = Duration::from_secs(30);
/// The same where the agent may not read them. Each time costs a line in the API server's audit log.
const RETRY_FORBIDDEN: Duration = Duration::from_secs(60 * 60);
/// How many names are taken over. An API server has a handful.
const MAX_NAMES: usize = 64;
/// The longest name in bytes.
const MAX_NAME: usize = 256;

/// The names that were read last; none before that, and none where the agent may not read them.
///
/// The agent shows the API server no front proxy's certificate, so that these headers mean nothing on its connections.
/// They are taken away for the day on which something between the two does.
#[derive(Clone, Debug, Default)]
pub(super) struct FrontProxyHeaders(Arc<RwLock<Names>>);

/// In lower case, with `-` for `_`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Names {
    whole: Vec<String>,
    prefixes: Vec<String>,
}

/// The part of the ConfigMap that matters. Each value is a JSON list of strings.
#[derive(Default, Deserialize)]
struct ConfigMap {
    #[serde(default)]
    data: Settings,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Settings {
    requestheader_username_headers: String,
    requestheader_uid_headers: String,
    requestheader_group_headers: String,
    requestheader_extra_headers_prefix: String,
}

impl FrontProxyHeaders {
    /// Whether a header of this canonical name would say who is asking.
    pub(super) fn contain(&self, canonical: &str) -> bool {
        let names = self.0.read().unwrap_or_else(PoisonError::into_inner);
        names.whole.iter().any(|name| name == canonical)
            || names
                .prefixes
                .iter()
                .any(|prefix| canonical.starts_with(prefix.as_str()))
    }

    fn set(&self, names: Names) {
        let mut current = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if *current != names {
            tracing::info!(
                ?names,
                "the cluster's front-proxy headers are taken out of callers' requests"
            );
            *current = names;
        }
    }
}

impl Names {
    fn parse(body: &[u8]) -> serde_json::Result<Self> {
        let Settings {
            requestheader_username_headers: username,
            requestheader_uid_headers: uid,
            requestheader_group_headers: group,
            requestheader_extra_headers_prefix: prefix,
        } = serde_json::from_slice::<ConfigMap>(body)?.data;
        let mut whole = Vec::new();
        for text in [username, uid, group] {
            whole.extend(list(&text)?);
        }
        let mut prefixes = list(&prefix)?;
        whole.truncate(MAX_NAMES);
        prefixes.truncate(MAX_NAMES);
        Ok(Self { whole, prefixes })
    }
}

impl Core {
    /// Reads the names again and again, if the agent has a credential to read them with.
    pub(super) async fn keep_front_proxy_headers(&self) -> Infallible {
        if self.agent_credential.is_none() {
            return std::future::pending().await;
        }
        loop {
            let pause = self.read_front_proxy_headers().await;
            tokio::time::sleep(pause).await;
        }
    }

    /// Reads the names once; the time after which to do so again. Whatever fails leaves them as they were.
    pub(super) async fn read_front_proxy_headers(&self) -> Duration {
        let reader = match Identity::builder(READER).build(&IdentityRules::default()) {
            Ok(reader) => Arc::new(reader),
            Err(error) => {
                tracing::error!(error = error.report(), "the reader has no valid name");
                return RETRY_FORBIDDEN;
            }
        };
        let correlation = CorrelationId::generate();
        let answer = question::ask(self, &reader, UidHeader::Omit, PATH, None, &correlation).await;
        let answer = match answer {
            Ok(answer) => answer,
            Err(refusal) => {
                tracing::debug!(?refusal, "the front-proxy headers can not be read now");
                return RETRY;
            }
        };
        match answer.status {
            StatusCode::OK => {}
            StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => {
                tracing::debug!(
                    status = answer.status.as_u16(),
                    user = READER,
                    "the agent may not read the front-proxy headers: those it knows are taken away"
                );
                return RETRY_FORBIDDEN;
            }
            status => {
                tracing::debug!(
                    status = status.as_u16(),
                    "the front-proxy headers can not be read now"
                );
                return RETRY;
            }
        }
        match Names::parse(&answer.body) {
            Ok(names) => self.header_policy.front_proxy().set(names),
            Err(error) => tracing::warn!(
                %error,
                "the front-proxy headers in extension-apiserver-authentication are malformed"
            ),
        }
        REFRESH
    }
}

/// The usable names of a list. One that no header can have needs no taking away, and a blank one would take away all.
fn list(text: &str) -> serde_json::Result<Vec<String>> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let names: Vec<String> = serde_json::from_str(text)?;
    Ok(names
        .iter()
        .map(|name| name.trim())
        .filter(|name| (1..=MAX_NAME).contains(&name.len()))
        .map(|name| canonical(name).into_owned())
        .collect())
}

#[cfg(test)]
mod tests;
