//! What a request is about, from its path and method, as the API server reads them.

use http::Method;
use percent_encoding::percent_decode_str;
use serde::Serialize;

use super::bounded;
use crate::agent::metrics::RequestKind;

/// What a request asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::agent) struct RequestInfo {
    /// `get`, `list`, `watch`, `create`, …; the method in lower case where the path names no resource.
    pub(in crate::agent) verb: String,
    pub(in crate::agent) object: Option<ObjectRef>,
    kind: RequestKind,
}

/// The object, or the kind of objects, that a request is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ObjectRef {
    /// The API group; empty for the core group.
    pub api_group: String,
    /// The version of the API group.
    pub api_version: String,
    /// The namespace, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The resource, in the plural: `pods`.
    pub resource: String,
    /// The subresource: `exec`, `log`, `status`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subresource: Option<String>,
    /// The object's name, where it is in the path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl RequestInfo {
    pub(in crate::agent) fn of(method: &Method, path: &str, query: Option<&str>) -> Self {
        // The API server splits the decoded path.
        let path = percent_decode_str(path).decode_utf8_lossy();
        let Some((object, special)) = ObjectRef::of(&path) else {
            return Self {
                verb: bounded(&method.as_str().to_ascii_lowercase()).to_owned(),
                ..Self::default()
            };
        };
        let watches = object.name.is_none() && flag(query, "watch");
        let verb = match (special, method) {
            (Some(special), _) => special,
            (None, &Method::POST) => "create",
            (None, &Method::PUT) => "update",
            (None, &Method::PATCH) => "patch",
            (None, &Method::DELETE) if object.name.is_none() => "deletecollection",
            (None, &Method::DELETE) => "delete",
            (None, &(Method::GET | Method::HEAD)) if watches => "watch",
            (None, &(Method::GET | Method::HEAD)) if object.name.is_none() => "list",
            (None, &(Method::GET | Method::HEAD)) => "get",
            (None, _) => "",
        };
        let follows = object.subresource.as_deref() == Some("log") && flag(query, "follow");
        Self {
            verb: verb.to_owned(),
            kind: if verb == "watch" || follows {
                RequestKind::Watch
            } else {
                RequestKind::Plain
            },
            object: Some(object),
        }
    }

    /// How long the request is meant to last, as long as it is not upgraded.
    pub(in crate::agent) fn kind(&self) -> RequestKind {
        self.kind
    }
}

impl ObjectRef {
    /// The object that `path` names, and the verb where the path itself has one (`/api/v1/watch/pods`).
    fn of(path: &str) -> Option<(Self, Option<&'static str>)> {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let (api_group, api_version, mut parts) = match parts.as_slice() {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return None,
        };
        let mut verb = None;
        if let ["watch", rest @ ..] = parts {
            (verb, parts) = (Some("watch"), rest);
        } else if let ["proxy", rest @ ..] = parts {
            (verb, parts) = (Some("proxy"), rest);
        }
        let mut namespace = None;
        if let ["namespaces", name, rest @ ..] = parts {
            namespace = Some(*name);
            // `status` and `finalize` are the namespace's own.
            if let [resource, ..] = rest
                && !matches!(*resource, "status" | "finalize")
            {
                parts = rest;
            }
        }
        let resource = parts.first().filter(|resource| !resource.is_empty())?;
        let text = |text: &&str| (!text.is_empty()).then(|| bounded(text).to_owned());
        let object = Self {
            api_group: bounded(api_group).to_owned(),
            api_version: bounded(api_version).to_owned(),
            namespace: namespace.as_ref().and_then(text),
            resource: bounded(resource).to_owned(),
            subresource: parts.get(2).and_then(text),
            name: parts.get(1).and_then(text),
        };
        Some((object, verb))
    }
}

