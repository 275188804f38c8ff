//! [`ApiServer`]: where the one API server is, and how to know that it is the one.

use std::{ffi::OsString, fmt, path::Path};

use base64::{Engine, prelude::BASE64_STANDARD};
use http::{Uri, uri::Scheme};

use super::upstream::{Dial, NetDial, Trust};
use crate::{
    Error, ErrorKind, Result,
    kubeconfig::{Cluster, Kubeconfig},
    net::{Endpoint, Security, TrustRoots},
};

/// Where Kubernetes puts the API server's certificate authority in every pod.
const IN_CLUSTER_CA: &str = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt";

/// The API server that an agent forwards to: address and trust, never a credential.
#[derive(Clone, Debug)]
pub struct ApiServer {
    endpoint: Endpoint,
    trust: Trust,
    server_name: Option<String>,
    path_prefix: String,
}

impl ApiServer {
    /// An API server at `endpoint`, known by a certificate that `roots` vouch for.
    pub fn new(endpoint: Endpoint, roots: TrustRoots) -> Self {
        Self::with_trust(endpoint, roots.into())
    }

    fn with_trust(endpoint: Endpoint, trust: Trust) -> Self {
        Self {
            endpoint,
            trust,
            server_name: None,
            path_prefix: String::new(),
        }
    }

    /// The API server of a kubeconfig's context, or of its current one. Relative file names start at `base`.
    ///
    /// Address, certificate authority and `tls-server-name` are taken over; the context's credential is not. A
    /// certificate authority that is a file is read again when it changes, and then counts for new connections; while
    /// it is unusable the last good one stays in use.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when the context does not exist, or its cluster is one to which the agent can not
    /// connect safely; [`ErrorKind::File`] when the certificate authority's file can not be read.
    pub fn from_kubeconfig(
        kubeconfig: &Kubeconfig,
        context: Option<&str>,
        base: &Path,
    ) -> Result<Self> {
        let resolved = kubeconfig.resolve(context)?;
        Self::from_cluster(resolved.cluster, base).map_err(|error| {
            let help = error.help().map(str::to_owned);
            let named = Error::new(
                error.kind(),
                format!("the kubeconfig context '{}' is not usable", resolved.name),
            )
            .with_source(error);
            match help {
                Some(help) => named.with_help(help),
                None => named,
            }
        })
    }

    /// The API server of the cluster in whose pod this process runs. Its certificate authority is read again when it
    /// changes.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] outside a pod; [`ErrorKind::File`] when the certificate authority's file, which
    /// Kubernetes mounts with the service account, can not be read.
    pub fn in_cluster() -> Result<Self> {
        Self::from_environment(|name| std::env::var_os(name), Path::new(IN_CLUSTER_CA))
    }

    /// Where the API server is.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    pub(super) fn path_prefix(&self) -> &str {
        &self.path_prefix
    }

    pub(super) fn dial(&self) -> Result<Box<dyn Dial>> {
        let dial = NetDial::new(self.endpoint.clone(), self.server_name.clone(), &self.trust)?;
        Ok(Box::new(dial))
    }

    fn from_cluster(cluster: &Cluster, base: &Path) -> Result<Self> {
        if cluster.insecure_skip_tls_verify {
            return Err(invalid(
                "insecure-skip-tls-verify is set: callers' tokens would go to whoever answers",
            )
            .with_help(
                "remove insecure-skip-tls-verify and give the cluster's certificate-authority-data",
            ));
        }
        if cluster.proxy_url.is_some() {
            return Err(invalid(
                "proxy-url is set, and the agent connects to the API server directly",
            )
            .with_help("run the agent where it reaches the API server without a proxy"));
        }
        let (endpoint, path_prefix) = parse_server(&cluster.server)?;
        let trust = match (
            &cluster.certificate_authority_data,
            &cluster.certificate_authority,
        ) {
            (Some(data), _) if !data.is_empty() => only_base64_pem(data)?.into(),
            (_, Some(path)) if !path.as_os_str().is_empty() => Trust::file(&base.join(path))?,
            _ => TrustRoots::platform().into(),
        };
        Ok(Self {
            endpoint,
            trust,
            server_name: cluster
                .tls_server_name
                .clone()
                .filter(|name| !name.is_empty()),
            path_prefix,
        })
    }

    fn from_environment(
        variable: impl Fn(&str) -> Option<OsString>,
        certificate_authority: &Path,
    ) -> Result<Self> {
        let read = |name: &str| {
            variable(name)
                .and_then(|value| value.into_string().ok())
                .filter(|value| !value.is_empty())
                .ok_or_else(|| {
                    Error::new(
                        ErrorKind::NotFound,
                        format!("not inside a pod: the environment variable {name} is not set"),
                    )
                    .with_help("pass a kubeconfig, or run the agent inside the cluster")
                })
        };
        let host = read("KUBERNETES_SERVICE_HOST")?;
        let port = read("KUBERNETES_SERVICE_PORT")?;
        let port = port.parse().map_err(|error| {
            invalid(format!("KUBERNETES_SERVICE_PORT is not a port: '{port}'")).with_source(error)
        })?;
        Ok(Self::with_trust(
            Endpoint::new(host, port, Security::Tls),
            Trust::file(certificate_authority)?,
        ))
    }
}

