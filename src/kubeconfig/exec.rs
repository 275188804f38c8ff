//! [`ExecKubeconfig`]: the secret is fetched by a command, and stands in no file.

use std::{
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::json;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    Kubeconfig, KubeconfigBuilder, ProxyEndpoint, Secret, User, entries::Entries, value::Value,
};
use crate::{Error, ErrorKind, Result};

/// The version that every kubectl since 1.22 speaks.
const API_VERSION: &str = "client.authentication.k8s.io/v1";

/// A kubeconfig whose user gets the endpoint's secret from a command, a credential plugin of kubectl.
///
/// The file holds no secret: it can be copied, printed and kept in a backup. kubectl runs the command at each of its
/// own runs, never with a terminal, and reads from its standard output what [`exec_credential`] makes. It keeps the
/// token in memory until it expires or the endpoint answers 401, and then runs the command again. Cluster, user and
/// context all have the context's name.
///
/// ```
/// use arc_cluster_connect::kubeconfig::{ExecKubeconfig, KubeconfigBuilder, ProxyEndpoint};
///
/// let endpoint = ProxyEndpoint::new("https://127.0.0.1:47011/proxies/ab12", "PEM", "secret".into());
/// let kubeconfig = ExecKubeconfig::new("till-7", "/usr/bin/arc-connect")
///     .with_arguments(["credential", "--context", "till-7"])
///     .build(&endpoint)?;
/// let text = kubeconfig.to_yaml()?;
/// assert!(text.contains("command: /usr/bin/arc-connect") && !text.contains("secret"));
/// # Ok::<(), arc_cluster_connect::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ExecKubeconfig {
    context_name: String,
    command: PathBuf,
    arguments: Vec<String>,
    namespace: Option<String>,
}

impl ExecKubeconfig {
    /// The kubeconfig's context will be called `context_name`. `command` should be an absolute path: kubectl looks for
    /// a bare name in `PATH`, and takes a relative path as relative to the kubeconfig's directory.
    pub fn new(context_name: impl Into<String>, command: impl AsRef<Path>) -> Self {
        Self {
            context_name: context_name.into(),
            command: command.as_ref().to_owned(),
            arguments: Vec::new(),
            namespace: None,
        }
    }

    /// Adds arguments for the command. They stand in the file, and in process lists: no secret may be among them.
    #[must_use]
    pub fn with_arguments<T: Into<String>>(
        mut self,
        arguments: impl IntoIterator<Item = T>,
    ) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Sets the namespace that tools start in.
    #[must_use]
    pub fn with_namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }
}

impl KubeconfigBuilder for ExecKubeconfig {
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when the context's name is empty, longer than 253 characters, or has control
    /// characters, or when the command's path is empty or not UTF-8.
    fn build(&self, endpoint: &ProxyEndpoint) -> Result<Kubeconfig> {
        let command = match self.command.to_str() {
            Some(command) if !command.is_empty() => command,
            _ => {
                return Err(Error::new(
                    ErrorKind::InvalidInput,
                    "the path of the credential command is empty or not UTF-8",
                )
                .with_help("install the program at another path"));
            }
        };
        let text = |text: &str| Value::Text(text.to_owned());
        let arguments = self.arguments.iter().map(|argument| text(argument));
        let exec = [
            ("apiVersion", text(API_VERSION)),
            ("command", text(command)),
            ("args", Value::Sequence(arguments.collect())),
            ("interactiveMode", text("Never")),
            // The secret is the run's: it does not depend on what kubectl knows of the cluster.
            ("provideClusterInfo", Value::Bool(false)),
        ];
        let mut user = User::default();
        let members = exec.map(|(name, value)| (name.to_owned(), value));
        user.other.set("exec", Value::Mapping(members.into()));
        let name = &self.context_name;
        Entries::named(name, self.namespace.as_deref()).build(endpoint, user)
    }
}

/// What a credential command prints on standard output, and nothing else: an `ExecCredential` with the token.
///
/// ```json
/// {"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential",
///  "status":{"token":"…","expirationTimestamp":"2026-01-31T12:00:00Z"}}
/// ```
///
/// It is one line. `expires_at` is in whole seconds; without it, or beyond the year 9999, kubectl uses the token until
/// the endpoint refuses it. The text holds the secret: it is for standard output only.
///
/// ```
/// use arc_cluster_connect::kubeconfig::{Secret, exec_credential};
///
/// let json = exec_credential(&Secret::from("hush"), None);
/// assert!(json.contains(r#""status":{"token":"hush"}"#));
/// ```
pub fn exec_credential(secret: &Secret, expires_at: Option<SystemTime>) -> String {
    let mut status = json!({ "token": secret.expose() });
    if let Some(timestamp) = expires_at.and_then(timestamp) {
        status["expirationTimestamp"] = timestamp.into();
    }
    json!({
        "apiVersion": API_VERSION,
        "kind": "ExecCredential",
        "status": status,
    })
    .to_string()
}

fn timestamp(time: SystemTime) -> Option<String> {
    let seconds = time
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let time = OffsetDateTime::from_unix_timestamp(i64::try_from(seconds).ok()?).ok()?;
    time.format(&Rfc3339).ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn endpoint() -> ProxyEndpoint {
        ProxyEndpoint::new("https://127.0.0.1:1/proxies/ab", "PEM\n", "hush".into())
    }

    #[test]
    fn the_file_names_the_command_and_holds_no_secret() {
        let kubeconfig = ExecKubeconfig::new("till", "/opt/arc connect")
            .with_arguments(["credential", "yes"])
            .with_namespace("shop")
            .build(&endpoint())
            .unwrap();
        let text = kubeconfig.to_yaml().unwrap();
        assert!(!text.contains("hush"));
        let exec = "\
    exec:
      apiVersion: client.authentication.k8s.io/v1
      command: /opt/arc connect
      args:
      - credential
      - \"yes\"
      interactiveMode: Never
      provideClusterInfo: false
";
        assert!(text.contains(exec), "{text}");
        assert_eq!(Kubeconfig::parse(&text).unwrap(), kubeconfig);
        let context = kubeconfig.resolve(None).unwrap();
        assert_eq!(context.namespace, Some("shop"));
        assert_eq!(context.cluster.server, "https://127.0.0.1:1/proxies/ab");
    }

    #[test]
    fn commands_that_can_not_be_written_are_refused() {
        let error = ExecKubeconfig::new("till", "")
            .build(&endpoint())
            .expect_err("no command");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        #[cfg(unix)]
        {
            use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
            ExecKubeconfig::new("till", OsStr::from_bytes(b"/\xff"))
                .build(&endpoint())
                .expect_err("not UTF-8");
        }
    }

    #[test]
    fn the_credential_is_exactly_what_kubectl_wants() {
        let at = UNIX_EPOCH + Duration::from_millis(1_769_860_800_900);
        assert_eq!(
            exec_credential(&Secret::from("a\"b"), Some(at)),
            "{\"apiVersion\":\"client.authentication.k8s.io/v1\",\"kind\":\"ExecCredential\",\
             \"status\":{\"expirationTimestamp\":\"2026-01-31T12:00:00Z\",\"token\":\"a\\\"b\"}}"
        );
        for far in [u64::MAX >> 2, 400_000_000_000] {
            let Some(at) = UNIX_EPOCH.checked_add(Duration::from_secs(far)) else {
                continue;
            };
            assert!(!exec_credential(&Secret::from("s"), Some(at)).contains("expiration"));
        }
    }
}
