//! Which headers pass, in either direction.

use std::ops::ControlFlow;

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::status::{Failure, Reason};
use crate::telemetry;

/// The `Host` of requests to the agent, which puts the API server's own name in its place.
pub(super) const AGENT_HOST: &str = "kubernetes-api";

/// Headers about one connection, not about the message. `Trailer` is not among them: the HTTP library sends only
/// trailers that it announces.
const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("keep-alive"),
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("http2-settings"),
    header::PROXY_AUTHORIZATION,
    header::PROXY_AUTHENTICATE,
];

/// What a client has no business to tell the agent: who it is (but for `Impersonate-*`, on which the agent decides),
/// by which ways it came, how the agent shall audit it, and what is for the relay.
const NOT_FOR_THE_AGENT: [HeaderName; 9] = [
    // The run secret is ours, the caller's token is put on at the end.
    header::AUTHORIZATION,
    header::COOKIE,
    // Judged here; what passed is our own, and means nothing to the API server.
    header::ORIGIN,
    // Answered here: the HTTP library sends `100 Continue` once the body is first wanted.
    header::EXPECT,
    header::FORWARDED,
    header::VIA,
    HeaderName::from_static("x-real-ip"),
    HeaderName::from_static(telemetry::HEADER_AUDIT_ID),
    HeaderName::from_static("servicebusauthorization"),
];
const PREFIXES_NOT_FOR_THE_AGENT: [&str; 4] = ["x-remote-", "x-forwarded-", "sb-hc-", "x-acc-"];

/// What no `Connection` header may name: removing them would change who is calling, or where a message ends.
const NOT_FOR_CONNECTION: [HeaderName; 6] = [
    header::AUTHORIZATION,
    header::HOST,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    HeaderName::from_static(telemetry::HEADER_AUDIT_ID),
    HeaderName::from_static(telemetry::HEADER_CORRELATION_ID),
];
const PREFIXES_NOT_FOR_CONNECTION: [&str; 2] = ["impersonate-", "x-remote-"];

/// Removes from a request what must not reach the agent.
///
/// # Errors
/// [`Reason::BadRequest`] when the body has a transfer coding that would be lost on the way, or `Connection` names what it must not.
pub(super) fn clean_request(headers: &mut HeaderMap) -> Result<(), Failure> {
    if has_other_coding(headers) {
        return Err(Failure::new(
            Reason::BadRequest,
            "the request to the local proxy has a Transfer-Encoding other than chunked",
        ));
    }
    let named = connection_options(headers);
    if let Some(name) = named.iter().find(|name| is_protected(name)) {
        return Err(Failure::new(
            Reason::BadRequest,
            format!("the request to the local proxy names {name} in its Connection header"),
        ));
    }
    let accepts_trailers = accepts_trailers(headers);
    remove_hop_by_hop(headers, &named);
    for name in &NOT_FOR_THE_AGENT {
        headers.remove(name);
    }
    remove_if(headers, |name| {
        has_prefix(name, &PREFIXES_NOT_FOR_THE_AGENT)
    });
    if accepts_trailers {
        // Not named in `Connection` as RFC 9110 section 10.1.4 asks: the next hop would then drop it, and trailers
        // are to pass end to end.
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    headers.insert(header::HOST, HeaderValue::from_static(AGENT_HOST));
    Ok(())
}

/// Whether the body has a transfer coding that is not exactly `chunked`.
pub(super) fn has_other_coding(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let is_chunked = |coding: &HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"chunked");
    !codings.next().is_none_or(is_chunked) || codings.next().is_some()
}

/// Removes from a response what is not for the client, and turns `Location` into a local one.
pub(super) fn clean_response(headers: &mut HeaderMap, base_path: &str) {
    let mut named = connection_options(headers);
    // Without its length a response would be another one.
    named.retain(|name| name != header::CONTENT_LENGTH);
    remove_hop_by_hop(headers, &named);
    // Cookies and cross-origin grants of the API server would be the browser's concern, and of all ports of 127.0.0.1.
    headers.remove(header::SET_COOKIE);
    remove_if(headers, |name| has_prefix(name, &["access-control-"]));
    remove_connection_bound_challenges(headers);
    if let Some(location) = headers.get(header::LOCATION)
        && let Some(local) = local_location(location, base_path)
    {
        headers.insert(header::LOCATION, local);
    }
}

/// The header names in all `Connection` lines. A token that is no header name names nothing.
fn connection_options(headers: &HeaderMap) -> Vec<HeaderName> {
    let mut names = Vec::new();
    let _ = for_each_connection_option(headers, |token| {
        names.extend(HeaderName::from_bytes(token));
        ControlFlow::Continue(())
    });
    names
}

