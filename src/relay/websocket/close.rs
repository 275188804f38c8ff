//! [`CloseReason`]: the body of a Close frame.

use super::{error::Violation, frame::MAX_CONTROL_PAYLOAD};

/// Why one direction ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CloseReason {
    /// A status code of RFC 6455 section 7.4.
    pub(crate) code: u16,
    /// A text for people. At most [`MAX_REASON`] bytes of it travel.
    pub(crate) reason: String,
}

/// A control frame's payload less the two bytes of the code.
pub(crate) const MAX_REASON: usize = MAX_CONTROL_PAYLOAD - 2;

impl CloseReason {
    /// The purpose was fulfilled.
    pub(crate) const NORMAL: u16 = 1000;
    /// The endpoint is leaving: a server shutting down, an entity deleted.
    #[cfg(feature = "relay-server")]
    pub(crate) const GOING_AWAY: u16 = 1001;
    /// A rule of the endpoint was broken. Azure Relay: the token expired, or its renewal failed.
    pub(crate) const POLICY: u16 = 1008;
    /// The server can not go on. Azure Relay: also when it moves an endpoint, once a day.
    #[cfg(feature = "relay-server")]
    pub(crate) const SERVICE_ERROR: u16 = 1011;

    pub(crate) fn new(code: u16, reason: impl Into<String>) -> Self {
        Self {
            code,
            reason: reason.into(),
        }
    }

    /// Reads the payload of a Close frame; an empty one carries no reason.
    pub(super) fn parse(payload: &[u8]) -> Result<Option<Self>, Violation> {
        let Some((code, reason)) = payload.split_first_chunk() else {
            return if payload.is_empty() {
                Ok(None)
            } else {
                Err(Violation::TruncatedCloseCode)
            };
        };
        let code = u16::from_be_bytes(*code);
        if !may_be_sent(code) {
            return Err(Violation::InvalidCloseCode(code));
        }
        let reason = std::str::from_utf8(reason).map_err(|_| Violation::CloseReasonNotUtf8)?;
        Ok(Some(Self::new(code, reason)))
    }

    /// The payload of a Close frame. A code that may not travel (1005, 1006, …) stands for "none given".
    pub(super) fn to_payload(&self) -> Vec<u8> {
        let mut payload = Vec::new();
        if may_be_sent(self.code) {
            payload.extend_from_slice(&self.code.to_be_bytes());
            payload.extend_from_slice(prefix(&self.reason, MAX_REASON).as_bytes());
        }
        payload
    }
}

/// RFC 6455 section 7.4 and the IANA registry: 1004, 1005, 1006 and 1015 are never on the wire, 1016–2999 are not
/// assigned, 3000–4999 belong to libraries and applications.
fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// The longest prefix of at most `limit` bytes that ends between characters (`str::floor_char_boundary` is newer than
/// the MSRV).
fn prefix(text: &str, limit: usize) -> &str {
    let end = (0..=limit.min(text.len()))
        .rev()
        .find(|&at| text.is_char_boundary(at))
        .unwrap_or(0);
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_that_may_travel() {
        for code in [1000, 1001, 1002, 1003, 1007, 1011, 1014, 3000, 4999] {
            assert!(
                CloseReason::parse(&u16::to_be_bytes(code)).is_ok(),
                "{code}"
            );
        }
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535] {
            assert_eq!(
                CloseReason::parse(&u16::to_be_bytes(code)),
                Err(Violation::InvalidCloseCode(code))
            );
        }
    }

    #[test]
    fn a_body_is_empty_or_starts_with_a_code() {
        assert_eq!(CloseReason::parse(b""), Ok(None));
        assert_eq!(
            CloseReason::parse(b"\x03"),
            Err(Violation::TruncatedCloseCode)
        );
        assert_eq!(
            CloseReason::parse(b"\x03\xe8\xff"),
            Err(Violation::CloseReasonNotUtf8)
        );
        assert_eq!(
            CloseReason::parse(b"\x03\xe8bye"),
            Ok(Some(CloseReason::new(1000, "bye")))
        );
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let payload = CloseReason::new(1000, "é".repeat(100)).to_payload();
        assert_eq!(payload.len(), 2 + 122);
        assert!(CloseReason::parse(&payload).is_ok());
    }

    #[test]
    fn a_code_that_may_not_travel_is_left_out() {
        assert!(CloseReason::new(1006, "lost").to_payload().is_empty());
    }
}
