//! Shared access signatures: made here for the relay, checked here by the embedded relay.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use secrecy::{ExposeSecret, SecretString};

use super::{HybridConnection, RelayToken};
use crate::{Error, ErrorKind, Result, crypto};

/// A shared access rule: its name and one of its keys. Never prints the key.
///
/// ```
/// use arc_cluster_connect::relay::SasRule;
///
/// # fn main() -> arc_cluster_connect::Result<()> {
/// let rule = SasRule::new("send", "an-example-key")?;
/// assert_eq!(rule.name(), "send");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SasRule {
    name: String,
    key: SecretString,
}

impl SasRule {
    /// A rule. The key is used as the portal shows it: its base64 text is *not* decoded.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when name or key is empty, has more than 256 characters or holds a control
    /// character.
    pub fn new(name: impl Into<String>, key: impl Into<String>) -> Result<Self> {
        let name = name.into();
        let key = SecretString::from(key.into());
        check_part("name", &name)?;
        check_part("key", key.expose_secret())?;
        Ok(Self { name, key })
    }

    /// The rule's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// For the connection strings that the embedded relay hands out.
    #[cfg(feature = "relay-server")]
    pub(super) fn key(&self) -> &str {
        self.key.expose_secret()
    }

    /// A token for `hybrid_connection` until `expires_at` (whole seconds, rounded down).
    pub fn sign(&self, hybrid_connection: &HybridConnection, expires_at: SystemTime) -> RelayToken {
        self.sign_audience(&hybrid_connection.audience(), expires_at)
    }

    fn sign_audience(&self, audience: &str, expires_at: SystemTime) -> RelayToken {
        let seconds = expires_at
            .duration_since(UNIX_EPOCH)
            .unwrap_or(Duration::ZERO)
            .as_secs();
        let resource = escape(audience).to_string();
        let signature = STANDARD.encode(self.mac(&resource, &seconds.to_string()));
        RelayToken::new(
            format!(
                "{SCHEME} sr={resource}&sig={}&se={seconds}&skn={}",
                escape(&signature),
                escape(&self.name)
            ),
            Some(UNIX_EPOCH + Duration::from_secs(seconds)),
        )
    }

    /// The MAC covers the escaped resource exactly as it stands in the token, upper- or lower-case escapes alike.
    fn mac(&self, resource: &str, expiry: &str) -> [u8; 32] {
        crypto::hmac_sha256(
            self.key.expose_secret().as_bytes(),
            format!("{resource}\n{expiry}").as_bytes(),
        )
    }
}

impl fmt::Debug for SasRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SasRule")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// A token taken apart; nothing about it is proven until [`verify`](Self::verify) said so.
pub(crate) struct SasToken<'a> {
    /// `sr` as received.
    resource: &'a str,
    /// `se` as received.
    expiry: &'a str,
    expires_at: SystemTime,
    signature: Vec<u8>,
    rule_name: String,
}

impl<'a> SasToken<'a> {
    /// Reads `SharedAccessSignature sr=…&sig=…&se=…&skn=…`, the fields in any order. Unknown fields are ignored, a
    /// field given twice is not.
    pub(crate) fn parse(text: &'a str) -> Result<Self, SasError> {
        if text.len() > MAX_TOKEN_LENGTH {
            return Err(SasError::Malformed("it is too long"));
        }
        let fields = text
            .split_once(' ')
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case(SCHEME))
            .map(|(_, fields)| fields)
            .ok_or(SasError::Malformed(
                "it does not begin with SharedAccessSignature",
            ))?;
        let (mut resource, mut signature, mut expiry, mut rule_name) = (None, None, None, None);
        for field in fields.split('&') {
            let (name, value) = field
                .split_once('=')
                .ok_or(SasError::Malformed("a field has no value"))?;
            let slot = match name {
                "sr" => &mut resource,
                "sig" => &mut signature,
                "se" => &mut expiry,
                "skn" => &mut rule_name,
                _ => continue,
            };
            if slot.replace(value).is_some() {
                return Err(SasError::Malformed("a field is there twice"));
            }
        }
        let resource = resource.ok_or(SasError::Malformed("the field sr is missing"))?;
        let signature = signature.ok_or(SasError::Malformed("the field sig is missing"))?;
        let expiry = expiry.ok_or(SasError::Malformed("the field se is missing"))?;
        let rule_name = rule_name.ok_or(SasError::Malformed("the field skn is missing"))?;

        let rule_name = unescape(rule_name).ok_or(SasError::Malformed("skn is not UTF-8"))?;
        if rule_name.is_empty() || rule_name.chars().count() > MAX_PART_LENGTH {
            return Err(SasError::Malformed("skn is empty or too long"));
        }
        let signature = unescape(signature)
            .and_then(|text| STANDARD.decode(text).ok())
            .ok_or(SasError::Malformed("sig is not base64"))?;
        Ok(Self {
            resource,
            expiry,
            expires_at: parse_expiry(expiry).ok_or(SasError::Malformed("se is not a time"))?,
            signature,
            rule_name,
        })
    }

    /// The time after which the token is worthless.
    pub(crate) fn expires_at(&self) -> SystemTime {
        self.expires_at
    }
}

