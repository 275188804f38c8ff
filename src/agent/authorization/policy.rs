//! [`RequestPolicy`]: an embedding program's own say in what passes.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use http::{Method, uri::PathAndQuery};

use super::ResourcePath;
use crate::agent::{identity::Identity, status::Refusal};

/// How long a policy may take to decide.
const DECISION_LIMIT: Duration = Duration::from_secs(10);
/// The longest reason that a caller is shown, in characters.
const MAX_REASON: usize = 500;

/// Decides on requests after the caller is known and before anything reaches the API server, which still decides by
/// its own rules what passes here.
///
/// ```
/// use arc_cluster_connect::agent::{Access, PolicyRequest, RequestPolicy, Verdict};
///
/// /// Nobody gets a shell.
/// struct NoShells;
///
/// #[async_trait::async_trait]
/// impl RequestPolicy for NoShells {
///     async fn decide(&self, request: &PolicyRequest<'_>) -> Verdict {
///         match request.access() {
///             Access::Interact => Verdict::Deny("sessions in pods are closed on this cluster".to_owned()),
///             _ => Verdict::Allow,
///         }
///     }
/// }
/// ```
#[async_trait]
pub trait RequestPolicy: Send + Sync {
    /// Whether `request` passes. No answer within 10 seconds is a no.
    async fn decide(&self, request: &PolicyRequest<'_>) -> Verdict;
}

/// What a policy says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The request goes on.
    Allow,
    /// The request is refused with 403. The caller is shown the reason.
    Deny(String),
}

/// What a policy sees of a request. Never a header, and so never a credential.
#[derive(Clone, Copy, Debug)]
pub struct PolicyRequest<'a> {
    caller: Option<&'a Identity>,
    acting_as: Option<&'a Identity>,
    method: &'a Method,
    target: &'a PathAndQuery,
    resource: Option<ResourcePath<'a>>,
}

/// What a request does, told by its path before its method: a shell is opened by a GET.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Access {
    /// Reads, and watches.
    Read,
    /// Creates, changes or deletes.
    Write,
    /// Reaches into a running workload or node: `exec`, `attach`, `portforward` and ephemeral containers of pods,
    /// `proxy` of pods, services and nodes. By any method.
    Interact,
}

impl<'a> PolicyRequest<'a> {
    /// Who asks; `None` when the API server is to find out, from the caller's own token.
    pub fn caller(&self) -> Option<&'a Identity> {
        self.caller
    }

    /// As whom the caller wants to act (`--as`), when that is somebody else.
    pub fn acting_as(&self) -> Option<&'a Identity> {
        self.acting_as
    }

    /// The method.
    pub fn method(&self) -> &'a Method {
        self.method
    }

    /// The path, byte for byte as it goes to the API server.
    pub fn path(&self) -> &'a str {
        self.target.path()
    }

    /// The query, byte for byte as it goes to the API server.
    pub fn query(&self) -> Option<&'a str> {
        self.target.query()
    }

    /// What the path is about; `None` when it is about no resource.
    pub fn resource(&self) -> Option<&ResourcePath<'a>> {
        self.resource.as_ref()
    }

    /// What the request does.
    pub fn access(&self) -> Access {
        if self.resource.is_some_and(|resource| interacts(&resource)) || is_old_proxy(self.path()) {
            Access::Interact
        } else if matches!(*self.method, Method::GET | Method::HEAD | Method::OPTIONS) {
            Access::Read
        } else {
            Access::Write
        }
    }
}

/// Asks the policy, if there is one.
///
/// # Errors
/// 403 when it says no, or nothing in time; 400 for a path that can be understood in two ways.
pub(in crate::agent) async fn check(
    policy: Option<&Arc<dyn RequestPolicy>>,
    caller: Option<&Identity>,
    acting_as: Option<&Identity>,
    method: &Method,
    target: &PathAndQuery,
) -> Result<(), Refusal> {
    let Some(policy) = policy else {
        return Ok(());
    };
    let resource = ResourcePath::of(target.path()).map_err(|_| {
        Refusal::malformed(
            "the request's path has empty or dot segments or escapes, so it could be judged as another one",
        )
    })?;
    let request = PolicyRequest {
        caller,
        acting_as,
        method,
        target,
        resource,
    };
    match tokio::time::timeout(DECISION_LIMIT, policy.decide(&request)).await {
        Ok(Verdict::Allow) => Ok(()),
        Ok(Verdict::Deny(reason)) => {
            let reason: String = reason.chars().take(MAX_REASON).collect();
            Err(Refusal::forbidden(
                format!("the agent's policy refuses the request: {reason}"),
                "ask the agent's operator",
            ))
        }
        Err(_) => {
            tracing::warn!("the policy did not decide in time");
            Err(Refusal::forbidden(
                "the agent's policy did not decide on the request in time",
                "try again; if it happens again, ask the agent's operator",
            ))
        }
    }
}

fn interacts(resource: &ResourcePath<'_>) -> bool {
    resource.group.is_empty()
        && matches!(
            (resource.resource, resource.subresource),
            (
                "pods",
                Some("exec" | "attach" | "portforward" | "proxy" | "ephemeralcontainers")
            ) | ("services" | "nodes", Some("proxy"))
        )
}

/// `/api/v1/proxy/…`, which old API servers serve.
fn is_old_proxy(path: &str) -> bool {
    let mut segments = path.split('/').skip(1);
    segments.next() == Some("api") && segments.nth(1) == Some("proxy")
}

#[cfg(test)]
mod tests;
