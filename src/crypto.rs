//! The digests, the MAC and the random source of the crate, from whichever provider feature is on.
//!
//! With both providers on, `aws-lc-rs` is used, as in [`net`](crate::net): adding a feature never weakens anything.

mod signing;

use std::fmt::Write;

#[cfg(feature = "aws-lc-rs")]
use aws_lc_rs as provider;
#[cfg(all(feature = "ring", not(feature = "aws-lc-rs")))]
use ring as provider;

#[cfg(any(feature = "agent", feature = "relay-server"))]
use provider::signature;
use provider::{digest, hmac, rand::SecureRandom};

pub(crate) use signing::{PublicKey, SigningKey};

pub(crate) fn sha256(data: &[u8]) -> [u8; 32] {
    digest::digest(&digest::SHA256, data)
        .as_ref()
        .try_into()
        .expect("SHA-256 has 32 bytes")
}

/// For `Sec-WebSocket-Accept` only (RFC 6455 section 4.2.2 names SHA-1; nothing secret depends on it).
pub(crate) fn sha1(data: &[u8]) -> [u8; 20] {
    digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, data)
        .as_ref()
        .try_into()
        .expect("SHA-1 has 20 bytes")
}

pub(crate) fn hmac_sha256(key: &[u8], data: &[u8]) -> [u8; 32] {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data)
        .as_ref()
        .try_into()
        .expect("HMAC-SHA-256 has 32 bytes")
}

/// Compares in a time that depends on the lengths only.
pub(crate) fn equal(left: &[u8], right: &[u8]) -> bool {
    subtle::ConstantTimeEq::ct_eq(left, right).into()
}

/// Bytes from the operating system's random source.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    provider::rand::SystemRandom::new()
        .fill(&mut bytes)
        .expect("the operating system has a random source");
    bytes
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// The signatures that tokens carry (RFC 7518 section 3.1), all over SHA-256.
#[cfg(any(feature = "agent", feature = "relay-server"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RsaPadding {
    /// `RS256`.
    Pkcs1,
    /// `PS256`.
    #[cfg(feature = "agent")]
    Pss,
}

/// Whether `signature` over `message` was made by the owner of the RSA key with modulus `n` and exponent `e`, both
/// big-endian without leading zeros. Keys below 2048 bits verify nothing.
#[cfg(any(feature = "agent", feature = "relay-server"))]
pub(crate) fn rsa_verifies(
    padding: RsaPadding,
    n: &[u8],
    e: &[u8],
    message: &[u8],
    signature: &[u8],
) -> bool {
    let parameters = match padding {
        RsaPadding::Pkcs1 => &signature::RSA_PKCS1_2048_8192_SHA256,
        #[cfg(feature = "agent")]
        RsaPadding::Pss => &signature::RSA_PSS_2048_8192_SHA256,
    };
    signature::RsaPublicKeyComponents { n, e }
        .verify(parameters, message, signature)
        .is_ok()
}

/// Whether `signature` (`r || s`, 64 bytes) over `message` was made by the owner of the P-256 key `point`
/// (uncompressed, 65 bytes). `ES256`.
#[cfg(feature = "agent")]
pub(crate) fn ecdsa_p256_verifies(point: &[u8], message: &[u8], signature: &[u8]) -> bool {
    signature::UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point)
        .verify(message, signature)
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers() {
        assert_eq!(
            hex(&sha256(b"abc")),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(
            hex(&sha1(b"abc")),
            "a9993e364706816aba3e25717850c26c9cd0d89d"
        );
        // RFC 4231, test case 2.
        assert_eq!(
            hex(&hmac_sha256(b"Jefe", b"what do ya want for nothing?")),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }

    #[test]
    fn equality_looks_at_every_byte() {
        assert!(equal(b"secret", b"secret"));
        assert!(!equal(b"secret", b"secreT"));
        assert!(!equal(b"secret", b"secre"));
    }

    #[test]
    fn random_values_differ() {
        assert_ne!(random::<16>(), random::<16>());
    }
}
