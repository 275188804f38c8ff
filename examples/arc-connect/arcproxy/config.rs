//! [`Config`]: the `config.yml` that `az` writes.

use std::{io::Read, path::Path};

use arc_cluster_connect::{
    Error, ErrorKind, Result,
    net::{Endpoint, Security},
};
use http::Uri;
use serde::Deserialize;

/// What `az` writes has some hundred bytes.
const MAX_BYTES: u64 = 64 * 1024;

#[derive(Deserialize)]
pub struct Config {
    server: Server,
    #[serde(default)]
    identity: Identity,
    cloud: String,
    #[serde(default, rename = "cloudConfig")]
    cloud_config: CloudConfig,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Server {
    http_port: u16,
    https_port: u16,
}

#[derive(Default, Deserialize)]
struct Identity {
    #[serde(default, rename = "tenantID")]
    tenant_id: Option<String>,
}

#[derive(Default, Deserialize)]
struct CloudConfig {
    #[serde(default, rename = "serviceBusEndpointSuffix")]
    relay_suffix: Option<String>,
}

/// Where a relay is whose name a registration tells.
pub enum Relays {
    /// At this suffix.
    Named { suffix: String },
    /// Always there, whatever the name.
    Fixed(Endpoint),
}

impl Config {
    pub fn read(path: &Path) -> Result<Self> {
        let shown = path.display();
        let mut text = String::new();
        std::fs::File::open(path)
            .and_then(|file| file.take(MAX_BYTES).read_to_string(&mut text))
            .map_err(|error| {
                Error::new(ErrorKind::File, format!("can not read {shown}"))
                    .with_source(error)
                    .with_help("give the config.yml that `az connectedk8s proxy` writes")
            })?;
        Self::parse(&text).map_err(|error| {
            Error::new(ErrorKind::InvalidInput, format!("{shown} is not usable"))
                .with_source(error)
                .with_help(
                    "it needs server.httpPort, server.httpsPort and cloud, as az writes them",
                )
        })
    }

    fn parse(text: &str) -> Result<Self> {
        // The parser's own message may quote the text, in which earlier versions of `az` kept a client secret.
        let config: Self = serde_saphyr::from_str(text).map_err(|_| {
            Error::new(
                ErrorKind::InvalidInput,
                "it is no YAML, or a member is missing or malformed",
            )
        })?;
        if config.server.http_port == config.server.https_port && config.server.http_port != 0 {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "its two ports are the same",
            ));
        }
        Ok(config)
    }

    pub fn http_port(&self) -> u16 {
        self.server.http_port
    }

    pub fn https_port(&self) -> u16 {
        self.server.https_port
    }

    pub fn tenant_id(&self) -> Option<&str> {
        self.identity.tenant_id.as_deref()
    }

    /// Where relays are: where `fixed` says, else where the cloud has them.
    pub fn relays(&self, fixed: Option<&str>) -> Result<Relays> {
        if let Some(url) = fixed {
            return endpoint(url).map(Relays::Fixed);
        }
        let suffix = match (&self.cloud_config.relay_suffix, self.cloud.as_str()) {
            (Some(suffix), _) => suffix.trim_start_matches('.'),
            (None, cloud) if is_cloud(cloud, &["AZUREPUBLICCLOUD", "AzureCloud"]) => {
                "servicebus.windows.net"
            }
            (None, cloud) if is_cloud(cloud, &["AzureUSGovernmentCloud", "AzureUSGovernment"]) => {
                "servicebus.usgovcloudapi.net"
            }
            (None, cloud) if is_cloud(cloud, &["AzureChinaCloud"]) => "servicebus.chinacloudapi.cn",
            (None, _) => {
                return Err(Error::new(
                    ErrorKind::InvalidInput,
                    "it is not known where this cloud's relays are",
                )
                .with_help("set cloudConfig.serviceBusEndpointSuffix in the configuration"));
            }
        };
        Ok(Relays::Named {
            suffix: suffix.to_owned(),
        })
    }
}

