//! The `response` message: a listener's answer to an HTTP request.

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use hyper::ext::ReasonPhrase;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Refusal, body::RelayBody, http_headers, refusal::printable};

/// What a listener answers with, unchecked.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ResponseMessage {
    #[serde(default)]
    request_id: String,
    /// A number; of several clients a text.
    #[serde(default)]
    status_code: Value,
    status_description: Option<String>,
    response_headers: Option<Map<String, Value>>,
    /// Whether a binary message follows.
    body: Option<bool>,
}

/// A message that can hold one.
#[derive(Deserialize)]
struct Envelope {
    response: Option<ResponseMessage>,
}

impl ResponseMessage {
    /// `None` when it is another message, or none at all.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        serde_json::from_slice::<Envelope>(text).ok()?.response
    }

    pub(super) fn request_id(&self) -> &str {
        &self.request_id
    }

    pub(super) fn has_body(&self) -> bool {
        self.body == Some(true)
    }

    /// The answer to the sender.
    ///
    /// Nothing in it can end the status line or a header early: what HTTP can not carry is refused, and a reason phrase
    /// is made printable.
    pub(super) fn into_response(
        self,
        body: RelayBody,
        host: &str,
    ) -> Result<Response<RelayBody>, Refusal> {
        let mut response = Response::new(body);
        *response.status_mut() = status(&self.status_code).ok_or_else(|| {
            Refusal::new(
                StatusCode::BAD_GATEWAY,
                "The listener's response has a status that can not be passed on",
            )
        })?;
        let headers = response.headers_mut();
        for (name, value) in self.response_headers.unwrap_or_default() {
            add(headers, &name, value).ok_or_else(|| {
                Refusal::new(
                    StatusCode::BAD_GATEWAY,
                    "The listener's response has a header that can not be passed on",
                )
            })?;
        }
        http_headers::end_to_end(headers, host);
        let description = self.status_description.unwrap_or_default();
        if !description.is_empty()
            && let Ok(phrase) = ReasonPhrase::try_from(printable(&description))
        {
            response.extensions_mut().insert(phrase);
        }
        Ok(response)
    }
}

/// A final status. The guide forbids 502 and 504 to listeners, but the service passes both.
fn status(value: &Value) -> Option<StatusCode> {
    let code = match value {
        Value::String(text) => text.trim().parse().ok()?,
        other => u16::try_from(other.as_u64()?).ok()?,
    };
    StatusCode::from_u16(code)
        .ok()
        .filter(|status| status.as_u16() >= 200)
}

/// Adds a header; a list of values is one header for each, as cookies need it.
fn add(headers: &mut HeaderMap, name: &str, value: Value) -> Option<()> {
    let name = HeaderName::try_from(name).ok()?;
    let values = match value {
        Value::Array(values) => values,
        one => vec![one],
    };
    for value in values {
        let text = match value {
            Value::String(text) => text,
            Value::Null => continue,
            other => other.to_string(),
        };
        let value = HeaderValue::try_from(text.trim()).ok()?;
        headers.try_append(&name, value).ok()?;
    }
    Some(())
}