impl fmt::Display for ApiServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.endpoint.security() {
            Security::Plain => "http",
            Security::Tls => "https",
        };
        write!(f, "{scheme}://{}{}", self.endpoint, self.path_prefix)
    }
}

/// `https://host[:port][/path]`, as kubeconfigs have it.
fn parse_server(server: &str) -> Result<(Endpoint, String)> {
    let malformed = || {
        invalid(format!("the server '{server}' is not a URL"))
            .with_help("it has the form https://HOST:PORT")
    };
    let uri: Uri = server.parse().map_err(|_| malformed())?;
    let authority = uri.authority().ok_or_else(malformed)?;
    if authority.as_str().contains('@') || uri.query().is_some() {
        return Err(malformed());
    }
    let security = match uri.scheme() {
        Some(scheme) if *scheme == Scheme::HTTPS => Security::Tls,
        Some(scheme) if *scheme == Scheme::HTTP => Security::Plain,
        _ => return Err(malformed()),
    };
    let port = match authority.port() {
        Some(port) => port.as_u16(),
        None if authority.as_str().ends_with(':') || security == Security::Tls => 443,
        None => 80,
    };
    let host = authority.host().trim_matches(['[', ']']);
    if host.is_empty() {
        return Err(malformed());
    }
    let endpoint = Endpoint::new(host, port, security);
    if security == Security::Plain && !endpoint.is_loopback() {
        return Err(invalid(format!(
            "the server '{server}' is not https: callers' tokens would cross the network in clear"
        ))
        .with_help("use the API server's https address; http is for loopback only"));
    }
    Ok((endpoint, uri.path().trim_end_matches('/').to_owned()))
}

fn only_base64_pem(data: &str) -> Result<TrustRoots> {
    BASE64_STANDARD
        .decode(data)
        .map_err(|error| invalid("certificate-authority-data is not base64").with_source(error))
        .and_then(|pem| TrustRoots::only_pem(&pem))
}

