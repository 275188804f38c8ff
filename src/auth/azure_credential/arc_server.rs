//! The managed identity of an Azure Arc-enabled server: the agent's local endpoint (HIMDS), and its challenge.
//!
//! The endpoint proves that a caller is privileged on the machine: it names a file that only such a caller can read,
//! and wants its content back. Source: Microsoft's "Authenticate against Azure resources with Azure Arc-enabled
//! servers". `azure_identity` 1.0 does not know it.

use std::{
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use async_trait::async_trait;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::Value;

use super::{
    CredentialKind, CredentialSettings, Flow, Grant, ManagedIdentity,
    refusal::{on_the_way, refusal},
    token_endpoint::{malformed, seconds},
};
use crate::{
    Error, ErrorKind, Result,
    auth::{AccessToken, token_text::access_token},
    net::{HttpClient, HttpRequest, HttpResponse, encode_fields},
};

const API_VERSION: &str = "2020-06-01";
/// Where the endpoint is when the environment does not say.
const DEFAULT_ENDPOINT: &str = "http://localhost:40342/metadata/identity/oauth2/token";
/// The agent's program: a machine that has it is an Arc-enabled server, whether or not this process was started with
/// the variables.
const AGENT: &str = "/opt/azcmagent/bin/himds";
/// Where challenge files are. No other place is read: a false endpoint would have us send it any file.
#[cfg(not(windows))]
const CHALLENGES: &str = "/var/opt/azcmagent/tokens";
#[cfg(windows)]
const CHALLENGES: &str = r"C:\ProgramData\AzureConnectedMachineAgent\Tokens";
/// The largest challenge that Microsoft's own clients accept.
const MAX_CHALLENGE: u64 = 4096;
/// The endpoint is on this machine, but may itself ask Azure.
const DEADLINE: Duration = Duration::from_secs(15);

struct ArcServer {
    http: HttpClient,
    settings: CredentialSettings,
    endpoint: String,
    challenges: PathBuf,
}

/// The flow, when this machine is an Arc-enabled server.
pub(super) fn on_this_machine(
    settings: &CredentialSettings,
    identity: &ManagedIdentity,
) -> Result<Option<Arc<dyn Flow>>> {
    let environment = &settings.environment;
    let named = environment
        .get("IDENTITY_ENDPOINT")
        .filter(|_| environment.get("IMDS_ENDPOINT").is_some())
        .filter(|_| environment.get("IDENTITY_HEADER").is_none());
    let says_nothing = ["IDENTITY_ENDPOINT", "MSI_ENDPOINT"]
        .iter()
        .all(|name| environment.get(name).is_none());
    let endpoint = match named {
        Some(endpoint) => endpoint,
        None if says_nothing && Path::new(AGENT).exists() => DEFAULT_ENDPOINT.to_owned(),
        None => return Ok(None),
    };
    if *identity != ManagedIdentity::SystemAssigned {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            "an Arc-enabled server has no user-assigned identities",
        )
        .with_help("take the system-assigned one"));
    }
    Ok(Some(Arc::new(ArcServer::new(
        settings,
        endpoint,
        PathBuf::from(CHALLENGES),
    ))))
}

impl ArcServer {
    fn new(settings: &CredentialSettings, endpoint: String, challenges: PathBuf) -> Self {
        Self {
            http: HttpClient::new(settings.connector.clone()),
            settings: settings.clone(),
            endpoint,
            challenges,
        }
    }

    async fn ask(&self, scope: &str, answer: Option<&SecretString>) -> Result<HttpResponse> {
        // The endpoint wants the resource of the older protocol: the scope without its last part.
        let resource = scope.strip_suffix("/.default").unwrap_or(scope);
        let query = encode_fields(&[("api-version", API_VERSION), ("resource", resource)]);
        let mut request = HttpRequest::get(format!("{}?{query}", self.endpoint))
            .with_header(
                HeaderName::from_static("metadata"),
                HeaderValue::from_static("true"),
            )
            .with_deadline(DEADLINE)
            .or_plain_on_this_machine();
        if let Some(answer) = answer {
            request = request.with_authorization(&format!("Basic {}", answer.expose_secret()))?;
        }
        let outcome = self.http.send(self.settings.correlated(request)).await;
        outcome.map_err(|error| on_the_way(&error, "the machine's agent"))
    }

    /// The content of the file that the challenge names.
    async fn read_challenge(&self, headers: &HeaderMap) -> Result<SecretString> {
        let path = challenge_path(headers, &self.challenges).ok_or_else(|| {
            Error::new(
                ErrorKind::Protocol,
                "the endpoint's challenge names no file where the agent keeps its own",
            )
            .with_help("check that IDENTITY_ENDPOINT is the agent's (`azcmagent show`)")
        })?;
        let reading = tokio::task::spawn_blocking(move || read_small(&path));
        let outcome = reading.await.unwrap_or_else(|error| Err(error.into()));
        outcome.map_err(|error| {
            Error::new(
                ErrorKind::File,
                "the agent's challenge file can not be read",
            )
            .with_source(error)
            .with_help("run as root, or as a member of the group himds")
        })
    }
}

#[async_trait]
impl Flow for ArcServer {
    async fn token(&self, grant: &Grant<'_>) -> Result<AccessToken> {
        let mut response = self.ask(grant.scope, None).await?;
        if response.status == StatusCode::UNAUTHORIZED {
            let answer = self.read_challenge(&response.headers).await?;
            response = self.ask(grant.scope, Some(&answer)).await?;
        }
        if response.status != StatusCode::OK {
            let status = Some(response.status.as_u16());
            let kind = CredentialKind::ArcServer;
            return Err(refusal(kind, grant.scope, status, None, None));
        }
        granted(&response.body)
    }

    fn can_bind(&self) -> bool {
        false
    }
}

/// The file of `WWW-Authenticate: Basic realm=PATH`, when it lies directly in `directory` and is a `.key`.
fn challenge_path(headers: &HeaderMap, directory: &Path) -> Option<PathBuf> {
    let challenge = headers.get(header::WWW_AUTHENTICATE)?.to_str().ok()?;
    let (scheme, parameters) = challenge.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let realm = parameters.trim().strip_prefix("realm=")?;
    let path = Path::new(realm.trim_matches('"'));
    let is_key = path.extension().is_some_and(|extension| extension == "key");
    // Of the path only the name is used, so that `..` and links to elsewhere lead nowhere.
    let name = path.file_name().filter(|_| is_key)?;
    (path.parent() == Some(directory)).then(|| directory.join(name))
}

fn read_small(path: &Path) -> std::io::Result<SecretString> {
    let file = std::fs::File::open(path)?;
    let mut text = String::new();
    file.take(MAX_CHALLENGE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_CHALLENGE {
        return Err(std::io::Error::other(format!(
            "it is larger than {MAX_CHALLENGE} bytes"
        )));
    }
    Ok(text.into())
}

fn granted(body: &[u8]) -> Result<AccessToken> {
    #[derive(Deserialize)]
    struct Body {
        access_token: String,
        expires_on: Value,
    }

    let body: Body = serde_json::from_slice(body).map_err(|_| malformed())?;
    let end = seconds(&body.expires_on)
        .and_then(|seconds| UNIX_EPOCH.checked_add(seconds))
        .ok_or_else(malformed)?;
    let token = access_token(&body.access_token)?;
    Ok(AccessToken::new(token.secret(), Some(end)))
}

#[cfg(test)]
mod tests;
