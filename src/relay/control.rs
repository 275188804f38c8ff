//! The messages of the control channel: one JSON object per text message, with one member that names its kind.

use std::{collections::HashMap, fmt, net::IpAddr};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{handshake::SERVICE_BUS_AUTHORIZATION, websocket::MessageEnd};

/// What the relay tells a listener.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ControlMessage {
    /// A sender waits.
    Accept(Accept),
    /// An HTTP request, which this crate does not serve. Its id, where it could be read.
    Request { id: String },
    /// Something that is not for us, or not known (yet).
    Other,
}

/// The announcement of a sender.
#[derive(PartialEq, Eq)]
pub(super) struct Accept {
    /// Where to meet the sender. Whoever knows it can take the sender's place: never shown.
    pub(super) address: String,
    /// Opaque: a GUID with suffixes, most often.
    pub(super) id: String,
    /// The sender's upgrade request, without its credential.
    pub(super) headers: HeaderMap,
    /// The sender's address as the relay saw it.
    pub(super) remote: Option<RemoteAddress>,
}

/// A sender's address. The relay's word, which nothing may be decided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RemoteAddress {
    pub(super) ip: IpAddr,
    pub(super) port: u16,
}

impl ControlMessage {
    /// Reads one message.
    ///
    /// Unknown members are ignored, and so is everything about a sender that does not parse and is not needed to
    /// answer it: the relay has changed these messages before.
    pub(super) fn parse(text: &[u8]) -> Result<Self, serde_json::Error> {
        let envelope: Envelope = serde_json::from_slice(text)?;
        Ok(if let Some(accept) = envelope.accept {
            Self::Accept(accept.into())
        } else if let Some(request) = envelope.request {
            Self::Request { id: request.id }
        } else {
            Self::Other
        })
    }
}

/// The message that gives the relay a newer token.
pub(super) fn renew_token(token: &str) -> String {
    serde_json::json!({ "renewToken": { "token": token } }).to_string()
}

/// The message that answers an HTTP request which can not be served: better than to let its sender wait a minute.
pub(super) fn not_implemented(request_id: &str) -> String {
    let response = Response {
        request_id,
        status_code: 501,
        status_description: "This listener takes WebSocket connections only",
        body: false,
    };
    serde_json::json!({ "response": response }).to_string()
}

/// Puts the pieces of text messages together.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    message: Vec<u8>,
    is_too_long: bool,
}

/// What became of a piece.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Assembled {
    /// More is to come.
    Partial,
    /// A whole message.
    Message(Vec<u8>),
    /// A whole message that was too long, and is lost.
    TooLong,
}

impl Assembler {
    /// Adds a piece. Of a message longer than [`MAX_MESSAGE`] nothing is kept.
    pub(super) fn push(&mut self, piece: &Bytes, end: MessageEnd) -> Assembled {
        if self.message.len() + piece.len() > MAX_MESSAGE {
            self.is_too_long = true;
            self.message = Vec::new();
        }
        if !self.is_too_long {
            self.message.extend_from_slice(piece);
        }
        match end {
            MessageEnd::More => Assembled::Partial,
            MessageEnd::Last if std::mem::take(&mut self.is_too_long) => Assembled::TooLong,
            MessageEnd::Last => Assembled::Message(std::mem::take(&mut self.message)),
        }
    }
}

impl From<RawAccept> for Accept {
    fn from(raw: RawAccept) -> Self {
        let mut headers = HeaderMap::new();
        for (name, value) in raw.connect_headers.unwrap_or_default() {
            let value = match value {
                Value::String(text) => text,
                other => other.to_string(),
            };
            if let (Ok(name), Ok(value)) = (
                HeaderName::try_from(name.as_str()),
                HeaderValue::try_from(value),
            ) {
                headers.insert(name, value);
            }
        }
        // The relay should have removed it; a sender's credential is none of the listener's business.
        headers.remove(SERVICE_BUS_AUTHORIZATION);
        Self {
            address: raw.address,
            id: raw.id,
            headers,
            remote: raw.remote_endpoint.as_ref().and_then(remote_address),
        }
    }
}

impl fmt::Debug for Accept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accept")
            .field("id", &self.id)
            .field("remote", &self.remote)
            .finish_non_exhaustive()
    }
}

