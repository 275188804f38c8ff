//! The kubeconfig as data. What is not known here is kept in `other`, at every level.

use std::{fmt, io::Read, path::Path, path::PathBuf};

use serde::{Deserialize, Deserializer, Serialize};

use super::{Fields, Secret, yaml};
use crate::{Error, ErrorKind, Result};

/// A kubeconfig.
///
/// Unknown members survive a round trip at every level, and lists and unknown members keep their order. Comments,
/// the layout of the text and the order of known members do not survive a round trip through this model; a change of a
/// file by [`KubeconfigFile`](super::KubeconfigFile) keeps them.
///
/// ```
/// use arc_cluster_connect::kubeconfig::Kubeconfig;
///
/// let kubeconfig = Kubeconfig::parse(
///     "clusters: [{name: home, cluster: {server: 'https://10.0.0.1:6443'}}]\n\
///      contexts: [{name: me@home, context: {cluster: home}}]\n\
///      current-context: me@home\n",
/// )?;
/// let context = kubeconfig.resolve(None)?;
/// assert_eq!(context.name, "me@home");
/// assert_eq!(context.cluster.server, "https://10.0.0.1:6443");
/// # Ok::<(), arc_cluster_connect::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Kubeconfig {
    /// `v1`, the only version there is.
    #[serde(rename = "apiVersion", skip_serializing_if = "Option::is_none")]
    pub api_version: Option<String>,
    /// `Config`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The clusters. When a name is there twice, the first one counts.
    #[serde(default, deserialize_with = "null_is_default")]
    pub clusters: Vec<NamedCluster>,
    /// The users.
    #[serde(default, deserialize_with = "null_is_default")]
    pub users: Vec<NamedUser>,
    /// The contexts: pairs of a cluster and a user.
    #[serde(default, deserialize_with = "null_is_default")]
    pub contexts: Vec<NamedContext>,
    /// The context that a tool uses when none is named. Empty means none.
    #[serde(
        rename = "current-context",
        default,
        deserialize_with = "null_is_default"
    )]
    pub current_context: String,
    /// Members that are not known here.
    #[serde(flatten)]
    pub other: Fields,
}

impl Kubeconfig {
    /// Reads a kubeconfig from YAML or JSON. An empty text is an empty kubeconfig.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] with the line and column when `text` is not a kubeconfig;
    /// [`ErrorKind::LimitReached`] above 16 MiB. The input is never quoted, since it holds secrets.
    pub fn parse(text: &str) -> Result<Self> {
        yaml::parse(text).map_err(|error| {
            // Kind and help are the cause's; only the text gains a subject.
            let help = error.help().unwrap_or_default().to_owned();
            Error::new(
                error.kind(),
                format!("the kubeconfig is not usable: {error}"),
            )
            .with_help(help)
        })
    }

    /// Reads the kubeconfig file at `path`.
    ///
    /// # Errors
    /// [`ErrorKind::File`] when there is no such file, it is a directory, or may not be read; otherwise as
    /// [`parse`](Self::parse). The text names the file.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = read_bytes(path)?;
        Self::from_bytes(path, &bytes)
    }

    /// The kubeconfig as YAML.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when a certificate path is not UTF-8.
    pub fn to_yaml(&self) -> Result<String> {
        yaml::emit(self)
    }

    /// The first cluster of that name.
    pub fn cluster(&self, name: &str) -> Option<&Cluster> {
        let entry = self.clusters.iter().find(|entry| entry.name == name)?;
        Some(&entry.cluster)
    }

    /// The first user of that name.
    pub fn user(&self, name: &str) -> Option<&User> {
        let entry = self.users.iter().find(|entry| entry.name == name)?;
        Some(&entry.user)
    }

    /// The first context of that name.
    pub fn context(&self, name: &str) -> Option<&Context> {
        let entry = self.contexts.iter().find(|entry| entry.name == name)?;
        Some(&entry.context)
    }

    pub(super) fn from_bytes(path: &Path, bytes: &[u8]) -> Result<Self> {
        let parsed = match std::str::from_utf8(bytes) {
            Ok(text) => yaml::parse(text),
            Err(_) => Err(Error::new(ErrorKind::InvalidInput, "it is not UTF-8 text")),
        };
        parsed.map_err(|error| {
            let help = error
                .help()
                .unwrap_or("check that this is the file you meant")
                .to_owned();
            Error::new(
                error.kind(),
                format!("the kubeconfig {} is not usable: {error}", path.display()),
            )
            .with_help(help)
        })
    }
}

/// A cluster and its name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NamedCluster {
    /// The name by which contexts refer to it.
    #[serde(default, deserialize_with = "null_is_default")]
    pub name: String,
    /// The cluster.
    #[serde(default, deserialize_with = "null_is_default")]
    pub cluster: Cluster,
    /// Members that are not known here.
    #[serde(flatten)]
    pub other: Fields,
}