impl SasToken<'_> {
    /// The rule under whose key the token claims to be signed.
    pub(crate) fn rule_name(&self) -> &str {
        &self.rule_name
    }

    /// Checks, in this order, that `rule` signed the token, that it is valid at `now`, and that it covers the entity
    /// `path` on `host`. The order keeps an unsigned token from learning anything.
    ///
    /// Scheme, port, a trailing slash and `$hc/` in the audience count for nothing; host and path are compared
    /// without case; the token's path covers itself and everything below it, so that a token for the whole namespace
    /// has an empty one.
    pub(crate) fn verify(
        &self,
        rule: &SasRule,
        host: &str,
        path: &str,
        now: SystemTime,
    ) -> Result<(), SasError> {
        let mac = rule.mac(self.resource, self.expiry);
        if self.rule_name != rule.name || !crypto::equal(&mac, &self.signature) {
            return Err(SasError::InvalidSignature);
        }
        if self.expires_at <= now {
            return Err(SasError::Expired);
        }
        if !self.covers(host, path) {
            return Err(SasError::InvalidAudience);
        }
        Ok(())
    }

    fn covers(&self, host: &str, path: &str) -> bool {
        let Some(audience) = unescape(self.resource) else {
            return false;
        };
        let after_scheme = audience
            .split_once("://")
            .map_or(audience.as_str(), |(_, rest)| rest);
        let (authority, audience_path) = after_scheme.split_once('/').unwrap_or((after_scheme, ""));
        let same_host = without_port(authority).eq_ignore_ascii_case(without_port(host));
        let mut wanted = segments(path);
        same_host
            && segments(audience_path).all(|segment| {
                wanted
                    .next()
                    .is_some_and(|other| segment.eq_ignore_ascii_case(other))
            })
    }
}

impl fmt::Debug for SasToken<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SasToken")
            .field("rule_name", &self.rule_name)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// Why a token is refused. Names no part of the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SasError {
    /// It has ended.
    #[error("the token has expired")]
    Expired,
    /// It is for another host or entity.
    #[error("the token is for another audience")]
    InvalidAudience,
    /// The key, or the rule, is another one, or the token was changed.
    #[error("the token has an invalid signature")]
    InvalidSignature,
    /// It is no token at all.
    #[error("the token is malformed: {0}")]
    Malformed(&'static str),
}

/// The segments of an entity path, without outer slashes and without the `$hc` marker.
fn segments(path: &str) -> impl Iterator<Item = &str> {
    let path = path.trim_matches('/');
    let path = match path.strip_prefix("$hc") {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => rest.trim_start_matches('/'),
        _ => path,
    };
    path.split('/').filter(|_| !path.is_empty())
}

/// `host` of `host`, `host:port`, `[v6]`, `[v6]:port` and a bare IPv6 address.
fn without_port(authority: &str) -> &str {
    if let Some(bracketed) = authority.strip_prefix('[') {
        return bracketed.split(']').next().unwrap_or(bracketed);
    }
    match authority.split_once(':') {
        Some((host, port)) if !port.contains(':') => host,
        _ => authority,
    }
}

/// Digits only: `+5` and ` 5` would be numbers to [`str::parse`].
fn parse_expiry(text: &str) -> Option<SystemTime> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    UNIX_EPOCH.checked_add(Duration::from_secs(text.parse().ok()?))
}

fn check_part(which: &str, text: &str) -> Result<()> {
    let reason = if text.is_empty() {
        "is empty"
    } else if text.chars().count() > MAX_PART_LENGTH {
        "has more than 256 characters"
    } else if text.chars().any(char::is_control) {
        "holds a control character"
    } else {
        return Ok(());
    };
    Err(Error::new(
        ErrorKind::InvalidInput,
        format!("the {which} of the shared access rule {reason}"),
    )
    .with_help("copy it from 'Shared access policies' of the relay"))
}

fn escape(text: &str) -> percent_encoding::PercentEncode<'_> {
    utf8_percent_encode(text, ESCAPES)
}

fn unescape(text: &str) -> Option<String> {
    Some(percent_decode_str(text).decode_utf8().ok()?.into_owned())
}

const SCHEME: &str = "SharedAccessSignature";

/// Azure's own limit for the name and for the key of a rule.
const MAX_PART_LENGTH: usize = 256;

/// The longest path and rule name, every byte escaped, need about 2.6 KiB; header limits of common servers begin at
/// 8 KiB.
const MAX_TOKEN_LENGTH: usize = 4096;

const ESCAPES: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

#[cfg(test)]
mod tests;
