//! The server's side of the opening handshake (RFC 6455 section 4.2).

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;

use super::Refusal;
use crate::relay::websocket::handshake::{VERSION, accept_key, is_valid_key};

/// Carries the token, raw.
pub(super) const TOKEN_HEADER: HeaderName = HeaderName::from_static("servicebusauthorization");

/// A request that asks for a WebSocket, correctly.
#[derive(Debug)]
pub(super) struct Handshake {
    accept_key: HeaderValue,
    /// What the client offers or, dialled by a listener, has chosen.
    protocols: Vec<HeaderValue>,
}

impl Handshake {
    pub(super) fn check<B>(request: &Request<B>) -> Result<Self, Refusal> {
        let headers = request.headers();
        let is_upgrade = request.method() == Method::GET
            && has_token(headers, header::CONNECTION, "upgrade")
            && has_token(headers, header::UPGRADE, "websocket");
        if !is_upgrade {
            return Err(Refusal::new(
                StatusCode::UPGRADE_REQUIRED,
                "A WebSocket upgrade is required at this address",
            ));
        }
        if headers.get(header::SEC_WEBSOCKET_VERSION) != Some(&HeaderValue::from_static(VERSION)) {
            return Err(Refusal::new(
                StatusCode::UPGRADE_REQUIRED,
                "Only version 13 of the WebSocket protocol is supported",
            ));
        }
        let accept_key = headers
            .get(header::SEC_WEBSOCKET_KEY)
            .filter(|key| is_valid_key(key.as_bytes()))
            .and_then(|key| HeaderValue::try_from(accept_key(key.as_bytes())).ok())
            .ok_or(Refusal::new(
                StatusCode::BAD_REQUEST,
                "The Sec-WebSocket-Key header is missing or malformed",
            ))?;
        Ok(Self {
            accept_key,
            protocols: tokens(headers, header::SEC_WEBSOCKET_PROTOCOL)
                .filter_map(|token| HeaderValue::try_from(token).ok())
                .collect(),
        })
    }

    /// The first sub-protocol: a listener's choice.
    pub(super) fn protocol(&self) -> Option<HeaderValue> {
        self.protocols.first().cloned()
    }

    pub(super) fn offers(&self, protocol: &HeaderValue) -> bool {
        self.protocols.contains(protocol)
    }

    /// The 101. Extensions are never agreed to: no relay client gets compression right, and pieces are forwarded as
    /// they come.
    pub(super) fn accept(self, protocol: Option<HeaderValue>) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, self.accept_key);
        if let Some(protocol) = protocol {
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
        }
        response
    }
}

fn has_token(headers: &HeaderMap, name: HeaderName, wanted: &str) -> bool {
    tokens(headers, name).any(|token| token.eq_ignore_ascii_case(wanted))
}

/// The elements of a comma-separated header that may be repeated.
pub(super) fn tokens(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    headers
        .get_all(name)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> http::request::Builder {
        Request::get("/")
            .header("connection", "keep-alive, Upgrade")
            .header("upgrade", "WebSocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
    }

    #[test]
    fn the_answer_of_rfc_6455_without_extensions() {
        let request = request()
            .header("sec-websocket-protocol", "one, two")
            .header("sec-websocket-extensions", "permessage-deflate")
            .body(())
            .unwrap();
        let handshake = Handshake::check(&request).unwrap();
        let one = HeaderValue::from_static("one");
        assert_eq!(handshake.protocol().as_ref(), Some(&one));
        assert!(handshake.offers(&HeaderValue::from_static("two")));
        assert!(!handshake.offers(&HeaderValue::from_static("three")));
        let response = handshake.accept(Some(one));
        assert_eq!(response.status(), 101);
        assert_eq!(
            response.headers()["sec-websocket-accept"],
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
        assert_eq!(response.headers()["sec-websocket-protocol"], "one");
        assert!(!response.headers().contains_key("sec-websocket-extensions"));
    }

    #[test]
    fn anything_else_is_refused() {
        let status = |builder: http::request::Builder| {
            Handshake::check(&builder.body(()).unwrap())
                .unwrap_err()
                .status()
                .as_u16()
        };
        assert_eq!(status(Request::get("/")), 426);
        assert_eq!(status(request().method("POST")), 426);
        for (header, status_expected) in [
            ("connection", 426),
            ("upgrade", 426),
            ("sec-websocket-version", 426),
            ("sec-websocket-key", 400),
        ] {
            let mut builder = request();
            builder.headers_mut().unwrap().remove(header);
            assert_eq!(status(builder), status_expected, "{header}");
        }
        let mut builder = request();
        builder
            .headers_mut()
            .unwrap()
            .insert("sec-websocket-key", HeaderValue::from_static("short"));
        assert_eq!(status(builder), 400);
    }
}
