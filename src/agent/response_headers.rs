//! Which of the API server's headers reach the caller.

use http::{HeaderMap, HeaderName, HeaderValue, Response, header};

use super::{request_headers::tokens, upgrade::UpgradeProtocol};

/// Hop-by-hop. `trailer` stays: hyper sends only declared trailers, and only to a caller who asked for them.
const HOP_BY_HOP: [&str; 7] = [
    "connection",
    "proxy-connection",
    "keep-alive",
    "te",
    "transfer-encoding",
    "upgrade",
    "proxy-authenticate",
];
/// State that a browser would keep, and rights that it would grant: the agent serves no browser.
const BROWSER: [&str; 1] = ["set-cookie"];
const BROWSER_PREFIX: &str = "access-control-";

/// Takes away what is meant for the connection between the agent and the API server.
pub(super) fn clean(headers: &mut HeaderMap) {
    let nominated: Vec<HeaderName> = tokens(headers, &header::CONNECTION)
        .filter_map(|token| HeaderName::from_bytes(token.ok()?.as_bytes()).ok())
        // A response without its length would no longer be the response.
        .filter(|name| name != header::CONTENT_LENGTH)
        .collect();
    let stripped: Vec<HeaderName> = headers
        .keys()
        .filter(|name| {
            let name = name.as_str();
            HOP_BY_HOP.contains(&name)
                || BROWSER.contains(&name)
                || name.starts_with(BROWSER_PREFIX)
        })
        .cloned()
        .collect();
    for name in nominated.into_iter().chain(stripped) {
        headers.remove(name);
    }
    drop_connection_bound_challenges(headers);
}

/// Makes the headers of a `101 Switching Protocols` from the API server's.
pub(super) fn clean_switching(headers: &mut HeaderMap, protocol: UpgradeProtocol) {
    clean(headers);
    // A 101 has no body (RFC 9110 section 8.6).
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, protocol.to_header());
}

/// The head of a response as it goes out, for what hyper does not write.
pub(super) fn wire<B>(response: &Response<B>) -> Vec<u8> {
    let status = response.status();
    let mut wire = format!(
        "HTTP/1.1 {} {}\r\n",
        status.as_u16(),
        status.canonical_reason().unwrap_or_default()
    )
    .into_bytes();
    for (name, value) in response.headers() {
        wire.extend_from_slice(name.as_str().as_bytes());
        wire.extend_from_slice(b": ");
        wire.extend_from_slice(value.as_bytes());
        wire.extend_from_slice(b"\r\n");
    }
    wire.extend_from_slice(b"\r\n");
    wire
}

/// `Negotiate` and `NTLM` authenticate a connection, and the caller's is not the API server's.
fn drop_connection_bound_challenges(headers: &mut HeaderMap) {
    let kept: Vec<HeaderValue> = headers
        .get_all(header::WWW_AUTHENTICATE)
        .iter()
        .filter(|challenge| {
            let scheme = challenge
                .as_bytes()
                .split(|&byte| byte == b' ' || byte == b',')
                .next()
                .unwrap_or_default();
            !scheme.eq_ignore_ascii_case(b"negotiate") && !scheme.eq_ignore_ascii_case(b"ntlm")
        })
        .cloned()
        .collect();
    headers.remove(header::WWW_AUTHENTICATE);
    for challenge in kept {
        headers.append(header::WWW_AUTHENTICATE, challenge);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines
            .iter()
            .map(|&(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            })
            .collect()
    }

    #[test]
    fn hop_by_hop_and_browser_headers_go() {
        let mut headers = map(&[
            ("connection", "keep-alive, x-hop"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("x-hop", "1"),
            ("set-cookie", "a=b"),
            ("access-control-allow-origin", "*"),
            ("www-authenticate", "Negotiate abc"),
        ]);
        clean(&mut headers);
        assert!(headers.is_empty(), "{headers:?}");
    }

    #[test]
    fn what_kubectl_reads_stays() {
        let lines = [
            ("warning", "299 - \"deprecated\""),
            ("audit-id", "a"),
            ("retry-after", "1"),
            ("x-kubernetes-pf-flowschema-uid", "b"),
            ("content-encoding", "gzip"),
            ("content-length", "3"),
            ("location", "/elsewhere"),
            ("www-authenticate", "Bearer realm=\"x\""),
            ("trailer", "x-checksum"),
        ];
        let mut headers = map(&lines);
        clean(&mut headers);
        assert_eq!(headers, map(&lines));
    }

    #[test]
    fn the_length_can_not_be_nominated_away() {
        let mut headers = map(&[("connection", "content-length"), ("content-length", "3")]);
        clean(&mut headers);
        assert_eq!(headers, map(&[("content-length", "3")]));
    }

    #[test]
    fn a_101_keeps_the_handshake_verbatim() {
        let handshake = [
            ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
            ("sec-websocket-protocol", "v5.channel.k8s.io"),
            ("sec-websocket-extensions", "permessage-deflate"),
        ];
        let mut headers = map(&handshake);
        headers.insert("connection", HeaderValue::from_static("upgrade"));
        headers.insert("content-length", HeaderValue::from_static("0"));
        clean_switching(&mut headers, UpgradeProtocol::WebSocket);
        let mut expected = map(&handshake);
        expected.insert("connection", HeaderValue::from_static("Upgrade"));
        expected.insert("upgrade", HeaderValue::from_static("websocket"));
        assert_eq!(headers, expected);
    }
}
