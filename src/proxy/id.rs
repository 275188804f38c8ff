//! [`ProxyId`]: which cluster a request at the local endpoint is for.

use std::{fmt, str::FromStr};

use crate::{Error, ErrorKind, Result, crypto};

/// The id of a cluster in the path of the local endpoint: 64 hexadecimal digits.
///
/// ```
/// use arc_cluster_connect::proxy::ProxyId;
///
/// let id = ProxyId::from_name("/subscriptions/S/…/connectedClusters/Edge");
/// assert_eq!(id, ProxyId::from_name("/subscriptions/s/…/connectedclusters/edge"));
/// assert_eq!(id.to_string().len(), 64);
/// assert_eq!(id.to_string().parse::<ProxyId>().unwrap(), id);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProxyId([u8; ProxyId::BYTES]);

impl ProxyId {
    const BYTES: usize = 32;
    pub(super) const HEX_DIGITS: usize = 2 * Self::BYTES;

    /// The id of the cluster called `name`, by convention its Azure resource id: the SHA-256 of the lower-cased text,
    /// since Azure resource ids are equal whatever their case.
    pub fn from_name(name: &str) -> Self {
        Self(crypto::sha256(name.to_lowercase().as_bytes()))
    }
}

impl FromStr for ProxyId {
    type Err = Error;

    /// Reads 64 hexadecimal digits of either case.
    fn from_str(text: &str) -> Result<Self> {
        let malformed = || {
            Error::new(
                ErrorKind::InvalidInput,
                "a cluster id at the local endpoint is 64 hexadecimal digits",
            )
        };
        if text.len() != Self::HEX_DIGITS {
            return Err(malformed());
        }
        let mut bytes = [0; Self::BYTES];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let high = hex_digit(pair[0]).ok_or_else(malformed)?;
            let low = hex_digit(pair[1]).ok_or_else(malformed)?;
            *byte = high << 4 | low;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for ProxyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crypto::hex(&self.0))
    }
}

impl fmt::Debug for ProxyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProxyId({self})")
    }
}

fn hex_digit(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_is_the_digest_of_the_lower_cased_name() {
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(ProxyId::from_name("aBc").to_string(), abc);
    }

    #[test]
    fn only_64_hex_digits_parse() {
        let id = ProxyId::from_name("edge");
        assert_eq!(
            id.to_string()
                .to_uppercase()
                .parse::<ProxyId>()
                .expect("hex"),
            id
        );
        for malformed in [
            "",
            "ab",
            &"g".repeat(64),
            &"a".repeat(63),
            &"a".repeat(65),
            // 64 bytes, but not 64 digits.
            &"é".repeat(32),
            &format!("+{}", "a".repeat(63)),
        ] {
            assert!(malformed.parse::<ProxyId>().is_err(), "{malformed}");
        }
    }
}
