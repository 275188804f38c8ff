//! Upgrades: a request that turns its connection into raw bytes (exec, attach, port-forward).

use http::{HeaderMap, HeaderValue, Method, Version, header, request::Parts};

use super::headers::has_connection_option;

/// The protocols that Kubernetes clients upgrade to.
const PROTOCOLS: [&str; 2] = ["SPDY/3.1", "websocket"];

/// The protocol that a request really asks to upgrade to.
///
/// An `Upgrade` header alone is no such request, nor is one with a body, or in HTTP/2: they go on as plain requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Upgrade(HeaderValue);

impl Upgrade {
    /// `body_is_empty` as the framing says, which is not in the headers alone.
    pub(super) fn asked_for(request: &Parts, body: BodyPresence) -> Option<Self> {
        let allowed = request.version == Version::HTTP_11
            && matches!(request.method, Method::GET | Method::POST)
            && body == BodyPresence::Absent
            && has_connection_option(&request.headers, "upgrade");
        allowed.then(|| protocol(&request.headers))?
    }

    /// Marks a request, or a 101 response, as this upgrade.
    pub(super) fn write(&self, headers: &mut HeaderMap) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, self.0.clone());
    }

    /// Whether the headers of a 101 response agree to this upgrade.
    pub(super) fn is_agreed(&self, response: &HeaderMap) -> bool {
        protocol(response)
            .is_some_and(|Self(agreed)| agreed.as_bytes().eq_ignore_ascii_case(self.0.as_bytes()))
    }
}

/// Whether a request has a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyPresence {
    Absent,
    Present,
}

fn protocol(headers: &HeaderMap) -> Option<Upgrade> {
    let mut values = headers.get_all(header::UPGRADE).iter();
    let (only, None) = (values.next()?, values.next()) else {
        return None;
    };
    PROTOCOLS
        .iter()
        .any(|known| only.as_bytes().eq_ignore_ascii_case(known.as_bytes()))
        .then(|| Upgrade(only.clone()))
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn asked_for(
        method: &str,
        version: Version,
        headers: &[(&str, &str)],
        body: BodyPresence,
    ) -> Option<Upgrade> {
        let mut request = Request::builder().method(method).version(version);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).expect("a request").into_parts();
        Upgrade::asked_for(&parts, body)
    }

    #[test]
    fn only_a_real_upgrade_is_one() {
        use BodyPresence::{Absent, Present};
        let spdy = [("connection", "Upgrade"), ("upgrade", "SPDY/3.1")];
        let websocket = [
            ("connection", "keep-alive, upgrade"),
            ("upgrade", "WebSocket"),
        ];
        let http11 = Version::HTTP_11;
        assert!(asked_for("POST", http11, &spdy, Absent).is_some());
        assert!(asked_for("GET", http11, &spdy, Absent).is_some());
        assert!(asked_for("GET", http11, &websocket, Absent).is_some());

        assert!(asked_for("PUT", http11, &spdy, Absent).is_none());
        assert!(asked_for("POST", http11, &spdy, Present).is_none());
        assert!(asked_for("GET", Version::HTTP_10, &spdy, Absent).is_none());
        assert!(asked_for("GET", Version::HTTP_2, &spdy, Absent).is_none());
        for headers in [
            &[("upgrade", "websocket")] as &[(&str, &str)],
            &[("connection", "upgrade")],
            &[("connection", "close"), ("upgrade", "websocket")],
            &[("connection", "upgrader"), ("upgrade", "websocket")],
            &[("connection", "upgrade"), ("upgrade", "h2c")],
            &[("connection", "upgrade"), ("upgrade", "websocket, h2c")],
            &[
                ("connection", "upgrade"),
                ("upgrade", "websocket"),
                ("upgrade", "SPDY/3.1"),
            ],
        ] {
            assert_eq!(
                asked_for("GET", http11, headers, Absent),
                None,
                "{headers:?}"
            );
        }
    }

    #[test]
    fn the_answer_must_be_to_what_was_asked() {
        let upgrade = Upgrade(HeaderValue::from_static("SPDY/3.1"));
        for (answer, agreed) in [("spdy/3.1", true), ("SPDY/3.1", true), ("websocket", false)] {
            let mut headers = HeaderMap::new();
            assert!(!upgrade.is_agreed(&headers));
            headers.insert(header::UPGRADE, HeaderValue::from_static(answer));
            assert_eq!(upgrade.is_agreed(&headers), agreed, "{answer}");
        }
    }
}
