//! Which requests ask for a change of protocol, and what the API server's answer to one may be.

use http::{HeaderMap, HeaderValue, Method, header};

use super::request_headers::tokens;

/// The protocols that Kubernetes switches to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UpgradeProtocol {
    /// SPDY/3.1, over POST: exec, attach and port-forward of older clients.
    Spdy,
    /// RFC 6455, over GET.
    WebSocket,
}

impl UpgradeProtocol {
    /// The protocol that a request asks for, when it is one that the agent carries.
    ///
    /// All of it must be there: the token `upgrade` in `Connection`, exactly one `Upgrade` line naming a known
    /// protocol, GET or POST, and no body. Anything less is a plain request, and loses both headers: a server that
    /// reads the request more generously must not see them.
    pub(super) fn requested(method: &Method, headers: &HeaderMap) -> Option<Self> {
        let asks = tokens(headers, &header::CONNECTION)
            .any(|token| token.is_ok_and(|token| token.eq_ignore_ascii_case("upgrade")));
        let has_body = headers.contains_key(header::TRANSFER_ENCODING)
            || headers
                .get(header::CONTENT_LENGTH)
                .is_some_and(|length| length.as_bytes().iter().any(|&digit| digit != b'0'));
        if !asks || has_body || !matches!(*method, Method::GET | Method::POST) {
            return None;
        }
        Self::only(headers)
    }

    /// Whether a 101 switches to this protocol and no other.
    pub(super) fn is_confirmed_by(self, headers: &HeaderMap) -> bool {
        Self::only(headers) == Some(self)
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Spdy => "SPDY/3.1",
            Self::WebSocket => "websocket",
        }
    }

    pub(super) fn to_header(self) -> HeaderValue {
        HeaderValue::from_static(self.name())
    }

    fn only(headers: &HeaderMap) -> Option<Self> {
        let mut lines = headers.get_all(header::UPGRADE).iter();
        let (Some(line), None) = (lines.next(), lines.next()) else {
            return None;
        };
        [Self::Spdy, Self::WebSocket].into_iter().find(|protocol| {
            line.as_bytes()
                .eq_ignore_ascii_case(protocol.to_header().as_bytes())
        })
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    fn requested(
        method: Method,
        lines: &[(&'static str, &'static str)],
    ) -> Option<UpgradeProtocol> {
        let mut headers = HeaderMap::new();
        for &(name, value) in lines {
            headers.append(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            );
        }
        UpgradeProtocol::requested(&method, &headers)
    }

    #[test]
    fn real_upgrades_are_seen() {
        for (method, connection, upgrade, expected) in [
            (Method::POST, "Upgrade", "SPDY/3.1", UpgradeProtocol::Spdy),
            (Method::GET, "upgrade", "spdy/3.1", UpgradeProtocol::Spdy),
            (
                Method::GET,
                "keep-alive, Upgrade",
                "websocket",
                UpgradeProtocol::WebSocket,
            ),
        ] {
            let lines = [("connection", connection), ("upgrade", upgrade)];
            assert_eq!(requested(method, &lines), Some(expected));
        }
        let no_body = [
            ("connection", "Upgrade"),
            ("upgrade", "SPDY/3.1"),
            ("content-length", "0"),
        ];
        assert!(requested(Method::POST, &no_body).is_some());
    }

    #[test]
    fn half_an_upgrade_is_a_plain_request() {
        let connection = ("connection", "Upgrade");
        let upgrade = ("upgrade", "websocket");
        for (method, lines) in [
            (Method::GET, &[upgrade][..]),
            (Method::GET, &[connection]),
            (Method::GET, &[("connection", "upgrades"), upgrade]),
            (Method::GET, &[connection, ("upgrade", "h2c")]),
            (
                Method::GET,
                &[connection, ("upgrade", "websocket, SPDY/3.1")],
            ),
            (Method::GET, &[connection, upgrade, upgrade]),
            (Method::PUT, &[connection, upgrade]),
            (Method::GET, &[connection, upgrade, ("content-length", "1")]),
            (
                Method::POST,
                &[connection, upgrade, ("transfer-encoding", "chunked")],
            ),
        ] {
            assert_eq!(requested(method, lines), None, "{lines:?}");
        }
    }
}