impl Relays {
    /// The relay called `name`.
    pub fn endpoint(&self, name: &str) -> Result<Endpoint> {
        match self {
            Self::Fixed(endpoint) => Ok(endpoint.clone()),
            Self::Named { suffix } => {
                let is_name = !name.is_empty()
                    && name.len() <= 63
                    && name
                        .bytes()
                        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
                if !is_name {
                    return Err(Error::new(
                        ErrorKind::InvalidInput,
                        "the name of the relay is none",
                    ));
                }
                Ok(Endpoint::new(
                    format!("{name}.{suffix}"),
                    443,
                    Security::Tls,
                ))
            }
        }
    }
}

fn is_cloud(name: &str, known: &[&str]) -> bool {
    known.iter().any(|known| known.eq_ignore_ascii_case(name))
}

fn endpoint(url: &str) -> Result<Endpoint> {
    let invalid = || {
        Error::new(ErrorKind::InvalidInput, "--relay-endpoint is not usable")
            .with_help("give wss://HOST[:PORT], or ws://127.0.0.1:PORT")
    };
    let uri: Uri = url.parse().map_err(|_| invalid())?;
    let security = match uri.scheme_str() {
        Some("wss" | "sb" | "https") => Security::Tls,
        Some("ws") => Security::Plain,
        _ => return Err(invalid()),
    };
    let host = uri.host().ok_or_else(invalid)?;
    let port = match (uri.port_u16(), security) {
        (Some(port), _) => port,
        (None, Security::Tls) => 443,
        (None, _) => 80,
    };
    let endpoint = Endpoint::new(host, port, security);
    // Its credential would be there for all to read.
    if matches!(security, Security::Plain) && !endpoint.is_loopback() {
        return Err(invalid());
    }
    Ok(endpoint)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITTEN: &str = "server: {httpPort: 47010, httpsPort: 47011}\n\
        identity: {tenantID: t, clientID: c}\ncloud: AZUREPUBLICCLOUD\n";

    #[test]
    fn what_az_writes_is_read() {
        let config = Config::parse(WRITTEN).unwrap();
        assert_eq!((config.http_port(), config.https_port()), (47010, 47011));
        assert_eq!(config.tenant_id(), Some("t"));
        let relay = config
            .relays(None)
            .unwrap()
            .endpoint("azgnrelay-l1")
            .unwrap();
        assert_eq!(relay.host(), "azgnrelay-l1.servicebus.windows.net");
        for name in ["", "a.b", "evil.example/", "a@b", "x:1"] {
            assert!(
                config.relays(None).unwrap().endpoint(name).is_err(),
                "{name}"
            );
        }
    }

    #[test]
    fn a_cloud_of_its_own_says_where_its_relays_are() {
        let text = WRITTEN.replace("AZUREPUBLICCLOUD", "Local");
        assert!(Config::parse(&text).unwrap().relays(None).is_err());
        let text = format!("{text}cloudConfig: {{serviceBusEndpointSuffix: .servicebus.local}}\n");
        let relays = Config::parse(&text).unwrap().relays(None).unwrap();
        assert_eq!(relays.endpoint("r").unwrap().host(), "r.servicebus.local");
    }

    #[test]
    fn a_secret_in_a_broken_file_is_not_repeated() {
        let error = Config::parse("identity: {clientSecret: hush}\nserver: [")
            .err()
            .unwrap();
        assert!(!format!("{error:?} {}", error.report()).contains("hush"));
        assert!(Config::parse(&WRITTEN.replace("47010", "47011")).is_err());
    }

    #[test]
    fn a_plain_relay_is_on_loopback() {
        assert!(endpoint("ws://127.0.0.1:80").is_ok());
        assert!(endpoint("wss://relay.example").is_ok());
        for url in [
            "ws://relay.example:80",
            "relay.example",
            "http://127.0.0.1:1",
            "",
        ] {
            assert!(endpoint(url).is_err(), "{url}");
        }
    }
}
