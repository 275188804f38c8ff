//! What whoever checks tokens has to know of a [`Cloud`]: its issuers, and where their keys are.

use std::fmt;

use super::Cloud;
use crate::auth::TenantId;

/// The version of a token's format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenVersion {
    V1,
    V2,
}

impl TokenVersion {
    /// The value of `ver`.
    pub(crate) fn claim(self) -> &'static str {
        match self {
            Self::V1 => "1.0",
            Self::V2 => "2.0",
        }
    }
}

impl Cloud {
    pub(crate) fn issuer(&self, version: TokenVersion, tenant: impl fmt::Display) -> String {
        match version {
            TokenVersion::V1 => format!("{}/{tenant}/", self.v1_issuer_base),
            TokenVersion::V2 => format!("{}/{tenant}/v2.0", self.v2_authority),
        }
    }

    pub(crate) fn discovery_url(&self, version: TokenVersion, tenant: TenantId) -> String {
        let base = match version {
            TokenVersion::V1 => format!("{}/{tenant}", self.v1_authority),
            TokenVersion::V2 => format!("{}/{tenant}/v2.0", self.v2_authority),
        };
        format!("{base}/.well-known/openid-configuration")
    }

    /// The authorities at which keys may lie.
    pub(crate) fn key_hosts(&self) -> Vec<&str> {
        let mut hosts: Vec<&str> = [&self.v1_authority, &self.v2_authority]
            .map(|url| url.trim_start_matches("https://"))
            .to_vec();
        hosts.dedup();
        hosts
    }

    pub(crate) fn graph(&self) -> &str {
        &self.graph
    }
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
            assert_eq!(cloud.issuer(TokenVersion::V1, tenant), of(v1));
            assert_eq!(cloud.issuer(TokenVersion::V2, tenant), of(v2));
            assert_eq!(cloud.discovery_url(TokenVersion::V1, tenant), of(document));
            assert_eq!(
                cloud.discovery_url(TokenVersion::V2, tenant),
                of(v2) + "/.well-known/openid-configuration"
            );
        }
        assert_eq!(
            Cloud::china().key_hosts(),
            ["login.chinacloudapi.cn", "login.partner.microsoftonline.cn"]
        );
    }
}
