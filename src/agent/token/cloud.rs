//! [`Cloud`]: which authority speaks for which Azure.

use std::{fmt, str::FromStr};

use uuid::Uuid;

use crate::{Error, ErrorKind, Result};

/// An Entra ID tenant, by its id.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TenantId(Uuid);

impl TenantId {
    /// The tenant of this id, which is a UUID. Domain names are not taken: a token names its tenant by the id.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when it is none.
    pub fn parse(text: &str) -> Result<Self> {
        // Only the form with hyphens, in which tokens have it.
        match Uuid::try_parse(text) {
            Ok(id) if text.len() == uuid::fmt::Hyphenated::LENGTH => Ok(Self(id)),
            _ => Err(Error::new(
                ErrorKind::InvalidInput,
                "the tenant is not a UUID such as 72f988bf-86f1-41af-91ab-2d7cd011db47",
            )
            .with_help("`az account show --query tenantId` shows it")),
        }
    }
}

impl FromStr for TenantId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl fmt::Debug for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TenantId({self})")
    }
}

/// A cloud: the authority that issues its tokens, the issuers that those name, and its directory, Microsoft Graph.
///
/// | cloud | authority | issuer, v1 | issuer, v2 |
/// |---|---|---|---|
/// | public | `login.microsoftonline.com` | `https://sts.windows.net/{tenant}/` | `https://login.microsoftonline.com/{tenant}/v2.0` |
/// | US Government | `login.microsoftonline.us` | `https://sts.windows.net/{tenant}/` | `https://login.microsoftonline.us/{tenant}/v2.0` |
/// | China | `login.chinacloudapi.cn`, v2: `login.partner.microsoftonline.cn` | `https://sts.chinacloudapi.cn/{tenant}/` | `https://login.partner.microsoftonline.cn/{tenant}/v2.0` |
/// | custom | as given | `{authority}/{tenant}/` | `{authority}/{tenant}/v2.0` |
///
/// Issuers are compared byte for byte: the slash at the end of a v1 issuer belongs to it. Sources: Microsoft's
/// "National clouds" and "Access token claims reference" pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cloud {
    v1_authority: String,
    v1_issuer_base: String,
    v2_authority: String,
    key_hosts: Vec<String>,
    graph: String,
}

impl Cloud {
    /// Azure's public cloud.
    pub fn public() -> Self {
        Self::known(
            "https://login.microsoftonline.com",
            "https://sts.windows.net",
            "https://login.microsoftonline.com",
            "https://graph.microsoft.com",
        )
    }

    /// Azure US Government. (`dod-graph.microsoft.us` of the DoD regions needs [`with_graph`](Self::with_graph).)
    pub fn us_government() -> Self {
        Self::known(
            "https://login.microsoftonline.us",
            "https://sts.windows.net",
            "https://login.microsoftonline.us",
            "https://graph.microsoft.us",
        )
    }

    /// Azure operated by 21Vianet in China.
    pub fn china() -> Self {
        Self::known(
            "https://login.chinacloudapi.cn",
            "https://sts.chinacloudapi.cn",
            "https://login.partner.microsoftonline.cn",
            "https://microsoftgraph.chinacloudapi.cn",
        )
    }

    /// Another authority, by its URL without a path: a private cloud, or a stand-in for tests. Its directory is
    /// expected at the same place unless [`with_graph`](Self::with_graph) says otherwise.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when it is not an `https` URL of a host alone.
    pub fn custom(authority: &str) -> Result<Self> {
        let authority = base_url(authority)?;
        Ok(Self::known(&authority, &authority, &authority, &authority))
    }

    /// Sets where Microsoft Graph is, as an `https` URL without a path.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] as for [`custom`](Self::custom).
    pub fn with_graph(mut self, graph: &str) -> Result<Self> {
        self.graph = base_url(graph)?;
        Ok(self)
    }

    fn known(v1_authority: &str, v1_issuer_base: &str, v2_authority: &str, graph: &str) -> Self {
        let mut key_hosts: Vec<String> = [v1_authority, v2_authority]
            .iter()
            .map(|url| url.trim_start_matches("https://").to_owned())
            .collect();
        key_hosts.dedup();
        Self {
            v1_authority: v1_authority.to_owned(),
            v1_issuer_base: v1_issuer_base.to_owned(),
            v2_authority: v2_authority.to_owned(),
            key_hosts,
            graph: graph.to_owned(),
        }
    }