/// Whether the query turns `name` on. A name without a value does; `0` and `false` do not.
fn flag(query: Option<&str>, name: &str) -> bool {
    query.unwrap_or_default().split('&').any(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        key == name && !matches!(value, "0" | "false" | "False" | "FALSE" | "f" | "F")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `verb group/version resource[/subresource] [namespace/]name`
    fn text(method: Method, target: &str) -> String {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let info = RequestInfo::of(&method, path, Some(query));
        let Some(object) = info.object else {
            return info.verb;
        };
        format!(
            "{} {}/{} {}:{} {}:{}",
            info.verb,
            object.api_group,
            object.api_version,
            object.resource,
            object.subresource.unwrap_or_default(),
            object.namespace.unwrap_or_default(),
            object.name.unwrap_or_default()
        )
    }

    #[test]
    fn paths_are_read_as_the_api_server_reads_them() {
        for (method, target, expected) in [
            (Method::GET, "/", "get"),
            (Method::GET, "/version", "get"),
            (Method::GET, "/api", "get"),
            (Method::GET, "/api/v1", "get"),
            (Method::GET, "/apis/apps/v1", "get"),
            (Method::OPTIONS, "/healthz", "options"),
            (Method::GET, "/api/v1/pods", "list /v1 pods: :"),
            (Method::GET, "/api/v1/pods?watch=1", "watch /v1 pods: :"),
            (Method::GET, "/api/v1/pods?watch", "watch /v1 pods: :"),
            (Method::GET, "/api/v1/pods?watch=false", "list /v1 pods: :"),
            (Method::GET, "/api/v1/watch/pods", "watch /v1 pods: :"),
            (Method::GET, "/api/v1/namespaces", "list /v1 namespaces: :"),
            (
                Method::GET,
                "/api/v1/namespaces/ns",
                "get /v1 namespaces: ns:ns",
            ),
            (
                Method::PUT,
                "/api/v1/namespaces/ns/finalize",
                "update /v1 namespaces:finalize ns:ns",
            ),
            (
                Method::GET,
                "/api/v1/namespaces/ns/pods/web-0/",
                "get /v1 pods: ns:web-0",
            ),
            (
                Method::GET,
                "/api/v1/namespaces/ns/pods/web-0?watch=1",
                "get /v1 pods: ns:web-0",
            ),
            (
                Method::POST,
                "/api/v1/namespaces/ns/pods/web-0/exec?command=secret",
                "create /v1 pods:exec ns:web-0",
            ),
            (
                Method::DELETE,
                "/apis/apps/v1/namespaces/ns/deployments",
                "deletecollection apps/v1 deployments: ns:",
            ),
            (
                Method::DELETE,
                "/apis/apps/v1/namespaces/ns/deployments/web",
                "delete apps/v1 deployments: ns:web",
            ),
            (
                Method::PATCH,
                "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Aadmin",
                "patch rbac.authorization.k8s.io/v1 clusterroles: :system:admin",
            ),
            (
                Method::GET,
                "/api/v1/nodes/node-1/proxy/run/ns/pod",
                "get /v1 nodes:proxy :node-1",
            ),
        ] {
            assert_eq!(text(method, target), expected, "{target}");
        }
    }

    #[test]
    fn watches_and_followed_logs_are_no_plain_requests() {
        for (target, expected) in [
            ("/api/v1/pods?watch=true", RequestKind::Watch),
            (
                "/api/v1/namespaces/n/pods/p/log?follow=true",
                RequestKind::Watch,
            ),
            ("/api/v1/namespaces/n/pods/p/log", RequestKind::Plain),
            ("/api/v1/pods?follow=true", RequestKind::Plain),
        ] {
            let (path, query) = target.split_once('?').unwrap_or((target, ""));
            let info = RequestInfo::of(&Method::GET, path, Some(query));
            assert_eq!(info.kind(), expected, "{target}");
        }
    }

    #[test]
    fn every_part_is_bounded() {
        let long = "é".repeat(4_000);
        let path = format!("/apis/{long}/{long}/namespaces/{long}/{long}/{long}/{long}");
        let object = RequestInfo::of(&Method::GET, &path, None)
            .object
            .expect("a resource");
        let json = serde_json::to_string(&object).expect("JSON");
        assert!(
            json.len() < 6 * super::super::MAX_TEXT + 200,
            "{}",
            json.len()
        );
    }
}
