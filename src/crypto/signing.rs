//! [`SigningKey`]: a key pair that signs what we make ourselves: proofs of possession, and assertions of a certificate.

#[cfg(feature = "aws-lc-rs")]
use aws_lc_rs as provider;
#[cfg(all(feature = "ring", not(feature = "aws-lc-rs")))]
use ring as provider;

use provider::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
    },
};

/// Bytes of one coordinate on P-256.
const P256_COORDINATE: usize = 32;

/// A key pair. There is deliberately no way to print it.
pub(crate) enum SigningKey {
    /// Signs as `RS256`.
    Rsa(RsaKeyPair),
    /// On P-256; signs as `ES256`.
    P256(EcdsaKeyPair),
}

/// The public half.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PublicKey {
    /// Modulus and exponent, big-endian without leading zeros.
    Rsa { n: Vec<u8>, e: Vec<u8> },
    /// Coordinates of full length.
    P256 { x: Vec<u8>, y: Vec<u8> },
}

impl SigningKey {
    /// A new key as a PKCS#8 document, of the kind that the provider can make: RSA with 2048 bits from `aws-lc-rs`,
    /// P-256 from `ring`, which makes no RSA keys.
    #[cfg(feature = "aws-lc-rs")]
    pub(crate) fn generate_pkcs8() -> Option<Vec<u8>> {
        use provider::encoding::{AsDer, Pkcs8V1Der};

        let pair = RsaKeyPair::generate(provider::rsa::KeySize::Rsa2048).ok()?;
        let document: Pkcs8V1Der<'_> = pair.as_der().ok()?;
        Some(document.as_ref().to_vec())
    }

    #[cfg(all(feature = "ring", not(feature = "aws-lc-rs")))]
    pub(crate) fn generate_pkcs8() -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random)
            .ok()
            .map(|document| document.as_ref().to_vec())
    }

    /// The key of a PKCS#8 document: RSA from 2048 bits on, or P-256.
    pub(crate) fn from_pkcs8(document: &[u8]) -> Option<Self> {
        if let Ok(pair) = RsaKeyPair::from_pkcs8(document) {
            return Some(Self::Rsa(pair));
        }
        #[cfg(feature = "aws-lc-rs")]
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document);
        #[cfg(all(feature = "ring", not(feature = "aws-lc-rs")))]
        let pair = EcdsaKeyPair::from_pkcs8(
            &ECDSA_P256_SHA256_FIXED_SIGNING,
            document,
            &SystemRandom::new(),
        );
        pair.ok().map(Self::P256)
    }

    /// The name of the signature algorithm (RFC 7518 section 3.1).
    pub(crate) fn algorithm(&self) -> &'static str {
        match self {
            Self::Rsa(_) => "RS256",
            Self::P256(_) => "ES256",
        }
    }

    pub(crate) fn public(&self) -> Option<PublicKey> {
        match self {
            Self::Rsa(pair) => {
                let (n, e) = rsa_components(pair.public_key().as_ref())?;
                Some(PublicKey::Rsa { n, e })
            }
            Self::P256(pair) => {
                // An uncompressed point: 4, x, y.
                let (_, coordinates) = pair.public_key().as_ref().split_first()?;
                let (x, y) = coordinates.split_at_checked(P256_COORDINATE)?;
                Some(PublicKey::P256 {
                    x: x.to_vec(),
                    y: y.to_vec(),
                })
            }
        }
    }

    /// The signature of `message`; none when the random source fails.
    pub(crate) fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        match self {
            Self::Rsa(pair) => {
                let (n, _) = rsa_components(pair.public_key().as_ref())?;
                let mut signature = vec![0; n.len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)
                    .ok()?;
                Some(signature)
            }
            Self::P256(pair) => Some(pair.sign(&random, message).ok()?.as_ref().to_vec()),
        }
    }
}

/// Modulus and exponent out of an `RSAPublicKey` (RFC 8017 appendix A.1.1), which both providers give in DER.
fn rsa_components(der: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    const SEQUENCE: u8 = 0x30;
    const INTEGER: u8 = 0x02;

    let (sequence, _) = der_value(der, SEQUENCE)?;
    let (n, rest) = der_value(sequence, INTEGER)?;
    let (e, _) = der_value(rest, INTEGER)?;
    let unsigned = |integer: &[u8]| {
        let start = integer.iter().position(|&byte| byte != 0)?;
        Some(integer[start..].to_vec())
    };
    Some((unsigned(n)?, unsigned(e)?))
}

/// The content of one DER value of this tag, and what follows it.
fn der_value(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let rest = der.strip_prefix(&[tag])?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x82 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let length = bytes
                .iter()
                .fold(0, |sum, &byte| sum << 8 | usize::from(byte));
            (length, rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_key_signs_and_has_a_public_half() {
        let document = SigningKey::generate_pkcs8().unwrap();
        let key = SigningKey::from_pkcs8(&document).unwrap();
        assert!(!key.sign(b"message").unwrap().is_empty());
        let strong = match key.public().unwrap() {
            PublicKey::Rsa { n, e } => n.len() == 256 && e == [1, 0, 1],
            PublicKey::P256 { x, y } => x.len() == 32 && y.len() == 32,
        };
        assert!(strong);
        let another = SigningKey::from_pkcs8(&SigningKey::generate_pkcs8().unwrap()).unwrap();
        assert_ne!(another.public(), key.public());
    }

    #[test]
    fn what_is_no_key_is_none() {
        for document in [&b""[..], b"x", &[0x30, 0x82, 0xff, 0xff]] {
            assert!(SigningKey::from_pkcs8(document).is_none());
        }
    }

    #[test]
    fn malformed_der_is_nothing_and_panics_nowhere() {
        for der in [
            &[][..],
            &[0x30],
            &[0x30, 0x05, 0x02],
            &[0x30, 0x80],
            &[0x30, 0x83, 0, 0, 1, 0],
            &[0x30, 0x04, 0x02, 0x01, 0x00, 0x02],
            &[0x30, 0x06, 0x02, 0x01, 0x00, 0x02, 0x01, 0x03],
        ] {
            assert_eq!(rsa_components(der), None, "{der:?}");
        }
        assert_eq!(
            rsa_components(&[0x30, 0x07, 0x02, 0x02, 0x00, 0x81, 0x02, 0x01, 0x03]),
            Some((vec![0x81], vec![3]))
        );
    }
}