fn invalid(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidInput, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A certificate authority, and a directory that holds it as `ca.crt`.
    fn authority() -> (String, tempfile::TempDir) {
        let key = rcgen::KeyPair::generate().expect("a key");
        let pem = rcgen::CertificateParams::default()
            .self_signed(&key)
            .expect("a certificate")
            .pem();
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("ca.crt"), &pem).expect("a file");
        (pem, directory)
    }

    fn from_cluster(cluster: &str, base: &Path) -> Result<ApiServer> {
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
             contexts:\n- name: c\n  context: {{cluster: k, user: u}}\n\
             users:\n- name: u\n  user: {{token: hunter2}}\n\
             clusters:\n- name: k\n  cluster: {{{cluster}}}\n"
        );
        ApiServer::from_kubeconfig(&Kubeconfig::parse(&text)?, None, base)
    }

    #[test]
    fn address_and_trust_are_taken_over_and_the_credential_is_not() {
        let (pem, directory) = authority();
        let data = BASE64_STANDARD.encode(&pem);
        for source in [
            format!("certificate-authority-data: {data}"),
            "certificate-authority: ca.crt".to_owned(),
        ] {
            let cluster = format!(
                "server: 'https://api.example:6443/k8s/c-1/', tls-server-name: kubernetes, {source}"
            );
            let api_server = from_cluster(&cluster, directory.path()).expect("usable");
            assert_eq!(api_server.endpoint().authority(), "api.example:6443");
            assert_eq!(api_server.path_prefix(), "/k8s/c-1");
            assert_eq!(api_server.server_name.as_deref(), Some("kubernetes"));
            assert!(api_server.dial().is_ok());
            assert!(!format!("{api_server:?}").contains("hunter2"));
        }
    }

    #[test]
    fn servers_parse() {
        for (server, authority, security) in [
            ("https://a", "a:443", Security::Tls),
            ("https://a/", "a:443", Security::Tls),
            ("https://[::1]:6443", "[::1]:6443", Security::Tls),
            ("http://127.0.0.1:8001", "127.0.0.1:8001", Security::Plain),
            ("http://localhost", "localhost:80", Security::Plain),
        ] {
            let (endpoint, prefix) = parse_server(server).expect(server);
            assert_eq!(endpoint.authority(), authority);
            assert_eq!(endpoint.security(), security);
            assert_eq!(prefix, "");
        }
    }

    #[test]
    fn what_is_unsafe_or_unusable_is_refused_with_advice() {
        let (_, directory) = authority();
        for (cluster, message) in [
            (
                "server: 'https://a', insecure-skip-tls-verify: true",
                "insecure-skip-tls-verify",
            ),
            (
                "server: 'https://a', proxy-url: 'http://proxy'",
                "proxy-url",
            ),
            ("server: 'http://api.example'", "not https"),
            ("server: 'ftp://a'", "not a URL"),
            ("server: 'a:6443'", "not a URL"),
            ("server: 'https://user@a'", "not a URL"),
            ("server: ''", "not a URL"),
        ] {
            let error = from_cluster(cluster, directory.path()).expect_err(cluster);
            assert!(error.report().contains(message), "{}", error.report());
            assert!(error.help().is_some(), "{cluster}");
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
        }
        let absent = from_cluster(
            "server: 'https://a', certificate-authority: absent.crt",
            directory.path(),
        );
        assert_eq!(absent.expect_err("absent").kind(), ErrorKind::File);
        let data = from_cluster(
            "server: 'https://a', certificate-authority-data: '%%'",
            directory.path(),
        );
        assert_eq!(
            data.expect_err("not base64").kind(),
            ErrorKind::InvalidInput
        );
    }

    #[test]
    fn inside_a_pod_the_environment_says_where() {
        let (_, directory) = authority();
        let ca = directory.path().join("ca.crt");
        let environment = |host: &'static str, port: &'static str| {
            move |name: &str| match name {
                "KUBERNETES_SERVICE_HOST" => Some(OsString::from(host)),
                "KUBERNETES_SERVICE_PORT" => Some(OsString::from(port)),
                _ => None,
            }
        };
        let api_server =
            ApiServer::from_environment(environment("fd00::1", "443"), &ca).expect("usable");
        assert_eq!(api_server.endpoint().authority(), "[fd00::1]:443");
        assert_eq!(api_server.endpoint().security(), Security::Tls);

        let outside = ApiServer::from_environment(|_| None, &ca).expect_err("outside");
        assert_eq!(outside.kind(), ErrorKind::NotFound);
        assert!(outside.help().is_some());
        let port = ApiServer::from_environment(environment("a", "http"), &ca);
        assert_eq!(port.expect_err("port").kind(), ErrorKind::InvalidInput);
        let absent = directory.path().join("absent");
        let mount = ApiServer::from_environment(environment("a", "443"), &absent);
        assert_eq!(mount.expect_err("mount").kind(), ErrorKind::File);
    }
}
