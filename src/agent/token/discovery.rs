//! [`Discovery`]: from an issuer's discovery document to its keys (OpenID Connect Discovery 1.0 section 4).

use async_trait::async_trait;
use http::{StatusCode, Uri};
use serde_json::Value;

use super::{json, key_store::KeySource, keys::KeySet};
use crate::{
    Error, ErrorKind, Result,
    net::{HttpClient, HttpRequest},
};

/// Reads the document, then the key set that it names. Nothing is followed elsewhere.
pub(super) struct Discovery {
    http: HttpClient,
    url: String,
    issuer: String,
    key_hosts: KeyHosts,
}

/// Where an issuer's keys may lie. `https` in any case.
pub(super) enum KeyHosts {
    /// Wherever its document says: the document came from the issuer itself.
    Any,
    /// At one of these authorities (`host` or `host:port`).
    Only(Vec<String>),
}

impl Discovery {
    /// Keys of `issuer`, whose document is at `url`.
    pub(super) fn new(http: HttpClient, url: String, issuer: String, key_hosts: KeyHosts) -> Self {
        Self {
            http,
            url,
            issuer,
            key_hosts,
        }
    }

    async fn read(&self, url: &str) -> Result<bytes::Bytes> {
        let response = self.http.send(HttpRequest::get(url)).await?;
        if response.status == StatusCode::OK {
            Ok(response.body)
        } else {
            Err(Error::new(
                ErrorKind::Refused,
                format!("{url} answered with {}", response.status.as_u16()),
            )
            .with_status(response.status.as_u16()))
        }
    }

    fn key_set_url(&self, document: &[u8]) -> Result<String> {
        let wrong = |why: String| {
            Error::new(
                ErrorKind::Protocol,
                format!("the discovery document at {} {why}", self.url),
            )
        };
        let document =
            json::object(document).map_err(|reason| wrong(format!("is not usable: {reason}")))?;
        // Section 4.3: must be the one that was asked for, or another tenant's keys would count for this one.
        if document.get("issuer").and_then(Value::as_str) != Some(&self.issuer) {
            return Err(wrong(format!("is not for the issuer {}", self.issuer))
                .with_help("give the issuer exactly as its own document spells it"));
        }
        let url = document
            .get("jwks_uri")
            .and_then(Value::as_str)
            .ok_or_else(|| wrong("names no key set".to_owned()))?;
        let parsed: Uri = url
            .parse()
            .map_err(|_| wrong("names a malformed key set".to_owned()))?;
        let is_allowed = match &self.key_hosts {
            KeyHosts::Any => true,
            KeyHosts::Only(hosts) => parsed.authority().is_some_and(|at| {
                hosts
                    .iter()
                    .any(|host| at.as_str().eq_ignore_ascii_case(host))
            }),
        };
        if parsed.scheme_str() != Some("https") || !is_allowed {
            return Err(wrong(
                "names a key set at a host that is not trusted with it".to_owned(),
            ));
        }
        Ok(url.to_owned())
    }
}

#[async_trait]
impl KeySource for Discovery {
    async fn fetch(&self) -> Result<KeySet> {
        let document = self.read(&self.url).await?;
        let url = self.key_set_url(&document)?;
        let keys = self.read(&url).await?;
        KeySet::parse(&keys).map_err(|reason| {
            Error::new(
                ErrorKind::Protocol,
                format!("the key set of {} is not usable: {reason}", self.issuer),
            )
        })
    }
}
