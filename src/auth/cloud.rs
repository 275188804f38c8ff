//! [`Cloud`]: which Azure, and where its authority, its directory, its resource manager and its relays are.

#[cfg(feature = "agent")]
mod issuers;

#[cfg(feature = "agent")]
pub(crate) use issuers::TokenVersion;

use std::fmt;

use http::uri::Authority;

use crate::{Error, ErrorKind, Result};

/// A cloud: the authority that issues its tokens, the issuers that those name, its directory (Microsoft Graph), its
/// resource manager, and the domain of its relays.
///
/// | cloud | authority | issuer, v1 | issuer, v2 |
/// |---|---|---|---|
/// | public | `login.microsoftonline.com` | `https://sts.windows.net/{tenant}/` | `https://login.microsoftonline.com/{tenant}/v2.0` |
/// | US Government | `login.microsoftonline.us` | `https://sts.windows.net/{tenant}/` | `https://login.microsoftonline.us/{tenant}/v2.0` |
/// | China | `login.chinacloudapi.cn`, v2: `login.partner.microsoftonline.cn` | `https://sts.chinacloudapi.cn/{tenant}/` | `https://login.partner.microsoftonline.cn/{tenant}/v2.0` |
/// | custom | as given | `{authority}/{tenant}/` | `{authority}/{tenant}/v2.0` |
///
/// | cloud | name | resource manager | relays |
/// |---|---|---|---|
/// | public | `AzureCloud` | `management.azure.com` | `*.servicebus.windows.net` |
/// | US Government | `AzureUSGovernment` | `management.usgovcloudapi.net` | `*.servicebus.usgovcloudapi.net` |
/// | China | `AzureChinaCloud` | `management.chinacloudapi.cn` | `*.servicebus.chinacloudapi.cn` |
/// | custom | `custom` | the authority, unless set | below the authority's host, unless set |
///
/// Issuers are compared byte for byte: the slash at the end of a v1 issuer belongs to it. Sources: Microsoft's
/// "National clouds", "Access token claims reference" and "Azure Arc network requirements" pages.
///
/// ```
/// use arc_cluster_connect::auth::Cloud;
///
/// // As the Azure CLI and the environment variable AZURE_ENVIRONMENT name it.
/// let cloud = Cloud::named("AzureUSGovernment")?;
/// assert_eq!(cloud.authority(), "https://login.microsoftonline.us");
/// assert_eq!(
///     cloud.resource_manager_scope(),
///     "https://management.usgovcloudapi.net/.default"
/// );
/// # Ok::<(), arc_cluster_connect::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cloud {
    name: &'static str,
    v1_authority: String,
    v1_issuer_base: String,
    v2_authority: String,
    graph: String,
    resource_manager: String,
    /// For whom the resource manager's tokens are, when that is not its address.
    resource_manager_audience: Option<String>,
    relay_suffix: String,
}

impl Cloud {
    /// Azure's public cloud.
    pub fn public() -> Self {
        Self {
            name: "AzureCloud",
            v1_authority: "https://login.microsoftonline.com".to_owned(),
            v1_issuer_base: "https://sts.windows.net".to_owned(),
            v2_authority: "https://login.microsoftonline.com".to_owned(),
            graph: "https://graph.microsoft.com".to_owned(),
            resource_manager: "https://management.azure.com".to_owned(),
            resource_manager_audience: None,
            relay_suffix: "servicebus.windows.net".to_owned(),
        }
    }

    /// Azure US Government. (`dod-graph.microsoft.us` of the DoD regions needs [`with_graph`](Self::with_graph).)
    pub fn us_government() -> Self {
        Self {
            name: "AzureUSGovernment",
            v1_authority: "https://login.microsoftonline.us".to_owned(),
            v1_issuer_base: "https://sts.windows.net".to_owned(),
            v2_authority: "https://login.microsoftonline.us".to_owned(),
            graph: "https://graph.microsoft.us".to_owned(),
            resource_manager: "https://management.usgovcloudapi.net".to_owned(),
            resource_manager_audience: None,
            relay_suffix: "servicebus.usgovcloudapi.net".to_owned(),
        }
    }