    pub(super) fn issuer(&self, version: Version, tenant: impl fmt::Display) -> String {
        match version {
            Version::V1 => format!("{}/{tenant}/", self.v1_issuer_base),
            Version::V2 => format!("{}/{tenant}/v2.0", self.v2_authority),
        }
    }

    pub(super) fn discovery_url(&self, version: Version, tenant: TenantId) -> String {
        let base = match version {
            Version::V1 => format!("{}/{tenant}", self.v1_authority),
            Version::V2 => format!("{}/{tenant}/v2.0", self.v2_authority),
        };
        format!("{base}/.well-known/openid-configuration")
    }

    /// The authorities at which keys may lie.
    pub(super) fn key_hosts(&self) -> &[String] {
        &self.key_hosts
    }

    pub(super) fn graph(&self) -> &str {
        &self.graph
    }
}

impl Default for Cloud {
    fn default() -> Self {
        Self::public()
    }
}

/// The version of a token's format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    V1,
    V2,
}

impl Version {
    /// The value of `ver`.
    pub(super) fn claim(self) -> &'static str {
        match self {
            Self::V1 => "1.0",
            Self::V2 => "2.0",
        }
    }
}

/// An `https` URL of a host alone, without a slash at its end.
pub(super) fn base_url(text: &str) -> Result<String> {
    let invalid = || {
        Error::new(
            ErrorKind::InvalidInput,
            "the address is not an https URL of a host alone, such as https://login.microsoftonline.com",
        )
    };
    let url: http::Uri = text.parse().map_err(|_| invalid())?;
    let authority = url.authority().ok_or_else(invalid)?;
    let has_no_port = authority.as_str() == authority.host();
    if url.scheme_str() != Some("https")
        || !(has_no_port || authority.port_u16().is_some())
        || authority.as_str().contains('@')
        || url.path_and_query().is_some_and(|path| path != "/")
        || text.contains('#')
    {
        return Err(invalid());
    }
    Ok(format!("https://{authority}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENANT: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";

    #[test]
    fn issuers_and_documents_of_the_clouds() {
        let tenant = TenantId::parse(TENANT).unwrap();
        let table = [
            (
                Cloud::public(),
                "https://sts.windows.net/{tid}/",
                "https://login.microsoftonline.com/{tid}/v2.0",
                "https://login.microsoftonline.com/{tid}/.well-known/openid-configuration",
            ),
            (
                Cloud::us_government(),
                "https://sts.windows.net/{tid}/",
                "https://login.microsoftonline.us/{tid}/v2.0",
                "https://login.microsoftonline.us/{tid}/.well-known/openid-configuration",
            ),
            (
                Cloud::china(),
                "https://sts.chinacloudapi.cn/{tid}/",
                "https://login.partner.microsoftonline.cn/{tid}/v2.0",
                "https://login.chinacloudapi.cn/{tid}/.well-known/openid-configuration",
            ),
            (
                Cloud::custom("https://127.0.0.1:8443/").unwrap(),
                "https://127.0.0.1:8443/{tid}/",
                "https://127.0.0.1:8443/{tid}/v2.0",
                "https://127.0.0.1:8443/{tid}/.well-known/openid-configuration",
            ),
        ];
        for (cloud, v1, v2, document) in table {
            let of = |template: &str| template.replace("{tid}", TENANT);
            assert_eq!(cloud.issuer(Version::V1, tenant), of(v1));
            assert_eq!(cloud.issuer(Version::V2, tenant), of(v2));
            assert_eq!(cloud.discovery_url(Version::V1, tenant), of(document));
            assert_eq!(
                cloud.discovery_url(Version::V2, tenant),
                of(v2) + "/.well-known/openid-configuration"
            );
        }
        assert_eq!(
            Cloud::china().key_hosts(),
            ["login.chinacloudapi.cn", "login.partner.microsoftonline.cn"]
        );
    }

    #[test]
    fn what_is_no_authority_is_refused() {
        for text in [
            "http://host",
            "https://host/path",
            "https://u@host",
            "host",
            "",
            "https://host?x",
            "https://host/#x",
            "https://host:port",
            "https://host:",
        ] {
            assert!(Cloud::custom(text).is_err(), "{text}");
            assert!(Cloud::public().with_graph(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_tenant_is_a_uuid_in_lower_case() {
        let tenant = TenantId::parse(&TENANT.to_uppercase()).unwrap();
        assert_eq!(tenant.to_string(), TENANT);
        for text in [
            "common",
            "contoso.onmicrosoft.com",
            "",
            "72f988bf86f141af91ab2d7cd011db47",
            "../x",
        ] {
            assert!(TenantId::parse(text).is_err(), "{text}");
        }
    }
}
