//! [`Target`]: what has to be reachable. Microsoft's list by cloud and region ("Azure Arc-enabled Kubernetes network
//! requirements", 2026-06), or the user's own.

use std::path::Path;

use arc_cluster_connect::{
    Error, ErrorKind, Result,
    auth::Cloud,
    net::{Endpoint, Security},
};
use serde::Deserialize;

/// How an endpoint is looked at, once TLS stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    Http,
    /// WebSocket upgrades must pass.
    WebSocket,
}

/// Who needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NeededBy {
    /// Whoever calls, and the agent.
    Everybody,
    /// The agent and its companions beside the cluster.
    Agent,
}

/// Who may have issued its certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Issuer {
    /// An authority of Azure's own: another one is a proxy that opens TLS.
    OfAzure,
    Any,
}

/// An endpoint and what is expected of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub purpose: String,
    pub endpoint: Endpoint,
    pub speaks: Speaks,
    pub needed_by: NeededBy,
    pub issuer: Issuer,
}

impl Target {
    pub fn new(purpose: impl Into<String>, endpoint: Endpoint) -> Self {
        Self {
            purpose: purpose.into(),
            endpoint,
            speaks: Speaks::Http,
            needed_by: NeededBy::Everybody,
            issuer: Issuer::Any,
        }
    }

    fn of_azure(purpose: &str, host: impl Into<String>, needed_by: NeededBy) -> Self {
        Self {
            needed_by,
            issuer: Issuer::OfAzure,
            ..Self::new(purpose, Endpoint::new(host, 443, Security::Tls))
        }
    }
}

/// Those of a cloud that do not depend on a region.
pub fn of_cloud(cloud: &Cloud) -> Vec<Target> {
    use NeededBy::{Agent, Everybody};

    let Some(suffixes) = Suffixes::of(cloud) else {
        // A cloud of somebody's own: what it told of itself.
        return [
            ("Azure Resource Manager", cloud.resource_manager()),
            ("Entra ID", cloud.authority()),
        ]
        .into_iter()
        .filter_map(|(purpose, url)| Some(Target::new(purpose, endpoint(url).ok()?)))
        .collect();
    };
    let host = |url: &str| url.trim_start_matches("https://").to_owned();
    let azure = suffixes.azure;
    let mut targets = vec![
        Target::of_azure(
            "Azure Resource Manager",
            host(cloud.resource_manager()),
            Everybody,
        ),
        Target::of_azure("Entra ID", host(cloud.authority()), Everybody),
    ];
    for alias in suffixes.entra_aliases {
        targets.push(Target::of_azure("Entra ID", *alias, Agent));
    }
    for prefix in suffixes.identity_prefixes {
        let host = format!("{prefix}.his.arc.{azure}");
        targets.push(Target::of_azure("identity certificates", host, Agent));
    }
    targets.push(Target::of_azure(
        "notifications",
        format!("guestnotificationservice.{azure}"),
        Agent,
    ));
    targets.push(Target::of_azure(
        "tokens of notifications",
        suffixes.token_service,
        Agent,
    ));
    targets
}

/// Those of a region of a cloud. None for a cloud of somebody's own.
pub fn of_region(cloud: &Cloud, region: &str) -> Vec<Target> {
    use NeededBy::{Agent, Everybody};

    let Some(suffixes) = Suffixes::of(cloud) else {
        return Vec::new();
    };
    let azure = suffixes.azure;
    let mut groups = Target::of_azure(
        "groups for Azure RBAC",
        format!("{region}.obo.arc.{azure}"),
        Agent,
    );
    groups.endpoint = Endpoint::new(groups.endpoint.host(), 8084, Security::Tls);
    vec![
        Target::of_azure(
            "Entra ID of the region",
            format!("{region}.{}", suffixes.regional_entra),
            Everybody,
        ),
        Target::of_azure(
            "data plane",
            format!("{region}.dp.kubernetesconfiguration.{azure}"),
            Agent,
        ),
        groups,
    ]
}

/// A region as it stands in host names: `East US` is `eastus`.
pub fn region_name(text: &str) -> Result<String> {
    let name: String = text
        .chars()
        .filter(|char| !char.is_whitespace())
        .map(|char| char.to_ascii_lowercase())
        .collect();
    if !name.is_empty() && name.len() <= 63 && name.bytes().all(|byte| byte.is_ascii_alphanumeric())
    {
        return Ok(name);
    }
    Err(
        Error::new(ErrorKind::InvalidInput, "that is not the name of a region")
            .with_help("give one as `az account list-locations` does, such as westeurope"),
    )
}

/// The user's own list, in place of Microsoft's.
pub fn of_file(path: &Path) -> Result<Vec<Target>> {
    let failed = |kind, what: &str| Error::new(kind, format!("{what} {}", path.display()));
    let text = std::fs::read(path).map_err(|error| {
        failed(ErrorKind::File, "can not read the endpoints from").with_source(error)
    })?;
    parse(&text).map_err(|error| {
        failed(ErrorKind::InvalidInput, "there is no usable list of endpoints in")
            .with_source(error)
            .with_help(
                r#"give JSON such as {"endpoints": [{"purpose": "Entra ID", "url": "https://login.example", "websocket": false, "neededBy": "everybody"}]}"#,
            )
    })
}

fn parse(text: &[u8]) -> Result<Vec<Target>> {
    let list: List = serde_json::from_slice(text).map_err(|error| {
        Error::new(ErrorKind::InvalidInput, "it is not such a JSON").with_source(error)
    })?;
    list.endpoints
        .into_iter()
        .map(|entry| {
            let mut target = Target::new(entry.purpose, endpoint(&entry.url)?);
            if entry.websocket {
                target.speaks = Speaks::WebSocket;
            }
            if matches!(entry.needed_by, Needs::Agent) {
                target.needed_by = NeededBy::Agent;
            }
            Ok(target)
        })
        .collect()
}

