//! [`ResourcePath`]: what a path of the Kubernetes API is about.

/// A path of the API, taken apart as the API server does it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ResourcePath<'a> {
    /// The API group; empty for the core group.
    pub group: &'a str,
    /// The version, such as `v1`.
    pub version: &'a str,
    /// The namespace, when the resource is in one.
    pub namespace: Option<&'a str>,
    /// The kind of object in plural, such as `pods`.
    pub resource: &'a str,
    /// The object; without one, all of them.
    pub name: Option<&'a str>,
    /// A part of the object, such as `exec`. Everything after the second part (`proxy/…`) is not in it.
    pub subresource: Option<&'a str>,
}

/// A path that two servers may understand in two ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ambiguous;

impl<'a> ResourcePath<'a> {
    /// Takes a path apart; `None` for those that are about no resource (`/version`, `/api/v1`, `/healthz`).
    ///
    /// # Errors
    /// For empty and dot segments, and for any percent-escape within what names the resource: a judgement on such a
    /// path might be one on another path than the API server's.
    pub(super) fn of(path: &'a str) -> Result<Option<Self>, Ambiguous> {
        let mut segments: Vec<&str> = path
            .strip_prefix('/')
            .ok_or(Ambiguous)?
            .split('/')
            .collect();
        // One slash at the end means nothing to the API server.
        if segments.last() == Some(&"") {
            segments.pop();
        }
        if segments.iter().any(|segment| is_unclear(segment)) {
            return Err(Ambiguous);
        }
        let (group, rest) = match segments.as_slice() {
            ["api", rest @ ..] => ("", rest),
            ["apis", group, rest @ ..] => (*group, rest),
            _ => return plain(&segments).map(|()| None),
        };
        let [version, rest @ ..] = rest else {
            return plain(&segments).map(|()| None);
        };
        // Once `GET /api/v1/watch/pods` was how to watch, and `/api/v1/proxy/…` how to reach a pod.
        let rest = match rest {
            ["watch" | "proxy", rest @ ..] if !rest.is_empty() => rest,
            rest => rest,
        };
        let (namespace, rest) = match rest {
            // The namespace object itself, and its own two parts.
            ["namespaces", _] | ["namespaces", _, "status" | "finalize"] => (None, rest),
            ["namespaces", namespace, rest @ ..] => (Some(*namespace), rest),
            rest => (None, rest),
        };
        let [resource, rest @ ..] = rest else {
            return plain(&segments).map(|()| None);
        };
        let named = segments.len() - rest.len() + rest.len().min(2);
        plain(&segments[..named])?;
        Ok(Some(Self {
            group,
            version,
            namespace,
            resource,
            name: rest.first().copied(),
            subresource: rest.get(1).copied(),
        }))
    }
}

/// Empty, or one or two dots, also behind escapes: some servers resolve those, some do not.
fn is_unclear(segment: &str) -> bool {
    let dots = segment.to_ascii_lowercase().replace("%2e", ".");
    matches!(dots.as_str(), "" | "." | "..") && !segment.is_empty()
        || segment.is_empty()
        || dots.contains("%2f")
        || dots.contains("%5c")
        || dots.contains("%00")
}

/// Names of the API need no escapes.
fn plain(segments: &[&str]) -> Result<(), Ambiguous> {
    if segments.iter().any(|segment| segment.contains('%')) {
        return Err(Ambiguous);
    }
    Ok(())
}