/// Takes `input` for a `response` message: nothing in it may end a header or the status line.
#[cfg(any(fuzzing, test))]
pub(in crate::relay) fn fuzz(input: &[u8]) {
    let Some(message) = ResponseMessage::parse(input) else {
        return;
    };
    if let Ok(response) = message.into_response(RelayBody::empty(), "relay") {
        let phrase = response.extensions().get::<ReasonPhrase>();
        let values = response.headers().values().map(HeaderValue::as_bytes);
        for bytes in values.chain(phrase.map(ReasonPhrase::as_bytes)) {
            assert!(!bytes.iter().any(|byte| b"\r\n\0".contains(byte)));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn response(text: &str) -> Result<Response<RelayBody>, Refusal> {
        ResponseMessage::parse(text.as_bytes())
            .unwrap()
            .into_response(RelayBody::empty(), "relay")
    }

    #[test]
    fn a_response_as_the_clients_send_it() {
        let text = r#"{"response":{"requestId":"r_G1","statusCode":"201","statusDescription":"Made",
            "responseHeaders":{"X-A":"1","Set-Cookie":["a=1","b=2"],"X-N":7,"Content-Length":"3",
            "Transfer-Encoding":"chunked","Connection":"X-Hop","X-Hop":"1"},"body":true,"newer":1}}"#;
        let message = ResponseMessage::parse(text.as_bytes()).unwrap();
        assert_eq!(message.request_id(), "r_G1");
        assert!(message.has_body());
        let response = message.into_response(RelayBody::empty(), "relay").unwrap();
        assert_eq!(response.status(), 201);
        let phrase = response.extensions().get::<ReasonPhrase>().unwrap();
        assert_eq!(phrase.as_bytes(), b"Made");
        let headers = response.headers();
        assert_eq!(headers.get_all("set-cookie").iter().count(), 2);
        assert_eq!(
            (&headers["x-n"], &headers["via"]),
            (&"7".parse().unwrap(), &"1.1 relay".parse().unwrap())
        );
        assert_eq!(headers.len(), 5, "{headers:?}");
    }

    #[test]
    fn every_status_of_the_clients_passes() {
        for code in [200, 204, 304, 418, 450, 502, 504, 999] {
            let text = format!(r#"{{"response":{{"requestId":"r","statusCode":{code}}}}}"#);
            assert_eq!(response(&text).unwrap().status().as_u16(), code);
        }
        for code in [
            "0", "99", "100", "101", "1000", "-1", "null", "\"x\"", "2.5", "[]",
        ] {
            let text = format!(r#"{{"response":{{"requestId":"r","statusCode":{code}}}}}"#);
            assert_eq!(response(&text).unwrap_err().status(), 502, "{code}");
        }
        assert_eq!(response(r#"{"response":{}}"#).unwrap_err().status(), 502);
    }

    #[test]
    fn nothing_breaks_out_of_a_header_or_the_status_line() {
        for header in [
            r#""X":"a\r\nSet-Cookie: b""#,
            r#""X":"a\u0000""#,
            r#""X\r\nY":"a""#,
            r#""X: Y":"a""#,
            r#""":"a""#,
            r#""X":["a","b\nc"]"#,
        ] {
            let text = format!(
                r#"{{"response":{{"requestId":"r","statusCode":200,"responseHeaders":{{{header}}}}}}}"#
            );
            assert_eq!(response(&text).unwrap_err().status(), 502, "{header}");
        }
        let split = response(
            r#"{"response":{"requestId":"r","statusCode":200,"statusDescription":"a\r\nX: b"}}"#,
        )
        .unwrap();
        let phrase = split.extensions().get::<ReasonPhrase>().unwrap();
        assert_eq!(phrase.as_bytes(), b"a  X: b");
    }

    #[test]
    fn other_messages_are_told_apart() {
        for other in [
            "",
            "{}",
            "[]",
            r#"{"renewToken":{"token":"t"}}"#,
            r#"{"response":1}"#,
            r#"{"response":{"requestId":1}}"#,
            r#"{"response":{"body":"yes"}}"#,
        ] {
            assert!(
                ResponseMessage::parse(other.as_bytes()).is_none(),
                "{other}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_response_panics_or_carries_a_line_break(
            status in ".{0,6}", phrase in ".{0,20}", name in ".{0,10}", value in ".{0,20}",
        ) {
            let text = serde_json::json!({ "response": {
                "requestId": "r", "statusCode": status, "statusDescription": phrase,
                "responseHeaders": { name: value },
            }}).to_string();
            if let Ok(response) = response(&text) {
                let unsafe_byte = |bytes: &[u8]| bytes.iter().any(|byte| b"\r\n\0".contains(byte));
                for value in response.headers().values() {
                    prop_assert!(!unsafe_byte(value.as_bytes()));
                }
                if let Some(phrase) = response.extensions().get::<ReasonPhrase>() {
                    prop_assert!(!unsafe_byte(phrase.as_bytes()));
                }
            }
        }
    }
}