    /// Azure operated by 21Vianet in China.
    pub fn china() -> Self {
        Self {
            name: "AzureChinaCloud",
            v1_authority: "https://login.chinacloudapi.cn".to_owned(),
            v1_issuer_base: "https://sts.chinacloudapi.cn".to_owned(),
            v2_authority: "https://login.partner.microsoftonline.cn".to_owned(),
            graph: "https://microsoftgraph.chinacloudapi.cn".to_owned(),
            resource_manager: "https://management.chinacloudapi.cn".to_owned(),
            resource_manager_audience: None,
            relay_suffix: "servicebus.chinacloudapi.cn".to_owned(),
        }
    }

    /// The cloud of this name, in the Azure CLI's spelling (`AzureCloud`, `AzureUSGovernment`, `AzureChinaCloud`) or
    /// that of Azure's SDKs and Kubernetes' cloud provider (`AZUREPUBLICCLOUD`, `AZUREUSGOVERNMENTCLOUD`,
    /// `AZURECHINACLOUD`). Case makes no difference.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for any other name.
    pub fn named(name: &str) -> Result<Self> {
        match name.to_ascii_lowercase().as_str() {
            "azurecloud" | "azurepubliccloud" | "azurepublic" => Ok(Self::public()),
            "azureusgovernment" | "azureusgovernmentcloud" => Ok(Self::us_government()),
            "azurechinacloud" | "azurechina" => Ok(Self::china()),
            _ => Err(Error::new(
                ErrorKind::InvalidInput,
                format!("no cloud is named {name:?}"),
            )
            .with_help(
                "give AzureCloud, AzureUSGovernment or AzureChinaCloud (`az cloud show --query name` shows yours), \
                 or the addresses of a private cloud",
            )),
        }
    }

    /// Another authority, by its URL without a path: a private cloud, or a stand-in for tests. Its directory and its
    /// resource manager are expected at the same place, and its relays below the same host, unless the methods
    /// `with_…` say otherwise.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when it is not an `https` URL of a host alone.
    pub fn custom(authority: &str) -> Result<Self> {
        let authority = base_url(authority)?;
        let host = authority.trim_start_matches("https://").to_owned();
        Ok(Self {
            name: "custom",
            v1_authority: authority.clone(),
            v1_issuer_base: authority.clone(),
            v2_authority: authority.clone(),
            graph: authority.clone(),
            resource_manager: authority,
            resource_manager_audience: None,
            relay_suffix: host,
        })
    }

    /// Sets where Microsoft Graph is, as an `https` URL without a path.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] as for [`custom`](Self::custom).
    pub fn with_graph(mut self, graph: &str) -> Result<Self> {
        self.graph = base_url(graph)?;
        Ok(self)
    }

    /// Sets where Azure Resource Manager is, as an `https` URL without a path.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] as for [`custom`](Self::custom).
    pub fn with_resource_manager(mut self, resource_manager: &str) -> Result<Self> {
        self.resource_manager = base_url(resource_manager)?;
        Ok(self)
    }

    /// Sets for whom the resource manager's tokens are, when that is not its address: `authentication.audiences` in
    /// the resource manager's `/metadata/endpoints`. A slash at the end belongs to it.
    #[must_use]
    pub fn with_resource_manager_audience(mut self, audience: impl Into<String>) -> Self {
        self.resource_manager_audience = Some(audience.into());
        self
    }

    /// Sets the domain of the relays: `servicebus.windows.net`, with a port if it is not 443.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when it is not a host name.
    pub fn with_relay_suffix(mut self, suffix: &str) -> Result<Self> {
        let suffix = suffix.trim_start_matches('.');
        match base_url(&format!("https://{suffix}")) {
            Ok(_) if !suffix.ends_with('/') => self.relay_suffix = suffix.to_owned(),
            _ => {
                return Err(Error::new(
                    ErrorKind::InvalidInput,
                    "the relay suffix is not a domain such as servicebus.windows.net",
                ));
            }
        }
        Ok(self)
    }

    /// The Azure CLI's name of the cloud, or `custom`.
    pub fn name(&self) -> &str {
        self.name
    }

    /// The authority to sign in at: `https://login.microsoftonline.com`.
    pub fn authority(&self) -> &str {
        &self.v1_authority
    }

    /// Azure Resource Manager: `https://management.azure.com`.
    pub fn resource_manager(&self) -> &str {
        &self.resource_manager
    }

    /// The scope of a token for Azure Resource Manager: `https://management.azure.com/.default`.
    pub fn resource_manager_scope(&self) -> String {
        // Entra ID takes the audience as it is, so one that ends with a slash gives two: that is right.
        let audience = self.resource_manager_audience.as_deref();
        format!("{}/.default", audience.unwrap_or(&self.resource_manager))
    }