/// Whether `Connection`, on any of its lines, has the token `option`.
pub(super) fn has_connection_option(headers: &HeaderMap, option: &str) -> bool {
    for_each_connection_option(headers, |token| {
        if token.eq_ignore_ascii_case(option.as_bytes()) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })
    .is_break()
}

fn for_each_connection_option(
    headers: &HeaderMap,
    mut visit: impl FnMut(&[u8]) -> ControlFlow<()>,
) -> ControlFlow<()> {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|token| !token.is_empty())
        .try_for_each(&mut visit)
}

fn is_protected(name: &HeaderName) -> bool {
    NOT_FOR_CONNECTION.contains(name) || has_prefix(name, &PREFIXES_NOT_FOR_CONNECTION)
}

fn accepts_trailers(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::TE)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

pub(super) fn remove_hop_by_hop(headers: &mut HeaderMap, named: &[HeaderName]) {
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

fn remove_if(headers: &mut HeaderMap, unwanted: impl Fn(&HeaderName) -> bool) {
    let names: Vec<HeaderName> = headers
        .keys()
        .filter(|name| unwanted(name))
        .cloned()
        .collect();
    for name in names {
        headers.remove(name);
    }
}

/// Header names are lower-case; `_` counts as `-`, since some servers make no difference.
fn has_prefix(name: &HeaderName, prefixes: &[&str]) -> bool {
    let name = name.as_str().replace('_', "-");
    prefixes.iter().any(|prefix| name.starts_with(prefix))
}

/// Negotiate and NTLM authenticate a connection, not a request; through a proxy they can only mislead.
fn remove_connection_bound_challenges(headers: &mut HeaderMap) {
    let challenges: Vec<HeaderValue> = headers
        .get_all(header::WWW_AUTHENTICATE)
        .iter()
        .filter(|challenge| {
            let mut words = challenge.as_bytes().split(|byte| b" ,".contains(byte));
            let scheme = words.next().unwrap_or_default();
            !scheme.eq_ignore_ascii_case(b"Negotiate") && !scheme.eq_ignore_ascii_case(b"NTLM")
        })
        .cloned()
        .collect();
    headers.remove(header::WWW_AUTHENTICATE);
    for challenge in challenges {
        headers.append(header::WWW_AUTHENTICATE, challenge);
    }
}

/// `None` where the value stands as it is: a relative reference is resolved below the base path already, and another
/// host is not ours to name.
fn local_location(location: &HeaderValue, base_path: &str) -> Option<HeaderValue> {
    let text = location.to_str().ok()?;
    let own_host = ["https://", "http://", "//"]
        .iter()
        .find_map(|lead| text.strip_prefix(lead)?.strip_prefix(AGENT_HOST));
    let path = match own_host {
        Some("") => "/",
        Some(rest) if rest.starts_with('/') => rest,
        Some(_) => return None,
        None if text.starts_with('/') && !text.starts_with("//") => text,
        None => return None,
    };
    HeaderValue::from_str(&format!("{base_path}{path}")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(
                name.parse::<HeaderName>().expect("a header name"),
                value.parse().expect("a header value"),
            );
        }
        headers
    }

    fn cleaned(pairs: &[(&str, &str)]) -> Result<HeaderMap, Reason> {
        let mut headers = map(pairs);
        clean_request(&mut headers).map_err(|failure| failure.reason())?;
        assert_eq!(headers.remove("host").expect("a Host"), AGENT_HOST);
        Ok(headers)
    }

    #[test]
    fn what_is_not_for_the_agent_is_removed() {
        for name in [
            "authorization",
            "cookie",
            "expect",
            "forwarded",
            "via",
            "http2-settings",
            "x-forwarded-for",
            "x-forwarded-proto",
            "x-real-ip",
            "x-remote-user",
            "x-remote-extra-scopes",
            "X_Remote_User",
            "audit-id",
            "servicebusauthorization",
            "sb-hc-token",
            "x-acc-hop",
            "connection",
            "proxy-connection",
            "keep-alive",
            "te",
            "upgrade",
            "proxy-authorization",
            "proxy-authenticate",
        ] {
            assert_eq!(cleaned(&[(name, "x"), (name, "y")]), Ok(map(&[])), "{name}");
        }
    }

    #[test]
    fn what_belongs_to_the_request_is_kept() {
        let kept = [
            ("accept", "application/json;as=Table"),
            ("accept-encoding", "gzip"),
            ("content-type", "application/apply-patch+yaml"),
            ("content-length", "3"),
            ("user-agent", "kubectl"),
            ("kubectl-command", "kubectl get"),
            ("impersonate-user", "jane"),
            ("impersonate-group", "a"),
            ("impersonate-group", "b"),
            ("sec-websocket-protocol", "v5.channel.k8s.io"),
            ("x-stream-protocol-version", "v4.channel.k8s.io"),
            ("traceparent", "00-1-2-01"),
            ("trailer", "x-checksum"),
        ];
        assert_eq!(cleaned(&kept), Ok(map(&kept)));
    }

    #[test]
    fn te_is_reduced_to_trailers() {
        for te in ["trailers", "gzip, Trailers", "deflate;q=0.5,trailers"] {
            assert_eq!(
                cleaned(&[("te", te), ("connection", "TE")]),
                Ok(map(&[("te", "trailers")])),
                "{te}"
            );
        }
        assert_eq!(cleaned(&[("te", "gzip")]), Ok(map(&[])));
    }

    #[test]
    fn what_connection_names_is_removed_from_whichever_line() {
        for lines in [
            &["x-hop"] as &[&str],
            &["close, X-Hop"],
            &["", "x-hop"],
            &["keep-alive", " , x-hop ,"],
            &["not a name, x-hop"],
        ] {
            let mut pairs = vec![("x-hop", "1"), ("x-end", "1")];
            pairs.extend(lines.iter().map(|line| ("connection", *line)));
            assert_eq!(cleaned(&pairs), Ok(map(&[("x-end", "1")])), "{lines:?}");
        }
    }

    #[test]
    fn connection_can_not_remove_who_is_calling() {
        for name in [
            "Impersonate-User",
            "impersonate-future",
            "Impersonate_User",
            "X-Remote-User",
            "Authorization",
            "Host",
            "Content-Length",
            "Transfer-Encoding",
            "Audit-ID",
            "x-ms-correlation-request-id",
        ] {
            for lines in [
                vec![name.to_owned()],
                vec![String::new(), format!("close, {name}")],
            ] {
                let pairs: Vec<_> = lines
                    .iter()
                    .map(|line| ("connection", line.as_str()))
                    .collect();
                assert_eq!(cleaned(&pairs), Err(Reason::BadRequest), "{lines:?}");
            }
        }
    }

    #[test]
    fn chunked_is_the_only_transfer_coding() {
        assert_eq!(cleaned(&[("transfer-encoding", "Chunked")]), Ok(map(&[])));
        for codings in [
            vec![("transfer-encoding", "gzip, chunked")],
            vec![
                ("transfer-encoding", "gzip"),
                ("transfer-encoding", "chunked"),
            ],
            vec![
                ("transfer-encoding", "chunked"),
                ("transfer-encoding", "chunked"),
            ],
            vec![("transfer-encoding", "identity")],
            vec![("transfer-encoding", "")],
        ] {
            assert_eq!(cleaned(&codings), Err(Reason::BadRequest), "{codings:?}");
        }
    }

    #[test]
    fn a_response_keeps_what_kubectl_shows() {
        let mut headers = map(&[
            ("warning", "299 - \"old\""),
            ("audit-id", "1"),
            ("retry-after", "1"),
            ("x-kubernetes-pf-flowschema-uid", "1"),
            ("content-encoding", "gzip"),
            ("cache-control", "no-cache, private"),
            ("www-authenticate", "Bearer"),
            ("trailer", "x-checksum"),
        ]);
        let before = headers.clone();
        clean_response(&mut headers, "/proxies/1");
        assert_eq!(headers, before);
    }

    #[test]
    fn a_response_loses_what_is_of_another_hop() {
        let mut headers = map(&[
            ("connection", "x-hop, content-length"),
            ("x-hop", "1"),
            ("content-length", "3"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("set-cookie", "a=b"),
            ("access-control-allow-origin", "*"),
            ("www-authenticate", "Negotiate abc"),
            ("www-authenticate", "Bearer"),
            ("www-authenticate", "ntlm"),
        ]);
        clean_response(&mut headers, "/proxies/1");
        let kept = [("content-length", "3"), ("www-authenticate", "Bearer")];
        assert_eq!(headers, map(&kept));
    }

    #[test]
    fn a_location_at_the_api_server_becomes_local() {
        for (location, local) in [
            ("/api/v1/", "/proxies/1/api/v1/"),
            ("/", "/proxies/1/"),
            ("/a?b=/c", "/proxies/1/a?b=/c"),
            ("https://kubernetes-api/x", "/proxies/1/x"),
            ("http://kubernetes-api", "/proxies/1/"),
            ("//kubernetes-api/x", "/proxies/1/x"),
            // Left as they are.
            ("v1/", "v1/"),
            ("?x", "?x"),
            ("https://10.0.0.1:6443/x", "https://10.0.0.1:6443/x"),
            ("//evil.example/x", "//evil.example/x"),
            (
                "https://kubernetes-api.evil.example/",
                "https://kubernetes-api.evil.example/",
            ),
            ("https://kubernetes-api:1/", "https://kubernetes-api:1/"),
        ] {
            let mut headers = map(&[("location", location)]);
            clean_response(&mut headers, "/proxies/1");
            assert_eq!(headers["location"], local);
        }
    }
}
