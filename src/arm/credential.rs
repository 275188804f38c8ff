//! [`ClusterCredential`]: with what the cluster's relay may be dialled for the next hours.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use crate::{Error, ErrorKind, Result, kubeconfig::Kubeconfig};

/// How the caller will show who they are, beyond the relay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AuthenticationMethod {
    /// With tokens of Entra ID.
    #[default]
    Aad,
    /// With a token of the cluster's own, such as a service account's.
    Token,
}

impl AuthenticationMethod {
    /// The service's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Aad => "AAD",
            Self::Token => "Token",
        }
    }
}

/// What `listClusterUserCredential` gives. Prints no secret.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClusterCredential {
    /// Where to dial, and with which token.
    pub relay: RelayAccess,
    /// The kubeconfigs that came along.
    pub kubeconfigs: Vec<ClusterKubeconfig>,
}

/// A hybrid connection and a sender's token for it.
#[derive(Clone)]
pub struct RelayAccess {
    namespace: String,
    hybrid_connection_name: String,
    token: SecretString,
    expires_at: SystemTime,
    tenant: Option<String>,
    kind: Option<String>,
}

impl RelayAccess {
    /// The relay's namespace, without the cloud's suffix: `azgnrelay-eastus-l1`.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The path of the hybrid connection, new with each credential: the one on which the agent listens, and the time
    /// of issue in nanoseconds.
    pub fn hybrid_connection_name(&self) -> &str {
        &self.hybrid_connection_name
    }

    /// The SAS token itself.
    pub fn token(&self) -> &str {
        self.token.expose_secret()
    }

    /// When another credential should be in use. The relay itself takes the token a little longer (ten minutes were
    /// seen), as the token says.
    pub fn expires_at(&self) -> SystemTime {
        self.expires_at
    }

    /// The tenant that the relay belongs to, from API version 2026-03-01 on.
    pub fn tenant(&self) -> Option<&str> {
        self.tenant.as_deref()
    }

    /// The kind of the relay, such as `byor` for one of the customer's own, from API version 2026-03-01 on.
    pub fn kind(&self) -> Option<&str> {
        self.kind.as_deref()
    }
}

impl fmt::Debug for RelayAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelayAccess")
            .field("namespace", &self.namespace)
            .field("hybrid_connection_name", &self.hybrid_connection_name)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// A kubeconfig of Azure Resource Manager's. May hold a token; not printed.
#[derive(Clone)]
pub struct ClusterKubeconfig {
    name: String,
    text: SecretString,
}

impl ClusterKubeconfig {
    /// Its name, such as `credentialName1`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The YAML text, with the line ends of Unix.
    pub fn text(&self) -> &str {
        self.text.expose_secret()
    }

    /// The kubeconfig.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when the text is none.
    pub fn parse(&self) -> Result<Kubeconfig> {
        Kubeconfig::parse(self.text())
    }
}

impl fmt::Debug for ClusterKubeconfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterKubeconfig")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl ClusterCredential {
    /// Reads the service's answer. Unknown fields are left alone; errors repeat nothing of it.
    pub(super) fn parse(json: &[u8]) -> Result<Self> {
        let answer: Answer = serde_json::from_slice(json).map_err(|error| {
            // The parser's text may repeat a value, and values are secrets here.
            unusable(format!(
                "it is not readable at line {}, column {}",
                error.line(),
                error.column()
            ))
        })?;
        let Some(relay) = answer.hybrid_connection_config else {
            return Err(unusable("it names no hybrid connection".to_owned()));
        };
        let present = |text: Option<String>, what: &str| {
            text.filter(|text| !text.trim().is_empty())
                .ok_or_else(|| unusable(format!("it has no {what}")))
        };
        let expires_at = relay
            .expiration_time
            .and_then(Number::seconds)
            .and_then(|seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds)))
            .ok_or_else(|| unusable("it has no expiration time".to_owned()))?;
        Ok(Self {
            relay: RelayAccess {
                namespace: present(relay.relay, "relay")?,
                hybrid_connection_name: present(
                    relay.hybrid_connection_name,
                    "hybrid connection's name",
                )?,
                token: SecretString::from(present(relay.token, "token")?),
                expires_at,
                tenant: relay.relay_tid,
                kind: relay.relay_type,
            },
            kubeconfigs: answer
                .kubeconfigs
                .unwrap_or_default()
                .into_iter()
                .filter_map(kubeconfig)
                .collect(),
        })
    }
}

fn unusable(why: String) -> Error {
    Error::new(
        ErrorKind::Protocol,
        format!("Azure Resource Manager's credential for the cluster is not usable: {why}"),
    )
    .with_help("check that cluster connect is enabled: `az connectedk8s enable-features --features cluster-connect`")
}

/// A kubeconfig is not needed for a tunnel: one that can not be read is left out.
fn kubeconfig(entry: Entry) -> Option<ClusterKubeconfig> {
    let name = entry.name.unwrap_or_default();
    let text = entry.value.as_deref().and_then(decode_kubeconfig);
    if text.is_none() {
        tracing::warn!(name, "left out a kubeconfig that is not readable");
    }
    Some(ClusterKubeconfig {
        name,
        text: SecretString::from(text?),
    })
}

/// Base64, once; twice as in the examples of newer specifications, which are no YAML after one decoding.
fn decode_kubeconfig(value: &str) -> Option<String> {
    let once = decode(value)?;
    let text = match decode(&once) {
        // The shortest kubeconfig has a colon, which is not in the alphabet.
        Some(twice) if !once.contains(':') => twice,
        _ => once,
    };
    Some(text.replace("\r\n", "\n"))
}

