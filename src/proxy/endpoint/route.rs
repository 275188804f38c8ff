//! [`Route`]: which cluster a path is for, and what of it the cluster sees.

use http::{Uri, uri::PathAndQuery};

use super::status::{Failure, Reason};
use crate::proxy::ProxyId;

pub(super) const PREFIX: &str = "/proxies/";

/// The path under which the cluster `id` is served, without a slash at the end.
pub(in crate::proxy) fn base_path(id: &ProxyId) -> String {
    format!("{PREFIX}{id}")
}

/// A request target taken apart.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) id: ProxyId,
    /// The rest, byte for byte as the client wrote it: `%2F`, `//`, `..` and odd queries mean something to the API
    /// server, or to nobody, and a round trip through a decoder would change which.
    pub(super) target: PathAndQuery,
}

impl Route {
    pub(super) fn of(uri: &Uri) -> Result<Self, Failure> {
        uri.path_and_query()
            .and_then(|whole| split(whole.as_str()))
            .ok_or_else(|| {
                Failure::new(
                    Reason::NotFound,
                    "the path at the local proxy does not begin with /proxies/<id of a cluster>; use the server \
                     address of the kubeconfig that the proxy wrote (`kubectl get --raw` leaves its path out: give \
                     it the whole one)",
                )
            })
    }
}

fn split(whole: &str) -> Option<Route> {
    let rest = whole.strip_prefix(PREFIX)?;
    let (id, rest) = rest.split_at_checked(ProxyId::HEX_DIGITS)?;
    let target = match rest.as_bytes().first() {
        Some(b'/') => rest.parse().ok()?,
        // The base path itself is the API server's root.
        None | Some(b'?') => format!("/{rest}").parse().ok()?,
        Some(_) => return None,
    };
    Some(Route {
        id: id.parse().ok()?,
        target,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn target(rest: &str) -> Option<String> {
        let id = ProxyId::from_name("edge");
        let uri: Uri = format!("{}{rest}", base_path(&id)).parse().ok()?;
        let route = Route::of(&uri).ok()?;
        assert_eq!(route.id, id);
        Some(route.target.as_str().to_owned())
    }

    #[test]
    fn the_rest_is_untouched() {
        for rest in [
            "/",
            "/api/v1/pods",
            "/api/v1/pods/",
            "/api/v1/namespaces/a%2Fb/pods",
            "/api//v1",
            "//evil.example/x",
            "/a/../b/./c",
            "/x?&&watch=true",
            "/x?",
            "/x?a=b?c=%zz&&",
            "/api/v1/proxy/proxies/x",
            "/x?labelSelector=a%3Db,c!=d&fieldSelector=x%20y",
        ] {
            assert_eq!(target(rest).as_deref(), Some(rest));
        }
    }

    #[test]
    fn the_base_path_is_the_root() {
        assert_eq!(target("").as_deref(), Some("/"));
        assert_eq!(target("?watch=1").as_deref(), Some("/?watch=1"));
    }

    #[test]
    fn the_id_is_a_whole_segment() {
        let id = ProxyId::from_name("edge").to_string();
        for path in [
            "/".to_owned(),
            "/proxies".to_owned(),
            "/proxies/".to_owned(),
            "/proxies//".to_owned(),
            format!("/{id}"),
            format!("/proxies/{id}0"),
            format!("/proxies/{}", &id[1..]),
            format!("/proxies/{}/x", &id[1..]),
            format!("//proxies/{id}"),
            format!("/Proxies/{id}"),
            format!("/proxies/%61{}", &id[1..]),
            format!("/proxies/{id}%2Fapi"),
            format!("/x?y=/proxies/{id}/"),
            "/proxies/é".repeat(20),
            "*".to_owned(),
        ] {
            let Ok(uri) = path.parse::<Uri>() else {
                continue;
            };
            assert!(Route::of(&uri).is_err(), "{path}");
        }
    }

    proptest! {
        #[test]
        fn whatever_parses_passes_byte_for_byte(rest in "(/[!-~é]{0,40})?(\\?[!-~]{0,40})?") {
            let id = ProxyId::from_name("edge");
            let whole = format!("{}{rest}", base_path(&id));
            // A fragment never reaches a server, so `#` is what the URI parser cuts by itself.
            let expected = rest.split('#').next().unwrap_or_default();
            if let Ok(uri) = whole.parse::<Uri>()
                && let Ok(route) = Route::of(&uri)
            {
                let slash = if expected.starts_with('/') { "" } else { "/" };
                prop_assert_eq!(route.target.as_str(), format!("{slash}{expected}"));
            }
        }
    }
}
