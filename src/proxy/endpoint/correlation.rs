//! [`CorrelationId`]: the id under which one request is found in the logs of every hop.

use http::{HeaderMap, HeaderValue};
use uuid::Uuid;

use crate::telemetry;

/// Room for two UUIDs and some; what is longer was not made to be read in a log.
const MAX_LENGTH: usize = 128;

/// The value of `x-ms-correlation-request-id`: the client's own, or one made of the session's and the request's UUID.
#[derive(Clone, Debug)]
pub(super) struct CorrelationId(HeaderValue);

/// The part of the ids that all requests of one run share.
#[derive(Clone, Copy, Debug)]
pub(super) struct SessionId(Uuid);

impl SessionId {
    pub(super) fn generate() -> Self {
        Self(Uuid::new_v4())
    }
}

impl CorrelationId {
    /// The id that the client sent, if there is exactly one and it can stand in a log line; else a new one.
    pub(super) fn of_request(headers: &HeaderMap, session: SessionId) -> Self {
        let mut values = headers.get_all(telemetry::HEADER_CORRELATION_ID).iter();
        match (values.next(), values.next()) {
            (Some(only), None) if is_sane(only) => Self(only.clone()),
            _ => Self(
                HeaderValue::from_str(&format!("{}-{}", session.0, Uuid::new_v4()))
                    .expect("a UUID is made of hexadecimal digits and hyphens"),
            ),
        }
    }

    pub(super) fn as_header(&self) -> &HeaderValue {
        &self.0
    }

    pub(super) fn as_str(&self) -> &str {
        self.0
            .to_str()
            .expect("both ways to make one allow visible ASCII only")
    }

    #[cfg(test)]
    pub(super) fn from_static_text(text: &'static str) -> Self {
        Self(HeaderValue::from_static(text))
    }
}

fn is_sane(value: &HeaderValue) -> bool {
    let bytes = value.as_bytes();
    (1..=MAX_LENGTH).contains(&bytes.len())
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(
                telemetry::HEADER_CORRELATION_ID,
                value.parse().expect("a header value"),
            );
        }
        CorrelationId::of_request(&headers, SessionId(Uuid::nil()))
            .as_str()
            .to_owned()
    }

    #[test]
    fn a_sane_id_of_the_client_is_kept() {
        assert_eq!(of(&["7b1f-Run.4:2_x"]), "7b1f-Run.4:2_x");
        let longest = "a".repeat(MAX_LENGTH);
        assert_eq!(of(&[&longest]), longest);
    }

    #[test]
    fn anything_else_gets_a_new_one() {
        let nil = Uuid::nil().to_string();
        for values in [
            &[] as &[&str],
            &[""],
            &["a b"],
            &["a\tb"],
            &["<script>"],
            &["one", "two"],
            &["a".repeat(MAX_LENGTH + 1).as_str()],
        ] {
            let id = of(values);
            assert!(id.starts_with(&nil), "{values:?} gave {id}");
            assert_eq!(id.len(), 36 + 1 + 36);
        }
        assert_ne!(of(&[]), of(&[]));
    }
}