fn decode(value: &str) -> Option<String> {
    let value: String = value.split_ascii_whitespace().collect();
    String::from_utf8(BASE64.decode(value).ok()?).ok()
}

/// With or without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    hybrid_connection_config: Option<HybridConnectionConfig>,
    kubeconfigs: Option<Vec<Entry>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct HybridConnectionConfig {
    expiration_time: Option<Number>,
    hybrid_connection_name: Option<String>,
    relay: Option<String>,
    token: Option<String>,
    relay_tid: Option<String>,
    relay_type: Option<String>,
}

#[derive(Deserialize)]
struct Entry {
    name: Option<String>,
    value: Option<String>,
}

/// 64-bit numbers are written as text by some JSON writers.
#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Number(u64),
    Text(String),
}

impl Number {
    fn seconds(self) -> Option<u64> {
        match self {
            Self::Number(number) => Some(number),
            Self::Text(text) => text.trim().parse().ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use base64::prelude::BASE64_STANDARD;
    use serde_json::json;

    use super::*;

    const YAML: &str = "apiVersion: v1\r\nclusters:\r\n- cluster:\r\n    server: https://127.0.0.1:47011/proxies/5e5\r\n  name: till-7\r\nkind: Config\r\n";

    fn answer() -> serde_json::Value {
        json!({
            "hybridConnectionConfig": {
                "expirationTime": 1_635_508_790_u64,
                "hybridConnectionName": "microsoft.kubernetes/connectedclusters/5e5/1635497990523092736",
                "relay": "azgnrelay-eastus-l1",
                "token": "SharedAccessSignature sr=top-secret",
            },
            "kubeconfigs": [{ "name": "credentialName1", "value": BASE64_STANDARD.encode(YAML) }],
        })
    }

    fn parse(answer: &serde_json::Value) -> Result<ClusterCredential> {
        ClusterCredential::parse(answer.to_string().as_bytes())
    }

    #[test]
    fn an_answer_is_read() {
        let credential = parse(&answer()).unwrap();
        let relay = &credential.relay;
        assert_eq!(relay.namespace(), "azgnrelay-eastus-l1");
        assert!(
            relay
                .hybrid_connection_name()
                .ends_with("/1635497990523092736")
        );
        assert_eq!(relay.token(), "SharedAccessSignature sr=top-secret");
        assert_eq!(
            relay.expires_at(),
            UNIX_EPOCH + Duration::from_secs(1_635_508_790)
        );
        assert_eq!((relay.tenant(), relay.kind()), (None, None));
        let kubeconfig = &credential.kubeconfigs[0];
        assert_eq!(kubeconfig.name(), "credentialName1");
        assert_eq!(kubeconfig.text(), YAML.replace('\r', ""));
        kubeconfig.parse().unwrap();
    }

    #[test]
    fn newer_answers_are_read_too() {
        let mut answer = answer();
        let relay = &mut answer["hybridConnectionConfig"];
        relay["relayTid"] = json!("33e01921-4d64-4f8c-a055-5bdaffd5e33d");
        relay["relayType"] = json!("byor");
        relay["expirationTime"] = json!("1635508790");
        relay["somethingNew"] = json!({ "a": [1] });
        let twice = BASE64_STANDARD.encode(BASE64_STANDARD.encode(YAML));
        answer["kubeconfigs"] = json!([
            { "name": "twice", "value": twice },
            { "name": "unpadded", "value": BASE64_STANDARD.encode(YAML).trim_end_matches('=') },
            { "name": "broken", "value": "%%%" },
            { "name": "absent" },
        ]);
        let credential = parse(&answer).unwrap();
        assert_eq!(credential.relay.kind(), Some("byor"));
        assert_eq!(
            credential.relay.tenant(),
            Some("33e01921-4d64-4f8c-a055-5bdaffd5e33d")
        );
        let names: Vec<_> = credential
            .kubeconfigs
            .iter()
            .map(|one| one.name())
            .collect();
        assert_eq!(names, ["twice", "unpadded"]);
        for kubeconfig in &credential.kubeconfigs {
            assert_eq!(kubeconfig.text(), YAML.replace('\r', ""));
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        for (field, word) in [
            ("expirationTime", "expiration time"),
            ("hybridConnectionName", "hybrid connection's name"),
            ("relay", "relay"),
            ("token", "token"),
        ] {
            let mut answer = answer();
            answer["hybridConnectionConfig"][field] = serde_json::Value::Null;
            let error = parse(&answer).unwrap_err();
            assert!(error.to_string().contains(word), "{error}");
            assert_eq!(error.kind(), ErrorKind::Protocol);
        }
        let only_kubeconfigs = json!({ "kubeconfigs": [] });
        let error = parse(&only_kubeconfigs).unwrap_err();
        assert!(error.to_string().contains("no hybrid connection"));
    }

    #[test]
    fn no_secret_is_printed_nor_repeated_in_an_error() {
        let printed = format!("{:?}", parse(&answer()).unwrap());
        assert!(
            !printed.contains("top-secret") && !printed.contains("47011"),
            "{printed}"
        );
        let mut answer = answer();
        answer["hybridConnectionConfig"]["relay"] = json!(["top-secret"]);
        answer["hybridConnectionConfig"]["expirationTime"] = json!("top-secret");
        let error = parse(&answer).unwrap_err();
        assert!(!format!("{error:?}").contains("top-secret"), "{error:?}");
    }
}
