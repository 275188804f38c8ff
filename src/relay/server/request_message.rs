//! The `request` message: a sender's HTTP request, as a listener gets it.

use std::net::SocketAddr;

use http::{HeaderMap, Method};
use serde_json::json;

use super::accept_message::{MAX_MESSAGE, escape_slashes, header_object, rendezvous_address};

/// An HTTP request that waits for a listener.
#[derive(Debug)]
pub(super) struct RequestMessage<'a> {
    pub(super) entity_path: &'a str,
    /// Entitles to answer over a socket of its own.
    pub(super) rendezvous_id: &'a str,
    /// What a response names.
    pub(super) id: &'a str,
    pub(super) method: &'a Method,
    /// Path and query without the relay's own part.
    pub(super) target: &'a str,
    /// Those that may pass.
    pub(super) headers: &'a HeaderMap,
    pub(super) remote: SocketAddr,
}

/// Whether a binary message follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Follows {
    Nothing,
    Body,
}

impl RequestMessage<'_> {
    /// The whole request but its body; `None` when its headers make it longer than [`MAX_MESSAGE`].
    pub(super) fn full(&self, base_url: &str, follows: Follows) -> Option<String> {
        let text = escape_slashes(&json!({ "request": {
            "address": self.address(base_url),
            "id": self.id,
            "requestTarget": self.target,
            "method": self.method.as_str(),
            "remoteEndpoint": {
                "address": self.remote.ip().to_string(),
                "port": self.remote.port(),
            },
            "requestHeaders": header_object(self.headers),
            "body": follows == Follows::Body,
        }}));
        (text.len() <= MAX_MESSAGE).then_some(text)
    }

    /// Where the whole request is to be had. Neither `method` nor `body` may be in it: Microsoft's clients know the two
    /// forms apart by the absence of one or the other.
    pub(super) fn pointer(&self, base_url: &str) -> String {
        escape_slashes(&json!({ "request": {
            "address": self.address(base_url),
            "id": self.id,
        }}))
    }

    fn address(&self, base_url: &str) -> String {
        // No suffix and no query of the sender's: both are in the message.
        rendezvous_address(
            base_url,
            self.entity_path,
            "",
            "",
            "request",
            self.rendezvous_id,
        )
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn both_forms() {
        let mut headers = HeaderMap::new();
        headers.insert("x-probe", "1".parse().unwrap());
        let message = RequestMessage {
            entity_path: "a/b c",
            rendezvous_id: "secret",
            id: "t_G0",
            method: &Method::POST,
            target: "/a/b%20c/x?q=1",
            headers: &headers,
            remote: "192.0.2.1:62917".parse().unwrap(),
        };
        let address = "wss://relay:443/$hc/a/b%20c?sb-hc-action=request&sb-hc-id=secret";
        let text = message.full("wss://relay:443", Follows::Body).unwrap();
        assert!(text.contains(r"wss:\/\/"), "{text}");
        assert_eq!(
            serde_json::from_str::<Value>(&text).unwrap(),
            json!({ "request": {
                "address": address,
                "id": "t_G0",
                "requestTarget": "/a/b%20c/x?q=1",
                "method": "POST",
                "remoteEndpoint": { "address": "192.0.2.1", "port": 62917 },
                "requestHeaders": { "X-Probe": "1" },
                "body": true,
            }})
        );
        assert_eq!(
            serde_json::from_str::<Value>(&message.pointer("wss://relay:443")).unwrap(),
            json!({ "request": { "address": address, "id": "t_G0" } })
        );
    }

    #[test]
    fn a_message_has_a_limit() {
        let mut headers = HeaderMap::new();
        headers.insert("x", "y".repeat(MAX_MESSAGE).parse().unwrap());
        let message = RequestMessage {
            entity_path: "a",
            rendezvous_id: "secret",
            id: "t",
            method: &Method::GET,
            target: "/a",
            headers: &headers,
            remote: "192.0.2.1:1".parse().unwrap(),
        };
        assert_eq!(message.full("ws://relay", Follows::Nothing), None);
        assert!(message.pointer("ws://relay").len() < 200);
    }
}
