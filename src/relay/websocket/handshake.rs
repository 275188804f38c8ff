//! What both ends of the opening handshake share (RFC 6455 sections 1.3 and 4).

use base64::{Engine, prelude::BASE64_STANDARD};

use crate::crypto;

/// The `Sec-WebSocket-Accept` that answers a `Sec-WebSocket-Key`.
pub(crate) fn accept_key(key: &[u8]) -> String {
    let mut text = key.trim_ascii().to_vec();
    text.extend_from_slice(GUID);
    BASE64_STANDARD.encode(crypto::sha1(&text))
}

/// A fresh `Sec-WebSocket-Key`.
pub(crate) fn new_key() -> String {
    BASE64_STANDARD.encode(crypto::random::<KEY_BYTES>())
}

/// Whether a `Sec-WebSocket-Key` is base64 of 16 bytes.
#[cfg(any(test, feature = "relay-server"))]
pub(crate) fn is_valid_key(key: &[u8]) -> bool {
    BASE64_STANDARD
        .decode(key.trim_ascii())
        .is_ok_and(|bytes| bytes.len() == KEY_BYTES)
}

/// The only version that exists on the wire.
pub(crate) const VERSION: &str = "13";

const KEY_BYTES: usize = 16;
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_6455_section_1_3() {
        assert_eq!(
            accept_key(b"dGhlIHNhbXBsZSBub25jZQ=="),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
    }

    #[test]
    fn a_key_is_16_bytes() {
        assert!(is_valid_key(new_key().as_bytes()));
        assert!(is_valid_key(b"dGhlIHNhbXBsZSBub25jZQ=="));
        assert!(!is_valid_key(b"c2hvcnQ="));
        assert!(!is_valid_key(b"not base64"));
        assert_ne!(new_key(), new_key());
    }
}
