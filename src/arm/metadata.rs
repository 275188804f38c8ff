//! Clouds as Azure Resource Manager itself describes them.

use serde::Deserialize;

use super::ArmClient;
use crate::{
    Error, ErrorKind, Result,
    auth::Cloud,
    net::{Connector, HttpClient, HttpRequest},
};

const API_VERSION: &str = "2022-09-01";

impl ArmClient {
    /// The cloud whose resource manager is at `resource_manager` (`https://management.azure.com`): for clouds that
    /// this crate does not know by name, such as Azure Local and air-gapped ones.
    ///
    /// Nobody needs to be signed in for it. Whoever answers at that address decides where the caller signs in, so it
    /// must be one that the caller trusts.
    ///
    /// # Errors
    /// As [`Connector::connect`]; [`ErrorKind::InvalidInput`] when `resource_manager` is not an `https` URL of a host
    /// alone; [`ErrorKind::Refused`] or [`ErrorKind::Protocol`] when nothing there describes a cloud.
    pub async fn cloud_from_metadata(
        connector: Connector,
        resource_manager: &str,
    ) -> Result<Cloud> {
        // Checks the address.
        let resource_manager = Cloud::public()
            .with_resource_manager(resource_manager)?
            .resource_manager()
            .to_owned();
        let url = format!("{resource_manager}/metadata/endpoints?api-version={API_VERSION}");
        let response = HttpClient::new(connector)
            .send(HttpRequest::get(url))
            .await?;
        if !response.status.is_success() {
            return Err(Error::new(
                ErrorKind::Refused,
                format!(
                    "{resource_manager} does not describe its cloud: HTTP status {}",
                    response.status.as_u16()
                ),
            )
            .with_status(response.status.as_u16())
            .with_help("check that this is the address of an Azure Resource Manager"));
        }
        cloud(&response.body, &resource_manager).map_err(|error| {
            Error::new(
                ErrorKind::Protocol,
                format!("what {resource_manager} tells of its cloud is not usable"),
            )
            .with_source(error)
            .with_help("check that this is the address of an Azure Resource Manager")
        })
    }
}

fn cloud(json: &[u8], resource_manager: &str) -> Result<Cloud> {
    let invalid = |why: &'static str| Error::new(ErrorKind::Protocol, why);
    let metadata: Metadata = serde_json::from_slice(json)
        .map_err(|error| invalid("it is not readable").with_source(error))?;
    let is_ours = |entry: &Entry| {
        let other = entry.resource_manager.as_deref().unwrap_or_default();
        other
            .trim_end_matches('/')
            .eq_ignore_ascii_case(resource_manager)
    };
    let entry = match metadata {
        Metadata::One(entry) => *entry,
        // All clouds that the answering one knows.
        Metadata::Many(entries) => entries
            .into_iter()
            .find(is_ours)
            .ok_or_else(|| invalid("none of the clouds in it has this address"))?,
    };
    // A cloud that we know has more to it than it tells of itself: its issuers.
    if let Some(known) = entry
        .name
        .as_deref()
        .and_then(|name| Cloud::named(name).ok())
        && known.resource_manager() == resource_manager
    {
        return Ok(known);
    }
    let authority = entry
        .authentication
        .login_endpoint
        .ok_or_else(|| invalid("it names no authority to sign in at"))?;
    let mut cloud = Cloud::custom(&authority)?.with_resource_manager(resource_manager)?;
    if let Some(audience) = entry.authentication.audiences.into_iter().next() {
        cloud = cloud.with_resource_manager_audience(audience);
    }
    if let Some(graph) = entry.microsoft_graph_resource_id {
        cloud = cloud.with_graph(&graph)?;
    }
    match entry.suffixes.relay_endpoint_suffix {
        Some(suffix) => cloud.with_relay_suffix(&suffix),
        None => Err(invalid("it names no domain of relays")),
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Metadata {
    Many(Vec<Entry>),
    One(Box<Entry>),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    name: Option<String>,
    resource_manager: Option<String>,
    microsoft_graph_resource_id: Option<String>,
    #[serde(default)]
    authentication: Authentication,
    #[serde(default)]
    suffixes: Suffixes,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Authentication {
    login_endpoint: Option<String>,
    audiences: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Suffixes {
    relay_endpoint_suffix: Option<String>,
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn azure_local() -> Value {
        json!({
            "name": "azurelocal",
            "portal": "https://portal.local.example/",
            "authentication": {
                "loginEndpoint": "https://login.local.example/",
                "audiences": ["https://management.local.example/7d5a0c4e"],
                "tenant": "common", "identityProvider": "AAD",
            },
            "resourceManager": "https://armmanagement.local.example/",
            "suffixes": { "relayEndpointSuffix": ".servicebus.local.example", "storage": "local.example" },
            "dataplaneEndpoints": { "arcConfigEndpoint": "https://dp.local.example" },
        })
    }

    fn read(value: &Value, address: &str) -> Result<Cloud> {
        cloud(value.to_string().as_bytes(), address)
    }

    #[test]
    fn a_private_cloud_is_what_it_says() {
        let address = "https://armmanagement.local.example";
        let cloud = read(&azure_local(), address).unwrap();
        assert_eq!(cloud.authority(), "https://login.local.example");
        assert_eq!(cloud.resource_manager(), address);
        assert_eq!(cloud.relay_suffix(), "servicebus.local.example");
        assert_eq!(
            cloud.resource_manager_scope(),
            "https://management.local.example/7d5a0c4e/.default"
        );
        let many =
            json!([{ "name": "other", "resourceManager": "https://x.example" }, azure_local()]);
        assert_eq!(read(&many, address).unwrap(), cloud);
    }

    #[test]
    fn a_known_cloud_is_the_known_one() {
        let entry = json!([{
            "name": "AzureUSGovernment",
            "resourceManager": "https://management.usgovcloudapi.net",
            "authentication": { "loginEndpoint": "https://login.microsoftonline.us" },
        }]);
        let cloud = read(&entry, "https://management.usgovcloudapi.net").unwrap();
        assert_eq!(cloud, Cloud::us_government());
        // Its name at another address is nothing to go by.
        assert!(read(&entry, "https://evil.example").is_err());
    }

    #[test]
    fn what_describes_no_cloud_is_an_error() {
        let mut entry = azure_local();
        entry["suffixes"] = json!({});
        for value in [json!({}), json!([]), json!("x"), entry] {
            read(&value, "https://armmanagement.local.example").unwrap_err();
        }
    }
}