/// Where an API server is, and whom to trust there.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct Cluster {
    /// The URL of the API server.
    #[serde(default, deserialize_with = "null_is_default")]
    pub server: String,
    /// A file with the certificate authority, relative to the kubeconfig's directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_authority: Option<PathBuf>,
    /// The certificate authority itself: base64 of PEM. It wins over [`certificate_authority`](Self::certificate_authority).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_authority_data: Option<String>,
    /// The name to expect in the server's certificate, when it is not the host of the URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_server_name: Option<String>,
    /// Whether the server's certificate is not checked at all.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub insecure_skip_tls_verify: bool,
    /// A proxy to reach the server through. It may hold a password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_url: Option<String>,
    /// Members that are not known here.
    #[serde(flatten)]
    pub other: Fields,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster")
            .field("server", &self.server)
            .field("certificate_authority", &self.certificate_authority)
            .field(
                "certificate_authority_data",
                &self.certificate_authority_data,
            )
            .field("tls_server_name", &self.tls_server_name)
            .field("insecure_skip_tls_verify", &self.insecure_skip_tls_verify)
            .field("proxy_url", &self.proxy_url.as_ref().map(|_| "…"))
            .field("other", &self.other)
            .finish()
    }
}

/// A user and its name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NamedUser {
    /// The name by which contexts refer to it.
    #[serde(default, deserialize_with = "null_is_default")]
    pub name: String,
    /// The user.
    #[serde(default, deserialize_with = "null_is_default")]
    pub user: User,
    /// Members that are not known here.
    #[serde(flatten)]
    pub other: Fields,
}

/// How to prove who is calling. Other ways than these (`exec`, `auth-provider`) are in `other`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct User {
    /// A bearer token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Secret>,
    /// A file with a bearer token. It wins over [`token`](Self::token).
    #[serde(rename = "tokenFile", default, skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// A file with a client certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<PathBuf>,
    /// A client certificate: base64 of PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate_data: Option<String>,
    /// A file with the key of the client certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_key: Option<PathBuf>,
    /// The key of the client certificate: base64 of PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_key_data: Option<Secret>,
    /// For basic authentication, which no current API server accepts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// For basic authentication.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// Members that are not known here.
    #[serde(flatten)]
    pub other: Fields,
}

/// A context and its name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NamedContext {
    /// The name that `kubectl --context` takes.
    #[serde(default, deserialize_with = "null_is_default")]
    pub name: String,
    /// The context.
    #[serde(default, deserialize_with = "null_is_default")]
    pub context: Context,
    /// Members that are not known here.
    #[serde(flatten)]
    pub other: Fields,
}

/// A cluster, who calls it, and the namespace to start in.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Context {
    /// The name of the cluster.
    #[serde(default, deserialize_with = "null_is_default")]
    pub cluster: String,
    /// The name of the user. Empty means none.
    #[serde(default, deserialize_with = "null_is_default")]
    pub user: String,
    /// The namespace, when it is not `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Members that are not known here.
    #[serde(flatten)]
    pub other: Fields,
}

/// kubectl itself writes `clusters: null` into an empty kubeconfig.
fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// The bytes of a kubeconfig file, bounded.
pub(super) fn read_bytes(path: &Path) -> Result<Vec<u8>> {
    let read = || {
        let file = std::fs::File::open(path)?;
        if file.metadata()?.is_dir() {
            return Err(std::io::ErrorKind::IsADirectory.into());
        }
        let mut bytes = Vec::new();
        file.take(yaml::MAX_KUBECONFIG_BYTES as u64 + 1)
            .read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().map_err(|error: std::io::Error| unreadable(path, error))?;
    if bytes.len() > yaml::MAX_KUBECONFIG_BYTES {
        return Err(Error::new(
            ErrorKind::LimitReached,
            format!(
                "the kubeconfig {} is not usable: {}",
                path.display(),
                yaml::too_large()
            ),
        )
        .with_help("check that this is the file you meant"));
    }
    Ok(bytes)
}

fn unreadable(path: &Path, error: std::io::Error) -> Error {
    let (what, help) = match error.kind() {
        std::io::ErrorKind::NotFound => (
            "does not exist",
            "check the path, or create the file with `kubectl config`",
        ),
        std::io::ErrorKind::IsADirectory => (
            "is a directory",
            "give the path of a file, usually ~/.kube/config",
        ),
        std::io::ErrorKind::PermissionDenied => (
            "may not be read",
            "check the file's owner and mode (it should be yours, 0600)",
        ),
        _ => ("can not be read", "check the path"),
    };
    Error::new(
        ErrorKind::File,
        format!("the kubeconfig {} {what}", path.display()),
    )
    .with_source(error)
    .with_help(help)
}

#[cfg(test)]
mod tests;