    /// The domain of the relays: `servicebus.windows.net`.
    pub fn relay_suffix(&self) -> &str {
        &self.relay_suffix
    }
}

impl Default for Cloud {
    fn default() -> Self {
        Self::public()
    }
}

impl fmt::Display for Cloud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// An `https` URL of a host alone, without a slash at its end.
pub(crate) fn base_url(text: &str) -> Result<String> {
    let invalid = || {
        Error::new(
            ErrorKind::InvalidInput,
            "the address is not an https URL of a host alone, such as https://login.microsoftonline.com",
        )
    };
    let url: http::Uri = text.parse().map_err(|_| invalid())?;
    let authority = url.authority().ok_or_else(invalid)?;
    if url.scheme_str() != Some("https")
        || !is_host_and_port(authority)
        || url.path_and_query().is_some_and(|path| path != "/")
        || text.contains('#')
    {
        return Err(invalid());
    }
    Ok(format!("https://{authority}"))
}

/// A port that is no number is not reported by the parser, only left out.
fn is_host_and_port(authority: &Authority) -> bool {
    let has_no_port = authority.as_str() == authority.host();
    (has_no_port || authority.port_u16().is_some()) && !authority.as_str().contains('@')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_the_clouds() {
        let table = [
            (
                Cloud::public(),
                "AzureCloud",
                "https://login.microsoftonline.com",
                "https://management.azure.com",
                "servicebus.windows.net",
            ),
            (
                Cloud::us_government(),
                "AzureUSGovernment",
                "https://login.microsoftonline.us",
                "https://management.usgovcloudapi.net",
                "servicebus.usgovcloudapi.net",
            ),
            (
                Cloud::china(),
                "AzureChinaCloud",
                "https://login.chinacloudapi.cn",
                "https://management.chinacloudapi.cn",
                "servicebus.chinacloudapi.cn",
            ),
            (
                Cloud::custom("https://login.example:8443/").unwrap(),
                "custom",
                "https://login.example:8443",
                "https://login.example:8443",
                "login.example:8443",
            ),
        ];
        for (cloud, name, authority, resource_manager, relay_suffix) in table {
            assert_eq!(cloud.name(), name);
            assert_eq!(cloud.to_string(), name);
            assert_eq!(cloud.authority(), authority);
            assert_eq!(cloud.resource_manager(), resource_manager);
            assert_eq!(
                cloud.resource_manager_scope(),
                format!("{resource_manager}/.default")
            );
            assert_eq!(cloud.relay_suffix(), relay_suffix);
        }
    }

    #[test]
    fn a_cloud_is_found_by_each_of_its_names() {
        for (names, cloud) in [
            (["AzureCloud", "AZUREPUBLICCLOUD"], Cloud::public()),
            (
                ["AzureUSGovernment", "AZUREUSGOVERNMENTCLOUD"],
                Cloud::us_government(),
            ),
            (["AzureChinaCloud", "AZURECHINACLOUD"], Cloud::china()),
        ] {
            for name in names {
                assert_eq!(Cloud::named(name).unwrap(), cloud, "{name}");
            }
            assert_eq!(Cloud::named(cloud.name()).unwrap(), cloud);
        }
        for name in ["", "custom", "AzureGermanCloud"] {
            let error = Cloud::named(name).expect_err(name);
            assert!(error.help().unwrap().contains("AzureCloud"));
        }
    }

    #[test]
    fn each_address_can_be_set() {
        let cloud = Cloud::custom("https://login.example")
            .unwrap()
            .with_resource_manager("https://arm.example:8443/")
            .unwrap()
            .with_relay_suffix("relays.example:8444")
            .unwrap();
        assert_eq!(cloud.resource_manager(), "https://arm.example:8443");
        assert_eq!(
            cloud.resource_manager_scope(),
            "https://arm.example:8443/.default"
        );
        assert_eq!(cloud.relay_suffix(), "relays.example:8444");
        let cloud = cloud.with_resource_manager_audience("https://management.example/id/");
        assert_eq!(
            cloud.resource_manager_scope(),
            "https://management.example/id//.default"
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
            assert!(
                Cloud::public().with_resource_manager(text).is_err(),
                "{text}"
            );
        }
        for text in [
            "",
            "https://host",
            "host/",
            "host/path",
            "u@host",
            "a b",
            "host:x",
        ] {
            assert!(Cloud::public().with_relay_suffix(text).is_err(), "{text}");
        }
    }
}