/// Of an `https` URL.
pub fn endpoint(url: &str) -> Result<Endpoint> {
    let uri: Option<http::Uri> = url.parse().ok();
    uri.filter(|uri| uri.scheme_str() == Some("https"))
        .and_then(|uri| {
            let host = uri.host()?.trim_start_matches('[').trim_end_matches(']');
            Some(Endpoint::new(
                host,
                uri.port_u16().unwrap_or(443),
                Security::Tls,
            ))
        })
        .ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidInput,
                format!("{url:?} is not an https URL"),
            )
        })
}

#[derive(Deserialize)]
struct List {
    endpoints: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Entry {
    purpose: String,
    url: String,
    #[serde(default)]
    websocket: bool,
    #[serde(default)]
    needed_by: Needs,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Needs {
    #[default]
    Everybody,
    Agent,
}

/// What differs between Azure's clouds.
struct Suffixes {
    azure: &'static str,
    entra_aliases: &'static [&'static str],
    regional_entra: &'static str,
    identity_prefixes: &'static [&'static str],
    token_service: &'static str,
}

impl Suffixes {
    fn of(cloud: &Cloud) -> Option<Self> {
        Some(match cloud.name() {
            "AzureCloud" => Self {
                azure: "azure.com",
                entra_aliases: &["login.windows.net"],
                regional_entra: "login.microsoft.com",
                identity_prefixes: &["gbl"],
                token_service: "sts.windows.net",
            },
            "AzureUSGovernment" => Self {
                azure: "azure.us",
                entra_aliases: &[],
                regional_entra: "login.microsoftonline.us",
                identity_prefixes: &["gbl", "usgv"],
                token_service: "sts.windows.net",
            },
            "AzureChinaCloud" => Self {
                azure: "azure.cn",
                entra_aliases: &[],
                regional_entra: "login.chinacloudapi.cn",
                identity_prefixes: &["gbl"],
                token_service: "sts.chinacloudapi.cn",
            },
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authorities(targets: &[Target]) -> Vec<String> {
        targets
            .iter()
            .map(|target| target.endpoint.authority())
            .collect()
    }

    #[test]
    fn each_cloud_has_its_own_hosts() {
        let public = Cloud::public();
        assert_eq!(
            authorities(&of_cloud(&public)),
            [
                "management.azure.com:443",
                "login.microsoftonline.com:443",
                "login.windows.net:443",
                "gbl.his.arc.azure.com:443",
                "guestnotificationservice.azure.com:443",
                "sts.windows.net:443",
            ]
        );
        assert_eq!(
            authorities(&of_region(&public, "westeurope")),
            [
                "westeurope.login.microsoft.com:443",
                "westeurope.dp.kubernetesconfiguration.azure.com:443",
                "westeurope.obo.arc.azure.com:8084",
            ]
        );
        let government = Cloud::us_government();
        let hosts = authorities(&of_cloud(&government));
        assert!(hosts.contains(&"management.usgovcloudapi.net:443".to_owned()));
        assert!(hosts.contains(&"usgv.his.arc.azure.us:443".to_owned()));
        let hosts = authorities(&of_region(&government, "usgovvirginia"));
        assert!(hosts.contains(&"usgovvirginia.obo.arc.azure.us:8084".to_owned()));
        let china = Cloud::china();
        let hosts = authorities(&of_cloud(&china));
        assert!(hosts.contains(&"login.chinacloudapi.cn:443".to_owned()));
        assert!(hosts.contains(&"sts.chinacloudapi.cn:443".to_owned()));
        assert!(
            of_cloud(&china)
                .iter()
                .all(|target| target.issuer == Issuer::OfAzure)
        );
    }

    #[test]
    fn a_cloud_of_somebodys_own_is_what_it_told() {
        let cloud = Cloud::custom("https://login.local.example")
            .and_then(|cloud| cloud.with_resource_manager("https://arm.local.example:8443"))
            .unwrap();
        assert_eq!(
            authorities(&of_cloud(&cloud)),
            ["arm.local.example:8443", "login.local.example:443"]
        );
        assert!(of_region(&cloud, "here").is_empty());
    }

    #[test]
    fn regions_are_host_names() {
        assert_eq!(region_name("West Europe").unwrap(), "westeurope");
        for text in ["", "a.b", "evil/", &"a".repeat(64)] {
            region_name(text).unwrap_err();
        }
    }

    #[test]
    fn a_list_of_ones_own_is_read() {
        let list = parse(
            br#"{"endpoints": [
                {"purpose": "ARM", "url": "https://arm.example"},
                {"purpose": "relay", "url": "https://[::1]:9443/", "websocket": true, "neededBy": "agent"}]}"#,
        )
        .unwrap();
        assert_eq!(authorities(&list), ["arm.example:443", "[::1]:9443"]);
        assert_eq!(list[0].needed_by, NeededBy::Everybody);
        assert_eq!(
            (list[1].speaks, list[1].needed_by),
            (Speaks::WebSocket, NeededBy::Agent)
        );
        for text in [
            "",
            "[]",
            r#"{"endpoints": [{"purpose": "x"}]}"#,
            r#"{"endpoints": [{"purpose": "x", "url": "http://plain.example"}]}"#,
            r#"{"endpoints": [{"purpose": "x", "url": "https://a", "webSocket": true}]}"#,
        ] {
            parse(text.as_bytes()).unwrap_err();
        }
    }
}
