//! The ids that tie one request's traces together.

use http::{HeaderMap, HeaderValue};
use uuid::Uuid;

use crate::telemetry;

/// The longest correlation id that is taken over. A GUID has 36 characters; tools append a suffix.
const MAX_CORRELATION_ID: usize = 128;

/// Ties a request to its client session. From the caller when usable, else made up here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CorrelationId(String);

impl CorrelationId {
    /// The caller's, when there is exactly one and it is short and harmless in a log.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut values = headers.get_all(telemetry::HEADER_CORRELATION_ID).iter();
        match (values.next().map(HeaderValue::to_str), values.next()) {
            (Some(Ok(text)), None) if is_harmless(text) => Self(text.to_owned()),
            _ => Self::generate(),
        }
    }

    pub(super) fn generate() -> Self {
        Self(Uuid::new_v4().to_string())
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn to_header(&self) -> HeaderValue {
        HeaderValue::from_str(&self.0).expect("letters, digits and punctuation are a header value")
    }
}

/// Ties a request to the API server's audit log. Always ours: the API server stores a caller's value unchecked.
#[derive(Clone, Copy, Debug)]
pub(super) struct AuditId(Uuid);

impl AuditId {
    pub(super) fn generate() -> Self {
        Self(Uuid::new_v4())
    }

    pub(super) fn to_header(self) -> HeaderValue {
        HeaderValue::from_str(&self.0.to_string()).expect("a UUID is a header value")
    }
}

impl std::fmt::Display for AuditId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

fn is_harmless(text: &str) -> bool {
    (1..=MAX_CORRELATION_ID).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(
                telemetry::HEADER_CORRELATION_ID,
                value.parse().expect("a header value"),
            );
        }
        headers
    }

    #[test]
    fn a_usable_id_is_kept() {
        let longest = "a".repeat(MAX_CORRELATION_ID);
        for id in ["0f8fad5b-d9cb-469f-a165-70867728950e", "run.7_b", &longest] {
            assert_eq!(CorrelationId::of(&with(&[id])).as_str(), id);
        }
    }

    #[test]
    fn anything_else_is_replaced() {
        let too_long = "a".repeat(MAX_CORRELATION_ID + 1);
        for ids in [
            &[][..],
            &[""],
            &["a b"],
            &["a\tb"],
            &[too_long.as_str()],
            &["a", "b"],
        ] {
            let id = CorrelationId::of(&with(ids));
            assert_eq!(id.as_str().len(), 36, "{ids:?}");
        }
    }
}
