//! The `accept` message: what a listener learns about a sender.

use std::net::SocketAddr;

use http::{HeaderMap, HeaderName};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde_json::{Map, Value, json};

use super::handshake::TOKEN_HEADER;

/// A sender that waits for a listener.
#[derive(Debug)]
pub(super) struct Invitation<'a> {
    pub(super) entity_path: &'a str,
    /// What the sender put behind the entity's path, encoded.
    pub(super) suffix: &'a str,
    /// The sender's own part of the query, encoded.
    pub(super) user_query: &'a str,
    /// Entitles to answer.
    pub(super) rendezvous_id: &'a str,
    /// For logs.
    pub(super) tracking_id: &'a str,
    pub(super) headers: &'a HeaderMap,
    pub(super) remote: SocketAddr,
}

impl Invitation<'_> {
    /// The message for a listener that reaches the relay at `base_url`; `None` when the sender's headers make it
    /// longer than [`MAX_MESSAGE`].
    pub(super) fn to_json(&self, base_url: &str) -> Option<String> {
        let message = json!({ "accept": {
            "address": self.address(base_url),
            "id": format!("{}_G0", self.tracking_id),
            "connectHeaders": header_object(self.headers),
            "remoteEndpoint": {
                "address": self.remote.ip().to_string(),
                "port": self.remote.port(),
            },
        }});
        let text = escape_slashes(&message);
        (text.len() <= MAX_MESSAGE).then_some(text)
    }

    fn address(&self, base_url: &str) -> String {
        rendezvous_address(
            base_url,
            self.entity_path,
            self.suffix,
            self.user_query,
            "accept",
            self.rendezvous_id,
        )
    }
}

/// Where a listener is to dial.
pub(super) fn rendezvous_address(
    base_url: &str,
    entity_path: &str,
    suffix: &str,
    user_query: &str,
    action: &str,
    id: &str,
) -> String {
    let path = utf8_percent_encode(entity_path, PATH_ESCAPES);
    let mut address = format!("{base_url}/$hc/{path}");
    if !suffix.is_empty() {
        address.push('/');
        address.push_str(suffix);
    }
    address.push('?');
    if !user_query.is_empty() {
        address.extend(utf8_percent_encode(user_query, QUERY_ESCAPES));
        address.push('&');
    }
    address.push_str("sb-hc-action=");
    address.push_str(action);
    address.push_str("&sb-hc-id=");
    address.push_str(id);
    address
}

/// The message's text.
///
/// The service escapes slashes; doing the same keeps clients honest. A slash in JSON text is always inside a string,
/// where its escape means the same.
pub(super) fn escape_slashes(message: &Value) -> String {
    message.to_string().replace('/', "\\/")
}

/// All headers but the token; repeated ones joined, as a JSON object has each name once.
pub(super) fn header_object(headers: &HeaderMap) -> Value {
    let mut object = Map::new();
    for name in headers.keys().filter(|name| **name != TOKEN_HEADER) {
        let values: Vec<_> = headers
            .get_all(name)
            .iter()
            .map(|value| String::from_utf8_lossy(value.as_bytes()))
            .collect();
        object.insert(wire_name(name), values.join(", ").into());
    }
    Value::Object(object)
}

/// hyper lower-cases names, but clients look for `Sec-WebSocket-Key` in that spelling.
fn wire_name(name: &HeaderName) -> String {
    let words = name.as_str().split('-').map(|word| match word {
        "websocket" => "WebSocket".to_owned(),
        _ => {
            let (first, rest) = word.split_at(word.len().min(1));
            first.to_ascii_uppercase() + rest
        }
    });
    words.collect::<Vec<_>>().join("-")
}

/// Microsoft's .NET listener receives control messages in a buffer of 64 KiB.
pub(super) const MAX_MESSAGE: usize = 60 * 1024;

/// What a path may hold and a query may not: the query of a sender may have stood in its path, behind an encoded question
/// mark.
const QUERY_ESCAPES: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'<').add(b'>');

/// What would end a path, or is no text.
const PATH_ESCAPES: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'`')
    .add(b'{')
    .add(b'}');

#[cfg(test)]
mod tests {
    use super::*;

    fn invitation<'a>(headers: &'a HeaderMap) -> Invitation<'a> {
        Invitation {
            entity_path: "a/b c",
            suffix: "x%20y",
            user_query: "q=1",
            rendezvous_id: "secret",
            tracking_id: "t",
            headers,
            remote: "192.0.2.1:62917".parse().unwrap(),
        }
    }

    #[test]
    fn a_query_that_stood_in_a_path_is_one_in_the_address() {
        let address = rendezvous_address("wss://h", "a", "", "q=\"<é>\"&r=%20", "accept", "1");
        assert_eq!(
            address,
            "wss://h/$hc/a?q=%22%3C%C3%A9%3E%22&r=%20&sb-hc-action=accept&sb-hc-id=1"
        );
    }

    #[test]
    fn the_form_of_the_live_service() {
        let mut headers = HeaderMap::new();
        headers.insert("sec-websocket-key", "k==".parse().unwrap());
        headers.insert("servicebusauthorization", "token".parse().unwrap());
        headers.append("x-probe", "1".parse().unwrap());
        headers.append("x-probe", "2".parse().unwrap());
        let text = invitation(&headers).to_json("wss://relay:443").unwrap();
        assert!(text.contains(r"wss:\/\/relay:443\/$hc\/a"), "{text}");
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            value,
            json!({ "accept": {
                "address": "wss://relay:443/$hc/a/b%20c/x%20y?q=1&sb-hc-action=accept&sb-hc-id=secret",
                "id": "t_G0",
                "connectHeaders": { "Sec-WebSocket-Key": "k==", "X-Probe": "1, 2" },
                "remoteEndpoint": { "address": "192.0.2.1", "port": 62917 },
            }})
        );
    }

    #[test]
    fn a_message_has_a_limit() {
        let mut headers = HeaderMap::new();
        headers.insert("x", "y".repeat(MAX_MESSAGE).parse().unwrap());
        assert_eq!(invitation(&headers).to_json("wss://relay"), None);
    }
}
