//! Which headers pass the relay in HTTP mode.

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{self, Entry},
};

use super::handshake::{TOKEN_HEADER, tokens};

/// Whether the sender's `Authorization` was meant for the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Authorization {
    /// The relay has used it; it goes no further.
    ForRelay,
    /// It is the listener's.
    ForListener,
}

/// What the service removes, both ways, and what else belongs to one connection only. `Host` stays: the live service
/// is seen to send it, whatever the protocol guide says. `Expect` is answered by the relay itself.
const HOP_BY_HOP: [HeaderName; 12] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("close"),
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHORIZATION,
    header::PROXY_AUTHENTICATE,
    header::EXPECT,
];

/// The headers of a sender's request that a listener gets.
pub(super) fn for_listener(
    headers: &HeaderMap,
    authorization: Authorization,
    host: &str,
) -> HeaderMap {
    let mut passed = headers.clone();
    passed.remove(TOKEN_HEADER);
    if authorization == Authorization::ForRelay {
        passed.remove(header::AUTHORIZATION);
    }
    end_to_end(&mut passed, host);
    passed
}

/// Leaves what is not for one connection only, and adds where it has passed.
pub(super) fn end_to_end(headers: &mut HeaderMap, host: &str) {
    let named: Vec<_> = tokens(headers, header::CONNECTION)
        .filter_map(|name| HeaderName::try_from(name).ok())
        .filter(|name| *name != header::HOST)
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
    let here = format!("1.1 {host}");
    let via = match headers.entry(header::VIA) {
        Entry::Occupied(before) => {
            let mut values: Vec<_> = before.iter().map(HeaderValue::as_bytes).collect();
            values.push(here.as_bytes());
            HeaderValue::from_bytes(&values.join(&b", "[..]))
        }
        Entry::Vacant(_) => HeaderValue::try_from(here),
    };
    // A host comes from a header, and so fits into one.
    if let Ok(via) = via {
        headers.insert(header::VIA, via);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers() -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("host", "relay:1"),
            ("connection", "close, X-Mine, host"),
            ("x-mine", "1"),
            ("x-yours", "2"),
            ("te", "trailers"),
            ("content-length", "3"),
            ("expect", "100-continue"),
            ("close", "now"),
            ("authorization", "Basic abc"),
            ("servicebusauthorization", "token"),
            ("via", "1.0 before"),
        ] {
            headers.insert(name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn what_is_for_one_connection_stays_there() {
        let passed = for_listener(&headers(), Authorization::ForListener, "relay");
        let mut names: Vec<_> = passed.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["authorization", "host", "via", "x-yours"]);
        assert_eq!(passed["via"], "1.0 before, 1.1 relay");
    }

    #[test]
    fn a_token_for_the_relay_goes_no_further() {
        let passed = for_listener(&headers(), Authorization::ForRelay, "relay");
        assert!(!passed.contains_key("authorization"));
    }
}
