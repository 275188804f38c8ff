//! [`ResourcePath`]: what an API path names.

use super::resource::{self, ResourceKind};

/// A path below `/api/v1` or `/apis/<group>/<version>`, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ResourcePath {
    pub(super) resource: &'static ResourceKind,
    /// Empty for cluster-scoped kinds, and for a list over all namespaces.
    pub(super) namespace: String,
    pub(super) name: Option<String>,
    pub(super) subresource: Option<String>,
}

impl ResourcePath {
    pub(super) fn parse(path: &str) -> Option<Self> {
        let mut segments = path.trim_matches('/').split('/');
        let (group, version) = match segments.next()? {
            "api" => ("", segments.next()?),
            "apis" => (segments.next()?, segments.next()?),
            _ => return None,
        };
        let rest: Vec<&str> = segments.collect();
        if rest.iter().any(|segment| segment.is_empty()) {
            return None;
        }
        // `namespaces/<name>` is the namespace itself; one segment more and it is a namespace's content.
        let (namespace, rest) = match rest.as_slice() {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
            rest => ("", rest),
        };
        let (plural, name, subresource) = match rest {
            [plural] => (plural, None, None),
            [plural, name] => (plural, Some(name), None),
            [plural, name, subresource] => (plural, Some(name), Some(subresource)),
            _ => return None,
        };
        let resource = resource::find(group, version, plural)?;
        let needs_namespace = resource.is_namespaced() && name.is_some();
        if (needs_namespace && namespace.is_empty())
            || (!resource.is_namespaced() && !namespace.is_empty())
        {
            return None;
        }
        Some(Self {
            resource,
            namespace: namespace.to_owned(),
            name: name.map(|name| (*name).to_owned()),
            subresource: subresource.map(|subresource| (*subresource).to_owned()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(path: &str) -> Option<(&'static str, String, Option<String>, Option<String>)> {
        let path = ResourcePath::parse(path)?;
        Some((
            path.resource.plural,
            path.namespace,
            path.name,
            path.subresource,
        ))
    }

    #[test]
    fn paths_are_taken_apart() {
        let owned = |text: &str| Some(text.to_owned());
        assert_eq!(
            parts("/api/v1/pods"),
            Some(("pods", String::new(), None, None))
        );
        assert_eq!(
            parts("/api/v1/namespaces/default"),
            Some(("namespaces", String::new(), owned("default"), None))
        );
        assert_eq!(
            parts("/api/v1/namespaces/default/pods/web/exec"),
            Some(("pods", "default".to_owned(), owned("web"), owned("exec")))
        );
        assert_eq!(
            parts("/apis/apps/v1/namespaces/default/deployments"),
            Some(("deployments", "default".to_owned(), None, None))
        );
    }

    #[test]
    fn paths_that_name_nothing_are_refused() {
        for path in [
            "/",
            "/api/v1",
            "/api/v1/pods/web",
            "/api/v1/namespaces//pods",
            "/api/v1/namespaces/default/unknowns",
            "/api/v1/namespaces/default/pods/a/b/c",
            "/apis/apps/v1/pods",
        ] {
            assert_eq!(parts(path), None, "{path}");
        }
    }
}