fn remote_address(value: &Value) -> Option<RemoteAddress> {
    let ip = value.get("address")?.as_str()?.parse().ok()?;
    let port = match value.get("port")? {
        Value::String(text) => text.parse().ok()?,
        other => u16::try_from(other.as_u64()?).ok()?,
    };
    Some(RemoteAddress { ip, port })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    accept: Option<RawAccept>,
    request: Option<RawRequest>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawAccept {
    address: String,
    id: String,
    connect_headers: Option<HashMap<String, Value>>,
    remote_endpoint: Option<Value>,
}

#[derive(Deserialize)]
struct RawRequest {
    #[serde(default)]
    id: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Response<'a> {
    request_id: &'a str,
    status_code: u16,
    status_description: &'a str,
    body: bool,
}

/// A sender's headers are the bulk of a message, and servers admit 8 to 32 KiB of them. Microsoft's clients have the
/// same limit.
const MAX_MESSAGE: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As published of the real service; ids and address shortened.
    const CAPTURED: &str = r#"{"accept":{"address":"wss:\/\/g17-prod-by3-010-sb.servicebus.windows.net\/$hc\/yesclientauth?sb-hc-action=accept&sb-hc-id=ca496b91_G17_G30",
        "id":"ca496b91_G17_G30",
        "connectHeaders":{"Sec-WebSocket-Key":"a","Sec-WebSocket-Version":"13","Connection":"Upgrade","Upgrade":"websocket","Host":"gorelay.servicebus.windows.net:443","User-Agent":"Go-http-client\/1.1"},
        "remoteEndpoint":{"address":"192.0.2.1","port":62917}}}"#;

    fn accept(text: &str) -> Accept {
        match ControlMessage::parse(text.as_bytes()).unwrap() {
            ControlMessage::Accept(accept) => accept,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_captured_message_is_read() {
        let accept = accept(CAPTURED);
        assert_eq!(
            accept.address,
            "wss://g17-prod-by3-010-sb.servicebus.windows.net/$hc/yesclientauth?sb-hc-action=accept&sb-hc-id=ca496b91_G17_G30"
        );
        assert_eq!(accept.id, "ca496b91_G17_G30");
        assert_eq!(accept.headers["user-agent"], "Go-http-client/1.1");
        let remote = accept.remote.unwrap();
        assert_eq!(
            (remote.ip, remote.port),
            ("192.0.2.1".parse().unwrap(), 62917)
        );
    }

    #[test]
    fn only_address_and_id_are_needed() {
        let accept = accept(r#"{"accept":{"address":"a","id":"i","new":[1]},"newer":{}}"#);
        assert_eq!((accept.address.as_str(), accept.id.as_str()), ("a", "i"));
        assert!(accept.headers.is_empty());
        assert_eq!(accept.remote, None);
    }

    #[test]
    fn odd_values_cost_no_connection() {
        let odd = accept(
            r#"{"accept":{"address":"a","id":"i","connectHeaders":{"X":7,"bad name":"x","Y":"a\nb","Z":"z",
               "ServiceBusAuthorization":"secret"},"remoteEndpoint":{"address":"::1","port":"80"}}}"#,
        );
        assert_eq!(odd.headers.len(), 2);
        assert_eq!(odd.headers["x"], "7");
        assert_eq!(odd.headers["z"], "z");
        assert_eq!(odd.remote.unwrap().port, 80);
        for remote in ["null", "1", "{}", r#"{"address":"x","port":1}"#] {
            let text =
                format!(r#"{{"accept":{{"address":"a","id":"i","remoteEndpoint":{remote}}}}}"#);
            assert_eq!(accept(&text).remote, None);
        }
    }

    #[test]
    fn other_messages_are_told_apart() {
        let parse = |text: &str| ControlMessage::parse(text.as_bytes());
        assert_eq!(
            parse(r#"{"request":{"address":"a","id":"r1"}}"#).unwrap(),
            ControlMessage::Request { id: "r1".into() }
        );
        assert_eq!(
            parse(r#"{"injectFault":{}}"#).unwrap(),
            ControlMessage::Other
        );
        for broken in [
            "",
            "[]",
            "{",
            r#"{"accept":{}}"#,
            r#"{"accept":1}"#,
            "\u{0}",
        ] {
            parse(broken).unwrap_err();
        }
    }

    #[test]
    fn what_we_send_is_as_documented() {
        assert_eq!(renew_token("a\"b"), r#"{"renewToken":{"token":"a\"b"}}"#);
        let response: Value = serde_json::from_str(&not_implemented("r1")).unwrap();
        assert_eq!(response["response"]["requestId"], "r1");
        assert_eq!(response["response"]["statusCode"], 501);
        assert_eq!(response["response"]["body"], false);
    }

    #[test]
    fn the_address_is_not_printed() {
        assert!(!format!("{:?}", accept(CAPTURED)).contains("g17"));
    }

    #[test]
    fn messages_are_put_together_up_to_the_limit() {
        let mut assembler = Assembler::default();
        let piece = Bytes::from(vec![b'x'; MAX_MESSAGE]);
        let rest = Bytes::from_static(b"y");
        assert_eq!(assembler.push(&piece, MessageEnd::More), Assembled::Partial);
        assert_eq!(
            assembler.push(&Bytes::new(), MessageEnd::Last),
            Assembled::Message(piece.to_vec())
        );

        assert_eq!(assembler.push(&piece, MessageEnd::More), Assembled::Partial);
        assert_eq!(assembler.push(&rest, MessageEnd::More), Assembled::Partial);
        assert_eq!(assembler.message.capacity(), 0);
        assert_eq!(assembler.push(&rest, MessageEnd::Last), Assembled::TooLong);

        assert_eq!(
            assembler.push(&rest, MessageEnd::Last),
            Assembled::Message(b"y".to_vec())
        );
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_without_panic(text in ".{0,200}") {
            let _ = ControlMessage::parse(text.as_bytes());
        }

        #[test]
        fn any_json_is_parsed_without_panic(
            member in "accept|request|other",
            value in "(null|1|\"[a-z]\"|\\{\"id\":(1|\"a\"),\"address\":\"b\"(,\"connectHeaders\":(\\{\"a\":\\{\\}\\}|null))?\\})",
        ) {
            let _ = ControlMessage::parse(format!("{{\"{member}\":{value}}}").as_bytes());
        }
    }
}
